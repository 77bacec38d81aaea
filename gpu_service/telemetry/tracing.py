"""OpenTelemetry traces, when an exporter is set: one server span a request, with one child for each of its steps.

Nothing is traced while a request is on its way. Once it is answered its times are put into a bounded queue, which takes
about a microsecond; a thread makes the spans from them and the SDK sends them. What comes faster than it can be sent is
dropped and counted. Where no exporter is set the SDK is not even imported.

Sources: OpenTelemetry, "Environment Variable Specification", "OTLP Exporter Configuration", "Semantic Conventions for
HTTP Spans" and "for gRPC"; W3C Trace Context.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shared.domain.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_log = logging.getLogger(__name__)
_MAX_WAITING = 2048
_MAX_SPANS = 8192
_MAX_ATTRIBUTE = 256
_PERIOD_SECONDS = 0.1
_SCOPE = "gpu_service"
# Statuses of gRPC that are the server's fault: OpenTelemetry, "Semantic Conventions for gRPC".
_GRPC_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Operation(NamedTuple):
    """What was called, made once for a route: the span's name, and the attributes that all its spans have."""

    name: str
    attributes: Mapping[str, str]
    status_attribute: str


def http_operation(method: str, route: str) -> Operation:
    """An operation over HTTP; `route` is the route's pattern."""
    attributes = {"http.request.method": method, "http.route": route, "url.scheme": "http"}
    return Operation(f"{method} {route}", attributes, "http.response.status_code")


def grpc_operation(method: str) -> Operation:
    """An operation over gRPC; `method` is the full name, `inference.GRPCInferenceService/ModelInfer`."""
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    return Operation(method, attributes, "rpc.response.status_code")


class Traced(Protocol):
    """What is read of a request. Times are seconds of `time.monotonic`, 0 for a step that was not reached."""

    arrived: float
    decoded_at: float
    started: float
    finished: float
    traceparent: str
    request_id: str
    rows: int


class _Record(NamedTuple):
    operation: Operation
    status: int | str
    code: str
    model: str
    version: str
    request_id: str
    traceparent: str
    rows: int
    times: tuple[float, float, float, float, float]
    epoch_ns: int


class Tracer:
    """Belongs to the event loop, but for its own thread. Made by `tracer_from`."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer(_SCOPE)
        self._propagator = TraceContextTextMapPropagator()
        self._waiting: deque[_Record] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="traces", daemon=True)
        self._thread.start()
        self.dropped = 0

    def record(
        self,
        request: Traced,
        operation: Operation,
        status: int | str,
        answered: float,
        *,
        model: str,
        version: str,
        code: str = "",
    ) -> None:
        """Trace a request that was answered at `answered`, with the HTTP status or the name of the gRPC status.

        `code` is the error's code, empty for success.
        """
        times = (request.arrived, request.decoded_at, request.started, request.finished, answered)
        about = (request.request_id, request.traceparent, request.rows)
        self._put(_Record(operation, status, code, model, version, *about, times, _epoch_ns()))

    def refused(
        self,
        operation: Operation,
        status: int | str,
        arrived: float,
        answered: float,
        *,
        code: str,
        model: str = "",
        version: str = "",
        request_id: str = "",
        traceparent: str = "",
    ) -> None:
        """Trace a request that never became one: it could not be decoded, or was shed."""
        times = (arrived, 0.0, 0.0, 0.0, answered)
        self._put(_Record(operation, status, code, model, version, request_id, traceparent, 0, times, _epoch_ns()))

    def _put(self, record: _Record) -> None:
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(record)
        else:
            self.dropped += 1

    def shutdown(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s` seconds; blocking. What is left then is lost."""
        end = threading.Thread(target=self._end, name="traces-end", daemon=True)
        end.start()
        end.join(timeout_s)

    def _end(self) -> None:
        self._closing.set()
        self._thread.join()
        self._provider.shutdown()

    def _serve(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(_PERIOD_SECONDS)
            for _ in range(len(self._waiting)):
                record = self._waiting.popleft()
                try:
                    self._trace(record)
                except Exception:  # noqa: BLE001 - logged; one request that cannot be traced must not end the tracing
                    _log.exception("a request could not be traced")

    def _trace(self, record: _Record) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        arrived, *_, answered = record.times
        span = self._tracer.start_span(
            record.operation.name,
            context=self._propagator.extract({"traceparent": record.traceparent}),
            kind=SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=_nanoseconds(arrived, record),
        )
        if span.is_recording():
            if _is_fault(record.status):
                span.set_status(Status(StatusCode.ERROR))
            self._trace_steps(record, span)
        span.end(_nanoseconds(answered, record))

    def _trace_steps(self, record: _Record, span: "Span") -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(span)
        arrived, decoded, started, finished, answered = record.times
        # A request that was joined to another or answered from the cache has no run of its own.
        steps = (
            ("parse", arrived, decoded),
            ("queue", decoded, started or finished),
            ("run", started, finished),
            ("encode", finished, answered),
        )
        for name, start, end in steps:
            if start and end:
                step = self._tracer.start_span(name, context=context, start_time=_nanoseconds(start, record))
                step.end(_nanoseconds(end, record))


def tracer_from(environ: Mapping[str, str]) -> Tracer | None:
    """The tracer that OpenTelemetry's variables ask for; None where no exporter is set. SettingsError names a bad one.

    Headers, timeouts, compression, certificates, sampler, resource and the sizes of the SDK's queue are read by the SDK
    itself, from the environment of the process.
    """
    if not _wanted(environ):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "sluice-container"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=_endpoint(environ))
    queue_size = None if environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else _MAX_SPANS
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=queue_size))
    return Tracer(provider)


def _wanted(environ: Mapping[str, str]) -> bool:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in {"", "none", "otlp"}:
        raise SettingsError("OTEL_TRACES_EXPORTER: expected 'otlp' or 'none'")
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if not exporter and _endpoint(environ) is None:
        return False
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environ.get(variable, "").strip()
        if protocol:
            if protocol != "http/protobuf":
                raise SettingsError(f"{variable}: expected 'http/protobuf'")
            break
    return True


def _endpoint(environ: Mapping[str, str]) -> str | None:
    """Where traces go; None where the variables do not say, which is the exporter's default on this machine."""
    traces = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return traces or (f"{base.rstrip('/')}/v1/traces" if base else None)


def _attributes(record: _Record) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {**record.operation.attributes, record.operation.status_attribute: record.status}
    optional: dict[str, str | int] = {
        "error.type": record.code,
        "sluice.model.name": record.model,
        "sluice.model.version": record.version,
        "sluice.request_id": record.request_id[:_MAX_ATTRIBUTE],
        "sluice.rows": record.rows,
    }
    return attributes | {name: value for name, value in optional.items() if value}


def _is_fault(status: int | str) -> bool:
    """Whether the server is to blame: a caller's mistake does not make its span an error."""
    return status >= 500 if isinstance(status, int) else status in _GRPC_FAULTS


def _nanoseconds(moment: float, record: _Record) -> int:
    return round(moment * 1e9) + record.epoch_ns


def _epoch_ns() -> int:
    """What a time of the monotonic clock must be moved by to tell the time of day, which may be set while we run."""
    return time.time_ns() - time.monotonic_ns()
