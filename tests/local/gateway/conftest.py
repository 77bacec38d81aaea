import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from infra.local.gateway.app import create_app
from infra.local.lambda_service.errors import RequestTooLargeError
from infra.local.lambda_service.invocation import MAX_REQUEST_BYTES, InvokeResult
from infra.local.stack import AuthorizerSpec, HttpApiSpec, RouteSpec

Handler = Callable[[Any], Any]


def route(key: str, function: str = "main", authorizer: str | None = None, timeout_s: float = 5.0) -> RouteSpec:
    method, _, path = key.partition(" ")
    return RouteSpec("ANY" if key == "$default" else method, path or key, function, authorizer, timeout_s)


def api(*routes: RouteSpec, stage: str = "$default", **authorizers: AuthorizerSpec) -> HttpApiSpec:
    return HttpApiSpec("HttpApi", "abc123", stage, routes, authorizers)


class Functions:
    """Functions in memory, with Lambda's limits: records every event that they are given."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {"main": lambda event: event}
        self.events: dict[str, list[Any]] = {}

    async def invoke(self, function: str, payload: bytes, *, trace_id: str | None = None) -> InvokeResult:
        if len(payload) > MAX_REQUEST_BYTES:
            raise RequestTooLargeError(function)
        event = json.loads(payload)
        self.events.setdefault(function, []).append(event)
        answer = self.handlers[function](event)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, InvokeResult):
            return answer
        return InvokeResult(json.dumps(answer).encode(), None, b"", "id", 1.0, None)


class Gateway:
    """A gateway that serves on a port, and a client for it."""

    def __init__(self, runner: asyncio.Runner, port: int, functions: Functions) -> None:
        self.runner = runner
        self.port = port
        self.functions = functions

    def request(self, method: str, path: str, *, encoded: bool = False, **options: Any) -> "Reply":
        """`encoded` sends the path as it is; the client would write its escapes in a form of its own otherwise."""
        address = URL(f"http://127.0.0.1:{self.port}{path}", encoded=encoded)

        async def send() -> Reply:
            async with (
                aiohttp.ClientSession(skip_auto_headers=("Content-Type",)) as session,
                session.request(method, address, **options) as response,
            ):
                return Reply(response, await response.read())

        return self.runner.run(send())

    def raw(self, data: bytes) -> bytes:
        """What the gateway answers to bytes on a connection that the client then stops writing to."""

        async def send() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data)
            answer = await asyncio.wait_for(reader.read(65536), 10)
            writer.close()
            await writer.wait_closed()
            return answer

        return self.runner.run(send())


class Reply:
    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_error(self, status: int, message: str) -> bool:
        """Whether this is the gateway's own answer, which looks the same for all errors."""
        content_type, request_id = self.headers["Content-Type"], self.headers["apigw-requestid"]
        return (self.status, self.json, content_type, len(request_id)) == (
            status,
            {"message": message},
            "application/json",
            16,
        )


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def serve(runner: asyncio.Runner) -> Iterator[Callable[[HttpApiSpec], Gateway]]:
    runners: list[web.AppRunner] = []

    def begin(spec: HttpApiSpec) -> Gateway:
        functions = Functions()

        async def start() -> int:
            app_runner = web.AppRunner(create_app(spec, functions.invoke))
            await app_runner.setup()
            await web.TCPSite(app_runner, "127.0.0.1", 0).start()
            runners.append(app_runner)
            port: int = app_runner.addresses[0][1]
            return port

        return Gateway(runner, runner.run(start()), functions)

    yield begin
    for app_runner in runners:
        runner.run(app_runner.cleanup())
