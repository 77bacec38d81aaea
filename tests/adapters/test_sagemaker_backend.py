"""What travels to SageMaker Runtime, and every way in which it fails, with a real client and a real HTTP server."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.adapters.backends.sagemaker_clients import DEFAULT_TIMEOUTS_S, SteppedClients
from shared.adapters.backends.sagemaker_errors import MAPPED
from shared.adapters.backends.sagemaker_realtime import SageMakerBackend
from shared.domain import errors
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    FieldError,
    SluiceError,
)
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors, bytes_tensor
from tests.adapters.sagemaker_server import (
    BINARY,
    Answer,
    Call,
    SageMakerServer,
    answer_of,
    container,
    model_error,
    problem,
    sagemaker_error,
)
from tests.adapters.samples import version_of

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

VERSION = version_of("m", 7)
CONTEXT = InferenceContext("request-1", "tenant", 20_000)
INPUTS: Tensors = {"x": np.array([[1, 2], [3, 4]], dtype=np.float32), "note": bytes_tensor([b"a", b"\xff"])}
OUTPUTS: Tensors = {"y": np.array([[1, 2], [3, 4]], dtype=np.float32), "label": bytes_tensor([b"a", b"b"])}


@pytest.fixture
def server() -> Iterator[SageMakerServer]:
    server = SageMakerServer()
    server.script = container(VERSION, lambda _version, _inputs: OUTPUTS)
    yield server
    server.close()


@pytest.fixture
def backend(server: SageMakerServer, aws_session: Session) -> Iterator[SageMakerBackend]:
    runtime = client("sagemaker-runtime", session=aws_session, endpoint_url=server.url, retries=0, read_timeout=20)
    yield SageMakerBackend(lambda _seconds: runtime, "the-endpoint")
    runtime.close()


def _fails(backend: SageMakerBackend, kind: type[SluiceError], match: str = ".") -> SluiceError:
    with pytest.raises(kind, match=match) as caught:
        backend.infer(VERSION, INPUTS, CONTEXT)
    assert type(caught.value) is kind
    return caught.value


def test_tensors_travel_as_binary_and_the_rest_as_custom_attributes(
    backend: SageMakerBackend, server: SageMakerServer
) -> None:
    backend.infer(VERSION, INPUTS, CONTEXT)
    (call,) = server.calls
    assert call.path == "/endpoints/the-endpoint/invocations"
    np.testing.assert_array_equal(call.request.inputs["x"].array, INPUTS["x"])
    assert list(call.request.inputs["note"].array) == [b"a", b"\xff"]
    assert call.headers["accept"] == BINARY
    sent = call.attributes
    assert 0 < int(sent.pop("deadline-ms")) <= 20_000
    assert sent == {"model": "m", "version": "7", "request-id": "request-1", "tenant": "tenant"}


def test_every_argument_that_chooses_within_the_endpoint_is_sent(server: SageMakerServer, aws_session: Session) -> None:
    options = {
        "endpoint": "the-endpoint",
        "target_variant": "challenger",
        "inference_component": "component-1",
        "target_model": "models/m.tar.gz",
        "target_container": "second",
        "explanations": "`true`",
    }
    resources = Resources(session=aws_session, endpoint_urls={"sagemaker-runtime": server.url})
    made: Any = Registry(resources).build(BackendChoice("sagemaker", options))
    with closing(made):
        made.infer(VERSION, INPUTS, replace(CONTEXT, priority=3))
    (call,) = server.calls
    assert call.path == "/endpoints/the-endpoint/invocations"
    prefix = "x-amzn-sagemaker-"
    sent = {name.removeprefix(prefix): value for name, value in call.headers.items() if name.startswith(prefix)}
    del sent["custom-attributes"]
    assert sent == {
        "target-variant": "challenger",
        "inference-component": "component-1",
        "target-model": "models/m.tar.gz",
        "target-container-hostname": "second",
        "enable-explanations": "`true`",
        "inference-id": "request-1",
    }
    assert call.attributes["priority"] == "3"


def test_nothing_is_chosen_that_was_not_asked_for(backend: SageMakerBackend, server: SageMakerServer) -> None:
    backend.infer(VERSION, INPUTS, replace(CONTEXT, request_id="ü" * 70))
    (call,) = server.calls
    named = {name for name in call.headers if name.startswith("x-amzn-sagemaker-")}
    assert named == {"x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-inference-id"}
    assert re.fullmatch("[0-9a-f]{64}", call.headers["x-amzn-sagemaker-inference-id"])
    assert "priority" not in call.attributes


@pytest.mark.parametrize(
    ("kind", "options", "place"),
    [
        ("sagemaker", {}, "/options/endpoint"),
        ("sagemaker", {"endpoint": "no_name"}, "/options/endpoint"),
        ("sagemaker", {"endpoint": "e" * 64}, "/options/endpoint"),
        ("sagemaker", {"endpoint": "e", "timeouts_s": [2.0, 1.0]}, "/options"),
        ("sagemaker", {"endpoint": "e", "timeouts_s": []}, "/options/timeouts_s"),
        ("sagemaker", {"endpoint": "e", "max_request_bytes": 25_000_001}, "/options/max_request_bytes"),
        ("sagemaker", {"endpoint": "e", "target_model": "a\r\nX-Evil: 1"}, "/options/target_model"),
        ("sagemaker", {"endpoint": "e", "session_id": "NEW_SESSION"}, "/options/session_id"),
        ("sagemaker-stream", {"endpoint": "e", "target_model": "m"}, "/options/target_model"),
        ("sagemaker-async", {"endpoint": "e", "request_ttl_s": 59}, "/options/request_ttl_s"),
        ("sagemaker-async", {"endpoint": "e", "invocation_timeout_s": 3601}, "/options/invocation_timeout_s"),
        ("sagemaker-async", {"endpoint": "e", "poll_min_ms": 2000}, "/options"),
    ],
)
def test_options_are_bounded(kind: str, options: dict[str, Any], place: str) -> None:
    (problem,) = Registry(Resources()).problems(kind, options)
    assert problem.pointer == place
    assert problem.detail


def test_the_trace_travels_with_the_call(backend: SageMakerBackend, server: SageMakerServer) -> None:
    parent = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    backend.infer(VERSION, INPUTS, replace(CONTEXT, traceparent=parent))
    (call,) = server.calls
    assert call.attributes["traceparent"] == parent
    assert f"traceparent={parent}" in call.headers["x-amzn-sagemaker-custom-attributes"]


@pytest.mark.parametrize("tenant", ["a;model=other", "ü % = ;\r\nX-Evil: 1", "a b,c\"d'", "", "%3B"])
def test_no_name_can_add_an_attribute_or_a_header(
    backend: SageMakerBackend, server: SageMakerServer, tenant: str
) -> None:
    backend.infer(VERSION, INPUTS, InferenceContext("r;version=9", tenant, 20_000))
    (call,) = server.calls
    assert call.attributes["tenant"] == tenant
    assert call.attributes["request-id"] == "r;version=9"
    assert (call.attributes["model"], call.attributes["version"]) == ("m", "7")
    assert "x-evil" not in call.headers
    assert re.fullmatch(r"[!-~]{1,1024}", call.headers["x-amzn-sagemaker-custom-attributes"])


def test_long_names_stay_apart_and_below_the_limit(backend: SageMakerBackend, server: SageMakerServer) -> None:
    version = version_of("m" * 64, 10**30)
    server.script = container(version, lambda _version, _inputs: OUTPUTS)
    for last in "ab":
        backend.infer(version, INPUTS, InferenceContext("ü" * 500, "ü" * 5000 + last, 10**9))
    texts = [call.headers["x-amzn-sagemaker-custom-attributes"] for call in server.calls]
    assert all(len(text) <= 1024 for text in texts)
    tenants = {call.attributes["tenant"] for call in server.calls}
    assert len(tenants) == 2


def test_images_in_place_of_numbers_travel_as_bytes(backend: SageMakerBackend, server: SageMakerServer) -> None:
    backend.infer(VERSION, {**INPUTS, "x": bytes_tensor([b"png", b"jpeg"])}, CONTEXT)
    assert list(server.calls[0].request.inputs["x"].array) == [b"png", b"jpeg"]


def test_a_json_answer_is_read_too(backend: SageMakerBackend, server: SageMakerServer) -> None:
    y = '{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}'
    label = '{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}'
    body = f'{{"model_name": "m", "model_version": "7", "outputs": [{label}, {y}]}}'.encode()
    server.script = lambda _call: Answer(200, body, {"Content-Type": "application/json; charset=utf-8"})
    outputs = backend.infer(VERSION, INPUTS, CONTEXT)
    assert list(outputs) == ["y", "label"]
    np.testing.assert_array_equal(outputs["y"], OUTPUTS["y"])


def test_a_single_unbatched_answer_has_the_shape_of_the_signature(
    backend: SageMakerBackend, server: SageMakerServer
) -> None:
    signature = replace(
        VERSION.signature,
        batched=False,
        outputs=(VERSION.signature.outputs[0],),
    )
    version = replace(VERSION, signature=signature)
    outputs: Tensors = {"y": np.ones((5, 2), dtype=np.float32)}
    server.script = lambda _call: answer_of(outputs, version)
    np.testing.assert_array_equal(backend.infer(version, INPUTS, CONTEXT)["y"], outputs["y"])


_Y, _LABEL = VERSION.signature.outputs
AS_FP64 = replace(VERSION, signature=replace(VERSION.signature, outputs=(replace(_Y, dtype=DType.FP64), _LABEL)))
_WRONG_ANSWERS: dict[str, tuple[Callable[[], Answer], str]] = {
    "another model": (lambda: answer_of(OUTPUTS, VERSION, name="other"), "'other' version '7'"),
    "another version": (lambda: answer_of(OUTPUTS, VERSION, number="8"), "version '8'"),
    "a missing output": (lambda: answer_of({"y": OUTPUTS["y"]}, VERSION), "not the outputs"),
    "a missing row": (lambda: answer_of({**OUTPUTS, "y": OUTPUTS["y"][:1]}, VERSION), r"shape \[1, 2\], not \[2, 2\]"),
    "a row too many": (lambda: answer_of({**OUTPUTS, "label": bytes_tensor([b"a"] * 3)}, VERSION), "shape"),
    "another rank": (lambda: answer_of({**OUTPUTS, "y": OUTPUTS["y"].reshape(2, 2, 1)}, VERSION), "shape"),
    "another dtype": (
        lambda: answer_of({**OUTPUTS, "y": OUTPUTS["y"].astype(np.float64)}, AS_FP64),
        "FP64, not as FP32",
    ),
    "no JSON": (lambda: Answer(200, b"<html>", {"Content-Type": "application/json"}), "inference protocol"),
    "a cut body": (
        lambda: Answer(200, b'{"a', {"Content-Type": f"{BINARY};json-header-size=99"}),
        "inference protocol",
    ),
    "another type": (lambda: Answer(200, b"{}", {"Content-Type": "text/html"}), "content type 'text/html'"),
}


@pytest.mark.parametrize("what", _WRONG_ANSWERS)
def test_an_answer_that_is_not_this_versions_is_refused(
    backend: SageMakerBackend, server: SageMakerServer, what: str
) -> None:
    make, match = _WRONG_ANSWERS[what]
    server.script = lambda _call: make()
    _fails(backend, BackendError, match)


_ABOUT_OUR_BODY = (errors.NotJson, errors.TooDeep, errors.UnsupportedMediaType, errors.NotAcceptable)
_CONTENT_ERRORS: list[type[SluiceError]] = [
    errors.InvalidRequest,
    *(kind for kind in errors.InvalidRequest.__subclasses__() if kind not in _ABOUT_OUR_BODY),
]


@pytest.mark.parametrize("kind", _CONTENT_ERRORS, ids=[kind.code for kind in _CONTENT_ERRORS])
def test_what_the_container_says_of_the_content_reaches_the_caller(
    backend: SageMakerBackend, server: SageMakerServer, kind: type[SluiceError]
) -> None:
    body = problem(kind.code, "what is wrong", errors=[{"pointer": "/instances/1", "detail": "bad"}, {"x": 1}, 2])
    server.script = lambda _call: model_error(422, body)
    error = _fails(backend, kind, "what is wrong")
    assert error.fields == (FieldError("/instances/1", "bad"),)


_CONTAINER_ERRORS: dict[str, tuple[int, str, type[SluiceError]]] = {
    "it could not read our body": (400, problem("not_json", "line 1"), BackendRejected),
    "it does not take our type": (415, problem("unsupported_media_type", "x"), BackendRejected),
    "another 4xx": (400, "Bad Request", BackendRejected),
    "a 4xx of an unknown code": (418, problem("teapot", "short and stout"), BackendRejected),
    "the model is not there yet": (404, problem("model_not_found", "m"), BackendUnavailable),
    "the version is not there yet": (404, problem("version_not_found", "m"), BackendUnavailable),
    "it is full": (503, problem("backend_unavailable", "queue full"), BackendUnavailable),
    "it is full and has no body": (503, "", BackendUnavailable),
    "it sheds": (429, "", BackendUnavailable),
    "its deadline passed": (504, problem("backend_timeout", "late"), BackendTimeout),
    "a gateway gave up": (504, "<html>", BackendTimeout),
    "the graph failed": (500, problem("backend_error", "graph"), BackendError),
    "a 500": (500, "Traceback (most recent call last): secret", BackendError),
    "a 500 that calls itself a bad request": (500, problem("bad_image", "x"), BackendError),
    "JSON that is no object": (500, "[1]", BackendError),
    "out of memory": (507, "", BackendError),
}


@pytest.mark.parametrize("what", _CONTAINER_ERRORS)
def test_what_the_container_says_of_itself_is_the_backends_fault(
    backend: SageMakerBackend, server: SageMakerServer, what: str
) -> None:
    status, body, kind = _CONTAINER_ERRORS[what]
    server.script = lambda _call: model_error(status, body)
    error = _fails(backend, kind)
    assert "Traceback" not in error.detail
    assert len(server.calls) == 1


def test_a_container_that_sagemaker_gave_up_on_is_a_timeout(backend: SageMakerBackend, server: SageMakerServer) -> None:
    message = "Received server error (0) from primary with message 'Your invocation timed out while waiting'"
    server.script = lambda _call: model_error(0, "", message)
    _fails(backend, BackendTimeout)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "ModelNotReadyException", BackendUnavailable),
        (503, "ServiceUnavailable", BackendUnavailable),
        (503, "ServiceUnavailableException", BackendUnavailable),
        (400, "ThrottlingException", BackendUnavailable),
        (429, "TooManyRequestsException", BackendUnavailable),
        (502, "Unheard", BackendError),
        (504, "Unheard", BackendTimeout),
        (400, "ValidationError", BackendError),
        (400, "Unheard", BackendError),
        (403, "AccessDeniedException", BackendError),
        (530, "InternalDependencyException", BackendError),
        (500, "InternalFailure", BackendError),
    ],
)
def test_sagemakers_own_errors_are_told_apart_and_not_tried_again(
    backend: SageMakerBackend, server: SageMakerServer, status: int, code: str, kind: type[SluiceError]
) -> None:
    server.script = lambda _call: sagemaker_error(status, code)
    _fails(backend, kind, code)
    assert len(server.calls) == 1


_OPERATIONS = ("InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream")
# Told apart by what they hold.
_BY_CONTENT = {"ModelError", "ModelStreamError"}


def test_every_error_of_the_service_model_is_mapped(aws_session: Session) -> None:
    model = aws_session.get_service_model("sagemaker-runtime")
    assert set(_OPERATIONS) == set(model.operation_names)
    modelled = {shape.name for name in _OPERATIONS for shape in model.operation_model(name).error_shapes}
    assert modelled >= _BY_CONTENT
    assert modelled <= MAPPED.keys() | _BY_CONTENT


@pytest.mark.parametrize("code", MAPPED)
def test_a_mapped_error_says_whether_the_call_may_be_made_again(
    backend: SageMakerBackend, server: SageMakerServer, code: str
) -> None:
    kind, retryable = MAPPED[code]
    server.script = lambda _call: sagemaker_error(500 if code == "InternalFailure" else 400, code)
    error = _fails(backend, kind, code)
    assert isinstance(error, BackendError)
    assert error.retryable is retryable
    assert len(server.calls) == 1


@pytest.mark.parametrize("what", _CONTAINER_ERRORS)
def test_a_container_that_took_nothing_on_may_be_asked_again(
    backend: SageMakerBackend, server: SageMakerServer, what: str
) -> None:
    status, body, kind = _CONTAINER_ERRORS[what]
    server.script = lambda _call: model_error(status, body)
    error = _fails(backend, kind)
    assert isinstance(error, BackendError)
    assert error.retryable is (kind is BackendUnavailable)


def test_without_credentials_nothing_is_sent(server: SageMakerServer) -> None:
    session = Session(session_vars={"profile": (None, [], None, None), "config_file": (None, None, os.devnull, None)})
    session.set_config_variable("region", "us-east-1")
    session.get_component("credential_provider").providers.clear()
    runtime = client("sagemaker-runtime", session=session, endpoint_url=server.url, retries=0)
    error = _fails(SageMakerBackend(lambda _seconds: runtime, "endpoint"), BackendError, "credentials")
    assert isinstance(error, BackendError)
    assert not error.retryable
    assert not server.calls


@pytest.fixture
def steps() -> list[float]:
    """The read timeouts for which a client was made."""
    return []


@pytest.fixture
def timed(server: SageMakerServer, aws_session: Session, steps: list[float]) -> Iterator[SageMakerBackend]:
    with ExitStack() as opened:

        def client_for(seconds: float) -> "SageMakerRuntimeClient":
            steps.append(seconds)
            made = client(
                "sagemaker-runtime", session=aws_session, endpoint_url=server.url, retries=0, read_timeout=seconds
            )
            opened.callback(made.close)
            return made

        yield SageMakerBackend(client_for, "endpoint", timeouts_s=(0.2, 5.0, 10.0))


def test_a_dead_container_is_given_up_one_step_after_the_deadline_and_not_tried_again(
    timed: SageMakerBackend, server: SageMakerServer, steps: list[float]
) -> None:
    answered = threading.Event()

    def hang(_call: Call) -> None:
        answered.wait(20)

    server.script = hang
    with pytest.raises(BackendTimeout, match="in time"):
        timed.infer(VERSION, INPUTS, replace(CONTEXT, deadline_ms=150))
    answered.set()
    assert steps == [0.2]
    give_up = time.monotonic() + 10  # the caller may be gone before the server has read what it sent
    while not server.calls and time.monotonic() < give_up:
        time.sleep(0.01)
    assert len(server.calls) == 1


def test_a_client_is_made_once_for_each_step_and_covers_the_deadline(
    timed: SageMakerBackend, steps: list[float]
) -> None:
    for deadline_ms in (4_000, 3_000, 7_000, 60_000, 4_000):
        timed.infer(VERSION, INPUTS, replace(CONTEXT, deadline_ms=deadline_ms))
    assert steps == [5.0, 10.0]


def test_a_call_with_a_short_deadline_holds_its_connection_for_a_short_time() -> None:
    steps: list[float] = []

    class _Client:
        def close(self) -> None:
            """Nothing is open."""

    def client_for(seconds: float) -> _Client:
        steps.append(seconds)
        return _Client()

    clients = SteppedClients(client_for, DEFAULT_TIMEOUTS_S)
    for seconds in (0.005, 0.1, 0.25, 0.9, 60.0):
        clients.get(seconds)
    assert steps == [0.1, 0.3, 1.0, 27.0]


def test_a_connection_closed_without_an_answer_is_tried_once_more(
    backend: SageMakerBackend, server: SageMakerServer
) -> None:
    working = server.script
    server.script = lambda call: None if len(server.calls) == 1 else working(call)
    assert list(backend.infer(VERSION, INPUTS, CONTEXT)) == ["y", "label"]
    assert len(server.calls) == 2
    server.script = lambda _call: None
    _fails(backend, BackendUnavailable, "cannot be reached")
    assert len(server.calls) == 4


def test_an_endpoint_that_does_not_listen_is_unavailable(aws_session: Session, free_port: int) -> None:
    runtime = client("sagemaker-runtime", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    _fails(SageMakerBackend(lambda _seconds: runtime, "endpoint"), BackendUnavailable, "cannot be reached")


def test_sizes_are_bounded_both_ways(server: SageMakerServer, aws_session: Session) -> None:
    runtime = client("sagemaker-runtime", session=aws_session, endpoint_url=server.url, retries=0)
    small = SageMakerBackend(lambda _seconds: runtime, "endpoint", max_request_bytes=100)
    _fails(small, errors.PayloadTooLarge, "takes 100")
    assert not server.calls
    narrow = SageMakerBackend(lambda _seconds: runtime, "endpoint", max_response_bytes=100)
    _fails(narrow, BackendError, "more than 100 bytes")
    runtime.close()


@pytest.mark.parametrize("timeouts_s", [(), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_steps_must_rise(timeouts_s: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        SageMakerBackend(lambda _seconds: pytest.fail("made a client"), "endpoint", timeouts_s=timeouts_s)
