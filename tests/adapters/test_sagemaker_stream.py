"""Answers in parts: what SageMaker's event streams can do wrong, with a real client and a real HTTP server."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from infra.local.sagemaker_front.event_stream import CONTENT_TYPE, exception, payload_part
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from shared.domain.ports import Backend, InferenceContext
from shared.domain.tensors import Tensors, bytes_tensor
from tests.adapters.sagemaker_server import Answer, SageMakerServer, answer_of, model_error, sagemaker_error
from tests.adapters.samples import version_of

VERSION = version_of("m", 7)
CONTEXT = InferenceContext("request-1", "tenant", 20_000, priority=2)
INPUTS: Tensors = {"x": np.array([[1, 2]], dtype=np.float32), "note": bytes_tensor([b"a"])}
OUTPUTS: Tensors = {"y": np.array([[1, 2]], dtype=np.float32), "label": bytes_tensor([b"a"])}
WHOLE = answer_of(OUTPUTS, VERSION)


def parts(size: int) -> list[bytes]:
    """The whole answer as events of so many bytes."""
    return [payload_part(WHOLE.body[at : at + size]) for at in range(0, len(WHOLE.body), size)]


def stream(*messages: bytes, **headers: str) -> Answer:
    """An answer of these events."""
    given = {"Content-Type": CONTENT_TYPE, "X-Amzn-SageMaker-Content-Type": WHOLE.headers["Content-Type"]}
    return Answer(
        200, b"".join(messages), {**given, **{name.replace("_", "-"): text for name, text in headers.items()}}
    )


@pytest.fixture
def server() -> Iterator[SageMakerServer]:
    server = SageMakerServer()
    yield server
    server.close()


@pytest.fixture
def backend(server: SageMakerServer, aws_session: Session) -> Iterator[Backend]:
    resources = Resources(session=aws_session, endpoint_urls={"sagemaker-runtime": server.url})
    options = {"endpoint": "e", "target_variant": "main", "max_response_bytes": 10_000, "timeouts_s": [0.5, 20.0]}
    made: Any = Registry(resources).build(BackendChoice("sagemaker-stream", options))
    with closing(made):
        yield made


def fails(backend: Backend, kind: type[BackendError], match: str) -> BackendError:
    with pytest.raises(kind, match=match) as caught:
        backend.infer(VERSION, INPUTS, CONTEXT)
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_parts_are_joined(backend: Backend, server: SageMakerServer, size: int) -> None:
    server.script = lambda _call: stream(*parts(size))
    outputs = backend.infer(VERSION, INPUTS, CONTEXT)
    np.testing.assert_array_equal(outputs["y"], OUTPUTS["y"])
    (call,) = server.calls
    assert call.path == "/endpoints/e/invocations-response-stream"
    assert call.headers["x-amzn-sagemaker-target-variant"] == "main"
    assert call.headers["x-amzn-sagemaker-inference-id"] == "request-1"
    assert call.headers["x-amzn-sagemaker-accept"] == "application/vnd.sagemaker-triton.binary+json"
    assert call.attributes["priority"] == "2"
    np.testing.assert_array_equal(call.request.inputs["x"].array, INPUTS["x"])


_ENDS: dict[str, tuple[bytes, type[BackendError], str]] = {
    "it took too long": (
        exception("ModelStreamError", {"Message": "m", "ErrorCode": "ModelInvocationTimeExceeded"}),
        BackendTimeout,
        "ModelInvocationTimeExceeded",
    ),
    "it was closed": (
        exception("ModelStreamError", {"Message": "m", "ErrorCode": "StreamBroken"}),
        BackendError,
        "StreamBroken",
    ),
    "it says no more": (exception("ModelStreamError", {"Message": "m"}), BackendError, "broke off"),
    "SageMaker failed": (exception("InternalStreamFailure", {"Message": "m"}), BackendError, "InternalStreamFailure"),
}


@pytest.mark.parametrize("what", _ENDS)
def test_a_stream_that_ends_with_an_exception_gives_nothing(
    backend: Backend, server: SageMakerServer, what: str
) -> None:
    event, kind, match = _ENDS[what]
    server.script = lambda _call: stream(*parts(10_000), event)
    assert not fails(backend, kind, match).retryable
    assert len(server.calls) == 1


def test_half_a_stream_is_no_answer(backend: Backend, server: SageMakerServer) -> None:
    half = parts(8)
    server.script = lambda _call: stream(*half[: len(half) // 2])
    fails(backend, BackendError, "inference protocol")
    server.script = lambda _call: stream(*half[:-1], half[-1][:-5])
    fails(backend, BackendError, "inference protocol")
    server.script = lambda _call: stream(*half[:-1], Content_Length="100000")  # more was announced
    with pytest.raises(BackendError):
        backend.infer(VERSION, INPUTS, replace(CONTEXT, deadline_ms=400))


def test_a_damaged_event_is_no_answer(backend: Backend, server: SageMakerServer) -> None:
    event = bytearray(parts(10_000)[0])
    event[-10] ^= 1
    server.script = lambda _call: stream(bytes(event))
    fails(backend, BackendError, "damaged")


def test_more_than_is_allowed_is_no_answer(backend: Backend, server: SageMakerServer) -> None:
    server.script = lambda _call: stream(*parts(10_000), payload_part(bytes(10_000)))
    fails(backend, BackendError, "more than 10000 bytes")


def test_errors_before_the_stream_are_those_of_other_calls(backend: Backend, server: SageMakerServer) -> None:
    server.script = lambda _call: model_error(503, "")
    assert fails(backend, BackendUnavailable, "503").retryable
    server.script = lambda _call: sagemaker_error(503, "ServiceUnavailable")
    assert fails(backend, BackendUnavailable, "ServiceUnavailable").retryable
