"""The contract over gRPC."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import grpc
import numpy as np
import pytest

from shared.adapters.backends.bearer import BearerToken
from shared.adapters.backends.grpc_backend import MAPPED, OpenInferenceGrpc
from shared.adapters.backends.open_inference_grpc import Options
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    PayloadTooLarge,
    TextTooLong,
)
from shared.domain.tensors import Tensors
from tests.adapters.backends.conftest import Serving
from tests.adapters.backends.contract import (
    CONTEXT,
    HTTP_OUTCOMES,
    HURRIED,
    BackendContract,
    FaultContract,
    Outcome,
    fails,
    published,
)
from tests.adapters.backends.faults import Fault
from tests.adapters.backends.faulty import Faulty


def made(target: str, **options: Any) -> Any:
    """The backend as a configuration makes it."""
    choice = BackendChoice("open-inference-grpc", {"target": target, **options})
    return Registry(Resources(allow_loopback=True)).build(choice)


def status(code: str, detail: str = "", **trailers: str) -> Fault:
    return Fault(
        "status", status=code, body=detail, headers={n.replace("_", "-"): text for n, text in trailers.items()}
    )


SAME = (
    *("reset before the request was read", "reset after the request was read", "closed without an answer"),
    *(
        "no answer",
        "an answer byte by byte",
        "an answer too late",
        "half an answer",
        "a body that is none of the protocol",
    ),
    *("a compressed bomb", "too many bytes", "an output that is missing", "an output too many"),
    *(f"another {kind}" for kind in ("model", "version", "id", "dtype", "shape", "rows")),
)
OWN: Mapping[str, Outcome] = {
    "UNAVAILABLE with a time": Outcome(
        status("UNAVAILABLE", "full", grpc_retry_pushback_ms="2500"),
        BackendUnavailable,
        retryable=True,
        retry_after_s=2.5,
    ),
    "a tenant's share used up": Outcome(
        status("RESOURCE_EXHAUSTED", "share", x_sluice_code="tenant_overloaded", grpc_retry_pushback_ms="1000"),
        BackendUnavailable,
        retryable=True,
        retry_after_s=1.0,
    ),
    "a version that is not loaded": Outcome(
        status("NOT_FOUND", "no such", x_sluice_code="version_not_found"), BackendUnavailable, retryable=True
    ),
    "content that is at fault": Outcome(status("INVALID_ARGUMENT", "long", x_sluice_code="text_too_long"), TextTooLong),
    "a request that is too large": Outcome(
        status("RESOURCE_EXHAUSTED", "large", x_sluice_code="payload_too_large"), PayloadTooLarge
    ),
    "a deadline in the queue": Outcome(
        status("DEADLINE_EXCEEDED", "passed", x_sluice_code="backend_timeout"), BackendTimeout, context=HURRIED
    ),
}


class TestGrpc(BackendContract, FaultContract):
    outcomes: ClassVar[Mapping[str, Outcome]] = {**{name: HTTP_OUTCOMES[name] for name in SAME}, **OWN}
    forms: ClassVar[tuple[str, ...]] = ("reordered", "parameters", "nameless", "typed")

    @pytest.fixture
    def backend(self, container: Serving) -> Iterator[Any]:
        backend = made(container.grpc_target)
        yield backend
        backend.close()

    @pytest.fixture
    def troubled(self, faulty: Faulty) -> Iterator[Any]:
        backend = made(faulty.grpc_target)
        yield backend
        backend.close()

    @pytest.fixture
    def unreachable(self, free_port: int) -> Iterator[Any]:
        backend = made(f"127.0.0.1:{free_port}")
        yield backend
        backend.close()


# gRPC's own list, by hand: (what it becomes, whether another attempt may be made).
STATUSES: Mapping[grpc.StatusCode, tuple[type[BackendError], bool]] = {
    grpc.StatusCode.OK: (BackendError, False),
    grpc.StatusCode.CANCELLED: (BackendError, False),
    grpc.StatusCode.UNKNOWN: (BackendError, False),
    grpc.StatusCode.INVALID_ARGUMENT: (BackendRejected, False),
    grpc.StatusCode.DEADLINE_EXCEEDED: (BackendTimeout, False),
    grpc.StatusCode.NOT_FOUND: (BackendRejected, False),
    grpc.StatusCode.ALREADY_EXISTS: (BackendRejected, False),
    grpc.StatusCode.PERMISSION_DENIED: (BackendError, False),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (BackendUnavailable, True),
    grpc.StatusCode.FAILED_PRECONDITION: (BackendRejected, False),
    grpc.StatusCode.ABORTED: (BackendError, False),
    grpc.StatusCode.OUT_OF_RANGE: (BackendRejected, False),
    grpc.StatusCode.UNIMPLEMENTED: (BackendError, False),
    grpc.StatusCode.INTERNAL: (BackendError, False),
    grpc.StatusCode.UNAVAILABLE: (BackendUnavailable, True),
    grpc.StatusCode.DATA_LOSS: (BackendError, False),
    grpc.StatusCode.UNAUTHENTICATED: (BackendError, False),
}


def test_every_status_is_mapped() -> None:
    assert set(STATUSES) == set(grpc.StatusCode)
    assert {code: (kind, kind.retryable) for code, kind in MAPPED.items()} == dict(STATUSES)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_met_as_mapped(faulty: Faulty, code: grpc.StatusCode) -> None:
    faulty.switch.set(status(code.name, "d" * 1000))
    kind, retryable = STATUSES[code]
    backend = made(faulty.grpc_target)
    error = fails(backend, kind, CONTEXT)
    backend.close()
    assert isinstance(error, BackendError)
    assert error.retryable is retryable
    assert ("d" * 500 in error.detail, "d" * 501 in error.detail) == (kind is BackendRejected, False)


@pytest.fixture
def listener() -> Iterator[tuple[str, list[tuple[dict[str, str], ModelInferRequest]]]]:
    """A server that answers as model and version of the request; the metadata and the requests that came."""
    calls: list[tuple[dict[str, str], ModelInferRequest]] = []

    def infer(data: bytes, context: Any) -> bytes:
        request = ModelInferRequest.FromString(data)
        given = {name: text for name, text in context.invocation_metadata() if name != "user-agent"}
        calls.append(({**given, "authority": "timed" if context.time_remaining() else ""}, request))
        if given.get("authorization", "Bearer right") != "Bearer right":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        answer = ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
        answer.outputs.add(name="y", datatype="FP32", shape=[1, 2])
        answer.raw_output_contents.append(request.raw_input_contents[0])
        return answer.SerializeToString()

    methods: Any = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server = grpc.server(
        ThreadPoolExecutor(2),
        handlers=[grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", calls
    server.stop(0).wait()


X: Tensors = {"x": np.array([[1, 2]], dtype=np.float32)}


def test_what_travels_beside_the_tensors(listener: Any) -> None:
    target, calls = listener
    parent = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    backend = made(target, headers={"X-Team": "blue"}, model="other", version="9", send_timeout=True)
    context = replace(CONTEXT, tenant="ü", traceparent=parent, priority=7)
    np.testing.assert_array_equal(backend.infer(published("same-fp32"), X, context)["y"], X["x"])
    backend.close()
    ((metadata, request),) = calls
    assert 0 < int(metadata.pop("x-sluice-deadline-ms")) <= CONTEXT.deadline_ms
    assert metadata == {
        "authority": "timed",
        "x-team": "blue",
        "x-request-id": "request-1",
        "x-sluice-tenant": "%C3%BC",
        "x-sluice-priority": "7",
        "traceparent": parent,
    }
    assert (request.model_name, request.model_version, request.id) == ("other", "9", "request-1")
    assert request.parameters["timeout"].int64_param == CONTEXT.deadline_ms * 1000


def test_a_message_over_the_limit_is_not_sent(listener: Any) -> None:
    target, calls = listener
    backend = made(target, max_message_bytes=20)
    with pytest.raises(PayloadTooLarge):
        backend.infer(published("same-fp32"), X, CONTEXT)
    backend.close()
    assert calls == []


def test_a_closed_backend_connects_anew(listener: Any) -> None:
    target, calls = listener
    backend = made(target)
    for _ in range(2):
        backend.infer(published("same-fp32"), X, CONTEXT)
        backend.close()
    assert len(calls) == 2


def test_a_refused_token_is_read_again_once(listener: Any) -> None:
    target, calls = listener
    secrets = iter([b"wrong", b" right\n"])
    now = [0.0]

    def secret() -> Callable[[], bytes]:
        value = next(secrets)
        return lambda: value

    token = BearerToken(secret, clock=lambda: now[0])
    backend = OpenInferenceGrpc(Options(target=target), token)
    error = fails_with(backend)
    assert "UNAUTHENTICATED" in error.detail  # refused a moment after it was read: reading it again would not help
    now[0] = 60.0
    np.testing.assert_array_equal(backend.infer(published("same-fp32"), X, CONTEXT)["y"], X["x"])
    backend.close()
    assert [metadata["authorization"] for metadata, _ in calls] == ["Bearer wrong", "Bearer wrong", "Bearer right"]


def fails_with(backend: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        backend.infer(published("same-fp32"), X, CONTEXT)
    assert type(caught.value) is BackendError
    return caught.value
