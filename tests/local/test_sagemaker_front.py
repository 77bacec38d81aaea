import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.sagemaker_front import create_app
from tests.local.test_aws_services import free_port

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
            case b"bad":
                return web.Response(status=400, text="no such model")
            case b"broken":
                return web.Response(status=500, text="x" * 5000)
            case b"moved":
                return web.Response(status=302, headers={"Location": "/elsewhere"})
            case b"slow":
                await asyncio.sleep(30)
            case b"gone":
                assert request.transport is not None
                request.transport.abort()
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
            endpoints = {"heavy": inner, "absent": f"http://127.0.0.1:{free_port()}"}
            async with listening(create_app(endpoints, max_payload_bytes=LIMIT, timeout_s=1.5)) as outer:
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


def test_an_operation_that_is_not_there_says_so(runtime: Any) -> None:
    with pytest.raises(ClientError) as raised:
        runtime.invoke_endpoint_with_response_stream(EndpointName="heavy", Body=b"x")
    assert raised.value.response["Error"]["Code"] == "UnknownOperationException"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
