import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore.exceptions import ClientError, EventStreamError

from infra.local.aws_client import isolated_session, local_client
from infra.local.resources import create_endpoint
from infra.local.sagemaker_front.app import create_app
from infra.local.sagemaker_front.endpoints import Endpoint, Endpoints
from infra.local.template import load_stack
from tests.conftest import LocalAws
from tests.local.test_aws_services import free_port
from tests.template.support import IMAGE, TEMPLATE

ATTRIBUTES = "model=embed;version=3;deadline-ms=900"
LIMIT = 64 * 1024


class Container:
    """A container's /invocations: it records what reached it and answers as the payload asks."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.connections: set[Any] = set()

    async def invocations(self, request: web.Request) -> web.StreamResponse:
        payload = await request.read()
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        self.connections.add(request.transport)
        match payload:
            case b"bad" | b"broken" | b"moved":
                return self.refusal(payload)
            case b"slow":
                await asyncio.sleep(30)
            case b"gone":
                assert request.transport is not None
                request.transport.abort()
            case b"half" | b"drip":
                return await self.begin(request, payload)
            case b"large":
                return web.Response(body=b"y" * (LIMIT + 1))
            case b"attributes":
                return web.Response(headers={"X-Amzn-SageMaker-Custom-Attributes": "z" * 1025})
        headers = {
            "Content-Type": "application/x-answer",
            "X-Amzn-SageMaker-Custom-Attributes": "served=yes",
            "X-Amzn-SageMaker-New-Session-Id": "abc; Expires=soon",
            "X-Request-Id": "stripped",
            "Set-Cookie": "stripped=1",
        }
        return web.Response(body=payload[::-1], headers=headers)

    def refusal(self, payload: bytes) -> web.Response:
        if payload == b"moved":
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        bad = payload == b"bad"
        return web.Response(status=400 if bad else 500, text="no such model" if bad else "x" * 5000)

    async def begin(self, request: web.Request, payload: bytes) -> web.StreamResponse:
        """Begin an answer and never end it."""
        answer = web.StreamResponse(headers={"Content-Type": "application/x-answer", "Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"begin")
        if payload == b"drip":
            await asyncio.sleep(30)
        assert request.transport is not None
        request.transport.close()
        return answer

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2 * LIMIT)
        app.router.add_post("/invocations", self.invocations)
        return app


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@contextmanager
def running(container: Container) -> Iterator[str]:
    """The container and the front, both real servers, in a loop of their own; the front's address."""
    loop = asyncio.new_event_loop()
    done = asyncio.Event()
    url: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with listening(container.app()) as inner:
            absent = f"http://127.0.0.1:{free_port()}"
            endpoints = Endpoints([Endpoint("heavy", inner), Endpoint("absent", absent)])
            app = create_app(endpoints, absent, max_payload_bytes=LIMIT, timeout_s=1.5, stream_timeout_s=1.5)
            async with listening(app) as outer:
                url.append(outer)
                ready.set()
                await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def container() -> Container:
    return Container()


@pytest.fixture(scope="module")
def url(container: Container) -> Iterator[str]:
    with running(container) as address:
        yield address


@pytest.fixture(scope="module")
def runtime(url: str) -> Any:
    return local_client(isolated_session(), "sagemaker-runtime", url)


def test_what_sagemaker_passes_reaches_the_container_and_comes_back(runtime: Any, container: Container) -> None:
    answer = runtime.invoke_endpoint(
        EndpointName="heavy",
        Body=b"\x00payload",
        ContentType="application/x-tensors",
        Accept="application/x-answer",
        CustomAttributes=ATTRIBUTES,
        TargetModel="embed",
        TargetVariant="main",
        InferenceId="id-1",
        SessionId="NEW_SESSION",
    )
    assert answer["Body"].read() == b"daolyap\x00"
    assert answer["ContentType"] == "application/x-answer"
    assert answer["CustomAttributes"] == "served=yes"
    assert answer["NewSessionId"] == "abc; Expires=soon"
    assert answer["InvokedProductionVariant"] == "main"
    assert not {"x-request-id", "set-cookie"} & set(answer["ResponseMetadata"]["HTTPHeaders"])

    seen = dict(container.requests[-1])
    assert seen.pop("host").startswith("127.0.0.1:")
    assert seen.pop("content-length") == "8"
    assert seen == {
        "content-type": "application/x-tensors",
        "accept": "application/x-answer",
        "x-amzn-sagemaker-custom-attributes": ATTRIBUTES,
        "x-amzn-sagemaker-target-model": "embed",
        "x-amzn-sagemaker-target-variant": "main",
        "x-amzn-sagemaker-inference-id": "id-1",
        "x-amzn-sagemaker-session-id": "NEW_SESSION",
    }


async def strip(url: str) -> int:
    headers = {"Authorization": "secret", "traceparent": "00-1-2-01", "X-Sluice-Deadline-Ms": "5", "Cookie": "a=b"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/endpoints/heavy/invocations", data=b"x", headers=headers) as answer,
    ):
        await answer.read()
        return answer.status


def test_every_other_header_is_stripped(url: str, container: Container) -> None:
    assert asyncio.run(strip(url)) == 200
    assert set(container.requests[-1]) <= {"host", "content-length", "content-type", "accept"}


def test_connections_to_the_container_are_kept(runtime: Any, container: Container) -> None:
    runtime.invoke_endpoint(EndpointName="heavy", Body=b"first")
    container.connections.clear()
    for _ in range(5):
        runtime.invoke_endpoint(EndpointName="heavy", Body=b"again")
    assert len(container.connections) == 1


def test_an_unknown_endpoint(runtime: Any) -> None:
    with pytest.raises(ClientError) as raised:
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    error = raised.value.response
    assert isinstance(raised.value, runtime.exceptions.ValidationError)
    assert error["Error"]["Message"] == "Endpoint nobody of account 000000000000 not found."
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    ("payload", "status", "whose", "message"),
    [
        (b"bad", 400, "client error (400)", "no such model"),
        (b"broken", 500, "server error (500)", "x" * 2048),
        (b"moved", 302, "server error (302)", ""),
        (b"slow", 0, "server error (0)", "Your invocation timed out"),
        (b"gone", 0, "server error (0)", "The container broke off"),
        (b"large", 200, "server error (200)", "The response is larger than"),
        (b"attributes", 200, "server error (200)", "The custom attributes are not"),
    ],
)
def test_what_the_container_does_wrong_is_a_model_error(
    runtime: Any, payload: bytes, status: int, whose: str, message: str
) -> None:
    with pytest.raises(ClientError) as raised:
        runtime.invoke_endpoint(EndpointName="heavy", Body=payload)
    assert isinstance(raised.value, runtime.exceptions.ModelError)
    error: dict[str, Any] = dict(raised.value.response)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["OriginalStatusCode"] == status
    assert error["OriginalMessage"].startswith(message)
    assert len(error["OriginalMessage"]) <= 2048
    assert len(error["Error"]["Message"]) <= 2048
    assert error["Error"]["Message"].startswith(f"Received {whose} from primary")
    assert error["LogStreamArn"].startswith(
        "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/heavy"
    )


def test_a_container_that_is_not_there_is_service_unavailable(runtime: Any) -> None:
    with pytest.raises(ClientError) as raised:
        runtime.invoke_endpoint(EndpointName="absent", Body=b"x")
    assert isinstance(raised.value, runtime.exceptions.ServiceUnavailable)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_the_payload_limit_is_exact_and_larger_ones_never_reach_the_container(
    runtime: Any, container: Container
) -> None:
    answer = runtime.invoke_endpoint(EndpointName="heavy", Body=b"a" * LIMIT)
    assert len(answer["Body"].read()) == LIMIT
    seen = len(container.requests)
    with pytest.raises(runtime.exceptions.ValidationError, match=f"length less than or equal to {LIMIT}"):
        runtime.invoke_endpoint(EndpointName="heavy", Body=b"a" * (LIMIT + 1))
    assert len(container.requests) == seen


async def in_chunks(url: str) -> tuple[int, str, Any]:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"c" * (LIMIT // 2)

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/endpoints/heavy/invocations", data=chunks()) as answer,
    ):
        return answer.status, answer.headers["x-amzn-ErrorType"], json.loads(await answer.read())


def test_a_body_without_a_length_is_bounded_as_well(url: str) -> None:
    status, code, body = asyncio.run(in_chunks(url))
    assert (status, code) == (400, "ValidationError")
    assert "length less than or equal" in body["Message"]


@pytest.mark.parametrize("attributes", ["a" * 1025, "two words", "tab\there"])
def test_custom_attributes_are_1024_visible_ascii_characters(runtime: Any, attributes: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="CustomAttributes"):
        runtime.invoke_endpoint(EndpointName="heavy", Body=b"x", CustomAttributes=attributes)
    answer = runtime.invoke_endpoint(EndpointName="heavy", Body=b"x", CustomAttributes="a" * 1024)
    assert answer["Body"].read() == b"x"


def test_a_variant_that_the_endpoint_does_not_have(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="Variant other was not found"):
        runtime.invoke_endpoint(EndpointName="heavy", Body=b"x", TargetVariant="other")


async def unknown(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/endpoints/heavy/other") as answer:
        return answer.status, answer.headers["x-amzn-ErrorType"]


def test_an_operation_that_is_not_there_says_so(url: str) -> None:
    assert asyncio.run(unknown(url)) == (404, "UnknownOperationException")


def joined(answer: Any) -> bytes:
    with closing(answer["Body"]) as events:
        return b"".join(event["PayloadPart"]["Bytes"] for event in events)


def test_an_answer_in_parts_is_what_the_container_sent(runtime: Any, container: Container) -> None:
    payload = bytes(range(256)) * 100
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="heavy",
        Body=payload,
        ContentType="application/x-tensors",
        Accept="application/x-answer",
        CustomAttributes=ATTRIBUTES,
        TargetVariant="main",
        InferenceId="id-1",
    )
    assert joined(answer) == payload[::-1]
    assert answer["ContentType"] == "application/x-answer"
    assert answer["CustomAttributes"] == "served=yes"
    assert answer["InvokedProductionVariant"] == "main"
    seen = {name: value for name, value in container.requests[-1].items() if name not in {"host", "content-length"}}
    assert seen == {
        "content-type": "application/x-tensors",
        "accept": "application/x-answer",
        "x-amzn-sagemaker-custom-attributes": ATTRIBUTES,
        "x-amzn-sagemaker-target-variant": "main",
        "x-amzn-sagemaker-inference-id": "id-1",
    }


def test_a_large_answer_comes_in_more_than_one_part(runtime: Any) -> None:
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="heavy", Body=b"large")
    with closing(answer["Body"]) as events:
        parts = [len(event["PayloadPart"]["Bytes"]) for event in events]
    assert sum(parts) == LIMIT + 1  # what is streamed has no limit
    assert len(parts) > 1


@pytest.mark.parametrize(
    ("payload", "message"),
    [(b"half", "The connection to the model was closed"), (b"drip", "The model did not end its answer in time")],
)
def test_a_stream_that_breaks_off_ends_with_an_exception(runtime: Any, payload: bytes, message: str) -> None:
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="heavy", Body=payload)
    parts: list[bytes] = []
    with closing(answer["Body"]) as events, pytest.raises(EventStreamError, match=message) as raised:
        parts.extend(event["PayloadPart"]["Bytes"] for event in events)
    assert raised.value.response["Error"]["Code"] == "ModelStreamError"
    assert b"".join(parts).startswith(b"be")


@pytest.mark.parametrize(
    ("payload", "error", "message"),
    [
        (b"bad", "ModelError", r"client error \(400\) from primary"),
        (b"gone", "ModelError", "broke off"),
    ],
)
def test_what_fails_before_the_stream_begins_is_an_error(
    runtime: Any, payload: bytes, error: str, message: str
) -> None:
    with pytest.raises(getattr(runtime.exceptions, error), match=message):
        runtime.invoke_endpoint_with_response_stream(EndpointName="heavy", Body=payload)


def test_one_container_has_no_other_to_be_chosen(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="several containers"):
        runtime.invoke_endpoint(EndpointName="heavy", Body=b"x", TargetContainerHostname="second")


def test_the_templates_endpoints_stand_before_one_container() -> None:
    stack = load_stack(TEMPLATE, parameters={"ContainerImage": IMAGE, "ContainerAsyncMaxInstances": "2"})
    endpoints = Endpoints.of(stack, "http://container")
    plain = endpoints.real_time("sluice-container")
    queue = endpoints.asynchronous("sluice-container-async")
    assert plain.url == queue.url == "http://container"
    assert plain.variants == queue.variants == ("main",)
    config = queue.asynchronous
    assert config is not None
    bucket = stack.resources["DataBucket"].name
    assert config.output_path == f"s3://{bucket}/async/out/"
    assert config.failure_path == f"s3://{bucket}/async/failed/"
    topics = {spec.name for spec in stack.of_type("AWS::SNS::Topic")}
    assert {str(arn).rpartition(":")[2] for arn in (config.success_topic, config.error_topic)} <= topics
    assert config.concurrency == 5


def test_describe_endpoint_knows_both(local_aws: LocalAws) -> None:
    given = {"ContainerImage": IMAGE, "ContainerAsyncMaxInstances": "2"}
    stack = load_stack(TEMPLATE, stack_name="both", parameters=given)
    assert create_endpoint(stack, local_aws.url, on_progress=lambda _: None) is True
    sagemaker = local_client(isolated_session(), "sagemaker", local_aws.url)
    for name in ("both-container", "both-container-async"):
        found = sagemaker.describe_endpoint(EndpointName=name)
        assert found["EndpointStatus"] == "InService"
    config = sagemaker.describe_endpoint_config(EndpointConfigName=found["EndpointConfigName"])
    assert config["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] == 5
