"""What an asynchronous prediction sends, writes and leaves, with the local S3 and a server in SageMaker's place."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from botocore.session import Session

from shared.adapters.aws_calls import AwsCalls
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.adapters.backends.sagemaker_async import Options
from shared.adapters.backends.sagemaker_queue import AsyncInvocation, SageMakerAsyncBackend
from shared.codecs.json_documents import JsonLimits
from shared.codecs.v2 import decode_request
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable, BadImage, PayloadTooLarge
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors, bytes_tensor
from tests.adapters.sagemaker_server import (
    BINARY,
    Answer,
    Call,
    SageMakerServer,
    answer_of,
    problem,
    sagemaker_error,
)
from tests.adapters.samples import unique, version_of
from tests.conftest import LocalAws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

VERSION = version_of("m", 7)
CONTEXT = InferenceContext("request-1", "tenant", 20_000)
INPUTS: Tensors = {"x": np.array([[1, 2]], dtype=np.float32), "note": bytes_tensor([b"a"])}
OUTPUTS: Tensors = {"y": np.array([[1, 2]], dtype=np.float32), "label": bytes_tensor([b"a"])}
WHOLE = answer_of(OUTPUTS, VERSION)
PREFIX = "x-amzn-sagemaker-"


class Queue:
    """Stands for SageMaker: answers each call with addresses of its own, and writes there what it is told to."""

    def __init__(self, s3: "S3Client", bucket: str) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.folder = f"async/{unique('test')}"
        self.inputs: list[bytes] = []
        self.answer: tuple[bytes, str] | None = (WHOLE.body, WHOLE.headers["Content-Type"])
        self.failure: bytes | None = None

    def __call__(self, call: Call) -> Answer:
        location = call.headers.get(f"{PREFIX}inputlocation")
        self.inputs.append(self.read(location) if location else call.body)
        name = f"{self.folder}/{unique('of')}"
        if self.answer is not None:
            body, media_type = self.answer
            self.s3.put_object(Bucket=self.bucket, Key=f"{name}.out", Body=body, ContentType=media_type)
        if self.failure is not None:
            self.s3.put_object(Bucket=self.bucket, Key=f"{name}-error.out", Body=self.failure)
        headers = {
            f"{PREFIX}outputlocation": f"s3://{self.bucket}/{name}.out",
            f"{PREFIX}failurelocation": f"s3://{self.bucket}/{name}-error.out",
            "Content-Type": "application/json",
        }
        return Answer(202, b'{"InferenceId": "of-sagemaker"}', headers)

    def read(self, location: str) -> bytes:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        with closing(self.s3.get_object(Bucket=bucket, Key=key)["Body"]) as stream:
            return bytes(stream.read())

    def left(self) -> set[str]:
        """Keys that are there, of answers and of inputs."""
        return {
            found["Key"]
            for prefix in (self.folder, "async/in/")
            for found in self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        }


@pytest.fixture
def server() -> Iterator[SageMakerServer]:
    server = SageMakerServer()
    yield server
    server.close()


@pytest.fixture
def queue(server: SageMakerServer, s3: "S3Client", local_aws: LocalAws) -> Queue:
    bucket = unique("bucket")
    s3.create_bucket(Bucket=bucket)
    server.script = Queue(s3, bucket)
    return server.script


class Made:
    """Backends with other options on the same queue, and the AWS calls that they made."""

    def __init__(self, server: SageMakerServer, queue: Queue, url: str, session: Session) -> None:
        self.calls = AwsCalls()
        self.calls.watch(session)
        addresses = {"sagemaker-runtime": server.url, "s3": url}
        self._registry = Registry(Resources(session=session, data_bucket=queue.bucket, endpoint_urls=addresses))

    def __call__(self, **options: Any) -> SageMakerAsyncBackend:
        choice = BackendChoice("sagemaker-async", {"endpoint": "e-async", "poll_min_ms": 10, **options})
        backend = self._registry.build(choice)
        assert isinstance(backend, SageMakerAsyncBackend)
        return backend


@pytest.fixture
def made(server: SageMakerServer, queue: Queue, local_aws: LocalAws) -> Made:
    session = Session()
    session.set_credentials("test", "test")
    session.set_config_variable("region", "us-east-1")
    return Made(server, queue, local_aws.url, session)


def test_a_small_input_travels_in_the_call_and_nothing_is_left(
    made: Made, server: SageMakerServer, queue: Queue
) -> None:
    with closing(made()) as backend:
        outputs = backend.infer(VERSION, INPUTS, replace(CONTEXT, priority=9))
    np.testing.assert_array_equal(outputs["y"], OUTPUTS["y"])
    (call,) = server.calls
    assert call.path == "/endpoints/e-async/async-invocations"
    size = int(call.headers[f"{PREFIX}content-type"].rpartition("=")[2])
    sent = decode_request(queue.inputs[0], size, JsonLimits())
    np.testing.assert_array_equal(sent.inputs["x"].array, INPUTS["x"])
    assert call.headers[f"{PREFIX}accept"] == BINARY
    assert (call.attributes["tenant"], call.attributes["priority"]) == ("tenant", "9")
    # No minute less: SageMaker's queue knows no shorter time. The container has what the request has.
    assert call.headers[f"{PREFIX}requestttlseconds"] == "60"
    assert call.headers[f"{PREFIX}invocationtimeoutseconds"] == "20"
    assert call.headers[f"{PREFIX}inference-id"] != "request-1"
    assert queue.left() == set()
    assert made.calls.counts() == {
        "sagemaker-runtime.InvokeEndpointAsync": 1,
        "s3.GetObject": 1,
        "s3.DeleteObject": 1,
    }


def test_a_large_input_lies_under_a_key_that_tells_nothing_until_it_is_answered(
    made: Made, server: SageMakerServer, queue: Queue
) -> None:
    rows = 20_000
    inputs: Tensors = {"x": np.zeros((rows, 2), np.float32), "note": bytes_tensor([b"a"] * rows)}
    queue.answer = None
    queue.failure = problem("backend_error", "it failed").encode()
    locations = set()
    with closing(made(max_request_bytes=300_000)) as backend:
        for tenant in ("one", "one", "two"):
            with pytest.raises(BackendError, match="it failed"):
                backend.infer(VERSION, inputs, replace(CONTEXT, tenant=tenant))
            locations.add(server.calls[-1].headers[f"{PREFIX}inputlocation"])
            assert server.calls[-1].body == b""
        with pytest.raises(PayloadTooLarge):
            backend.infer(VERSION, {"x": np.zeros((40_000, 2), np.float32), "note": inputs["note"]}, CONTEXT)
    assert all(len(body) > 128_000 for body in queue.inputs)
    folders = {location.rsplit("/", 1)[0] for location in locations}
    assert len(locations) == 3
    assert len(folders) == 2
    assert all(folder.startswith(f"s3://{queue.bucket}/async/in/") for folder in folders)
    assert not any(name in location for location in locations for name in ("one", "two", "request"))
    assert queue.left() == set()


@pytest.mark.parametrize("inline", [True, False])
def test_without_an_answer_the_deadline_ends_it_and_the_input_is_gone(
    made: Made, server: SageMakerServer, queue: Queue, inline: bool
) -> None:
    queue.answer = None
    with closing(made(inline=inline)) as backend, pytest.raises(BackendTimeout, match="in time") as caught:
        backend.infer(VERSION, INPUTS, replace(CONTEXT, deadline_ms=2_000))
    assert not caught.value.retryable
    assert len(server.calls) == 1
    assert queue.left() == set()


def test_a_refused_call_leaves_no_input(made: Made, server: SageMakerServer, queue: Queue) -> None:
    server.script = lambda _call: sagemaker_error(503, "ServiceUnavailable")
    with closing(made(inline=False)) as backend, pytest.raises(BackendUnavailable) as caught:
        backend.infer(VERSION, INPUTS, CONTEXT)
    assert caught.value.retryable
    assert queue.left() == set()


@pytest.mark.parametrize("media_type", ["binary/octet-stream", "application/x-answer", BINARY])
def test_an_answer_whose_type_was_not_kept_is_read(made: Made, queue: Queue, media_type: str) -> None:
    stored = WHOLE.headers["Content-Type"] if media_type == BINARY else media_type
    queue.answer = (WHOLE.body, stored)
    with closing(made()) as backend:
        np.testing.assert_array_equal(backend.infer(VERSION, INPUTS, CONTEXT)["y"], OUTPUTS["y"])
        queue.answer = (b"\x00garbage", "binary/octet-stream")
        with pytest.raises(BackendError, match="no format"):
            backend.infer(VERSION, INPUTS, CONTEXT)


def test_faulty_content_and_answers_that_are_too_large(made: Made, queue: Queue) -> None:
    with closing(made(max_response_bytes=100)) as backend:
        with pytest.raises(BackendError, match="more than 100 bytes"):
            backend.infer(VERSION, INPUTS, CONTEXT)
        queue.answer = None
        queue.failure = problem("bad_image", "no image").encode()
        with pytest.raises(BadImage, match="no image"):
            backend.infer(VERSION, INPUTS, CONTEXT)
    assert queue.left() == set()


def test_a_job_takes_the_steps_by_itself(made: Made, server: SageMakerServer, queue: Queue) -> None:
    held = queue.answer
    queue.answer = None
    with closing(made(inline=False)) as backend:
        invocation = backend.submit(VERSION, INPUTS, replace(CONTEXT, deadline_ms=7_200_000))
        headers = server.calls[0].headers
        assert headers[f"{PREFIX}requestttlseconds"] in {"7200", "7199"}  # a millisecond on the way is rounded down
        assert headers[f"{PREFIX}invocationtimeoutseconds"] == "900"
        assert invocation.inference_id == headers[f"{PREFIX}inference-id"]
        assert invocation.input_location == headers[f"{PREFIX}inputlocation"]
        assert backend.result(VERSION, invocation, 1) is None
        assert held is not None
        key = invocation.output_location.partition(f"{queue.bucket}/")[2]
        queue.s3.put_object(Bucket=queue.bucket, Key=key, Body=held[0], ContentType=held[1])
        outputs = backend.result(VERSION, invocation, 1, request_id="request-1")
        assert outputs is not None
        np.testing.assert_array_equal(outputs["y"], OUTPUTS["y"])
        assert len(queue.left()) == 2
        backend.discard(invocation)
    assert queue.left() == set()
    assert not [name for name in made.calls.counts() if "List" in name]


def test_who_may_not_list_is_told_403_for_what_is_not_there(aws_session: Session) -> None:
    """As S3 answers without s3:ListBucket."""
    store = SageMakerServer()
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    store.script = lambda _call: Answer(403, denied, {"Content-Type": "application/xml"})
    resources = Resources(session=aws_session, data_bucket="bucket", endpoint_urls={"s3": store.url})
    backend: Any = Registry(resources).build(BackendChoice("sagemaker-async", {"endpoint": "e"}))
    invocation = AsyncInvocation("s3://bucket/answer", "s3://bucket/failure", "id")
    with closing(backend):
        assert backend.result(VERSION, invocation, 1) is None
        store.script = lambda _call: WHOLE
        assert backend.result(VERSION, invocation, 1) is not None
    assert [call.path for call in store.calls] == ["/bucket/answer", "/bucket/failure", "/bucket/answer"]
    store.close()


def test_an_answer_that_comes_late_is_waited_for(
    server: SageMakerServer, queue: Queue, local_aws: LocalAws, aws_session: Session
) -> None:
    held, queue.answer = queue.answer, None
    assert held is not None
    body, media_type = held
    keys: list[str] = []

    def remember(call: Call) -> Answer:
        answer = queue(call)
        keys.append(answer.headers[f"{PREFIX}outputlocation"].partition(f"{queue.bucket}/")[2])
        return answer

    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            queue.s3.put_object(Bucket=queue.bucket, Key=keys[0], Body=body, ContentType=media_type)

    server.script = remember
    resources = Resources(session=aws_session, endpoint_urls={"sagemaker-runtime": server.url, "s3": local_aws.url})
    backend = SageMakerAsyncBackend(
        lambda seconds: resources.client("sagemaker-runtime", read_timeout=seconds),
        lambda seconds: resources.client("s3", read_timeout=seconds),
        queue.bucket,
        Options(endpoint="e", poll_min_ms=20, poll_max_ms=60),
        pause=pause,
    )
    with closing(backend):
        np.testing.assert_array_equal(backend.infer(VERSION, INPUTS, CONTEXT)["y"], OUTPUTS["y"])
    assert pauses == pytest.approx([0.02, 0.03, 0.045, 0.06, 0.06])
