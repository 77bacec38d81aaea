import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gpu_service.telemetry.tracing import Tracer, grpc_operation, http_operation, tracer_from
from shared.domain.settings import SettingsError
from tests.gpu_service.telemetry.collector import Collector, collector

_INFER = http_operation("POST", "/v2/models/{model}/infer")
_TRACE, _PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Request:
    arrived: float
    decoded_at: float
    started: float
    finished: float
    traceparent: str = f"00-{_TRACE}-{_PARENT}-01"
    request_id: str = "request-1"
    rows: int = 3


@pytest.fixture
def received() -> Iterator[Collector]:
    with collector() as one:
        yield one


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")


def _tracer(received: Collector, **environ: str) -> Tracer:
    tracer = tracer_from({"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, **environ})
    assert tracer is not None
    return tracer


def _record(tracer: Tracer, request: Request, answered: float, status: int | str = 200, code: str = "") -> None:
    tracer.record(request, _INFER, status, answered, model="tree", version="2", code=code)


def _by_name(received: Collector) -> dict[str, Span]:
    return {span.name: span for span in received.spans}


def test_a_request_is_a_server_span_below_the_callers_with_its_steps(received: Collector) -> None:
    tracer = _tracer(received)
    before, now = time.time_ns(), time.monotonic()
    _record(tracer, Request(now, now + 0.001, now + 0.003, now + 0.007), now + 0.015)
    tracer.shutdown(10)
    spans = _by_name(received)
    server = spans.pop("POST /v2/models/{model}/infer")
    assert server.trace_id.hex() == _TRACE
    assert server.parent_span_id.hex() == _PARENT
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert received.attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "sluice.model.name": "tree",
        "sluice.model.version": "2",
        "sluice.request_id": "request-1",
        "sluice.rows": 3,
    }
    assert before - 1_000_000 <= server.start_time_unix_nano <= time.time_ns()
    took = {name: round((step.end_time_unix_nano - step.start_time_unix_nano) / 1e6) for name, step in spans.items()}
    assert took == {"parse": 1, "queue": 2, "run": 4, "encode": 8}
    for step in spans.values():
        assert (step.trace_id, step.parent_span_id) == (server.trace_id, server.span_id)
        assert server.start_time_unix_nano <= step.start_time_unix_nano <= step.end_time_unix_nano
        assert step.end_time_unix_nano <= server.end_time_unix_nano
    assert received.paths == ["/v1/traces"]
    (resource,) = received.resources
    assert [entry.value.string_value for entry in resource.resource.attributes if entry.key == "service.name"] == [
        "sluice-container"
    ]


def test_a_request_without_a_trace_begins_one(received: Collector) -> None:
    tracer = _tracer(received)
    now = time.monotonic()
    for traceparent in ("", "nonsense", f"00-{'0' * 32}-{_PARENT}-01", f"00-{_TRACE}-{_PARENT}"):
        _record(tracer, Request(now, now, now, now, traceparent), now)
    tracer.shutdown(10)
    servers = [span for span in received.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert len(servers) == 4
    assert all(not span.parent_span_id and span.trace_id.hex() != _TRACE for span in servers)
    assert len({span.trace_id for span in servers}) == 4


def test_what_the_caller_does_not_sample_is_not_sent(received: Collector) -> None:
    tracer = _tracer(received)
    now = time.monotonic()
    _record(tracer, Request(now, now, now, now, f"00-{_TRACE}-{_PARENT}-00"), now)
    _record(tracer, Request(now, now, now, now), now)
    tracer.shutdown(10)
    assert len([span for span in received.spans if span.kind == Span.SPAN_KIND_SERVER]) == 1


def test_an_answer_from_the_cache_has_no_run(received: Collector) -> None:
    tracer = _tracer(received)
    now = time.monotonic()
    _record(tracer, Request(now, now + 0.001, 0.0, now + 0.002), now + 0.003)
    tracer.shutdown(10)
    assert set(_by_name(received)) == {_INFER.name, "parse", "queue", "encode"}


@pytest.mark.parametrize(("status", "error"), [(422, False), (429, False), (503, True), (504, True)])
def test_only_the_servers_faults_are_errors(received: Collector, status: int, error: bool) -> None:
    tracer = _tracer(received)
    now = time.monotonic()
    tracer.refused(_INFER, status, now, now, code="some_code", model="tree", request_id="r")
    tracer.shutdown(10)
    (span,) = received.spans
    assert (span.status.code == Status.STATUS_CODE_ERROR) is error
    attributes = received.attributes(span)
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("some_code", status)


@pytest.mark.parametrize(("status", "error"), [("OK", False), ("INVALID_ARGUMENT", False), ("UNAVAILABLE", True)])
def test_a_call_over_grpc_has_its_own_names(received: Collector, status: str, error: bool) -> None:
    tracer = _tracer(received)
    now = time.monotonic()
    operation = grpc_operation("inference.GRPCInferenceService/ModelInfer")
    tracer.record(Request(now, now, now, now), operation, status, now, model="tree", version="2")
    tracer.shutdown(10)
    span = _by_name(received)["inference.GRPCInferenceService/ModelInfer"]
    attributes = received.attributes(span)
    assert attributes["rpc.system.name"] == "grpc"
    assert attributes["rpc.method"] == "inference.GRPCInferenceService/ModelInfer"
    assert attributes["rpc.response.status_code"] == status
    assert (span.status.code == Status.STATUS_CODE_ERROR) is error


def test_what_does_not_fit_the_queue_is_dropped_and_counted(
    received: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_service.telemetry.tracing._PERIOD_SECONDS", 60)
    monkeypatch.setattr("gpu_service.telemetry.tracing._MAX_WAITING", 10)
    tracer = _tracer(received)
    now = time.monotonic()
    for _ in range(15):
        _record(tracer, Request(now, now, now, now), now)
    assert tracer.dropped == 5
    tracer.shutdown(10)
    assert len([span for span in received.spans if span.kind == Span.SPAN_KIND_SERVER]) == 10


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(received: Collector) -> None:
    received.open.clear()
    tracer = _tracer(received)
    now = time.monotonic()
    _record(tracer, Request(now, now, now, now), now)
    tracer.shutdown(0.2)
    assert not received.spans  # it still waits, and we are here


def test_a_request_that_cannot_be_traced_does_not_end_the_tracing(
    received: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = _tracer(received)
    now = time.monotonic()
    _record(tracer, Request("yesterday", now, now, now), now)  # type: ignore[arg-type]
    _record(tracer, Request(now, now, now, now), now)
    tracer.shutdown(10)
    assert _by_name(received).keys() == {_INFER.name, "parse", "queue", "run", "encode"}
    assert "a request could not be traced" in caplog.text


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_without_an_exporter_nothing_is_traced(environ: dict[str, str]) -> None:
    assert tracer_from(environ) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_cannot_be_done_stops_the_start(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}: expected '"):
        tracer_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", variable: value})


def test_the_whole_address_is_used_as_it_is(received: Collector) -> None:
    tracer = tracer_from({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{received.url}/here"})
    assert tracer is not None
    now = time.monotonic()
    _record(tracer, Request(now, now, now, now), now)
    tracer.shutdown(10)
    assert received.paths == ["/here"]
