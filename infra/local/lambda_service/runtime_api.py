"""The Lambda Runtime API 2018-06-01, as one environment's process sees it.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. `awslambdaric` takes only `host:port` from
`AWS_LAMBDA_RUNTIME_API`, so every environment has a port of its own, which tells who is asking.
"""

import asyncio
from typing import Final, Protocol

import msgspec
from aiohttp import web

from infra.local.lambda_service.body import read_body
from infra.local.lambda_service.invocation import MAX_RESPONSE_BYTES, Invocation

_PREFIX: Final = "/2018-06-01/runtime"
_NEXT: Final = f"{_PREFIX}/invocation/next"
_INIT_ERROR: Final = f"{_PREFIX}/init/error"
_INVOCATION: Final = f"{_PREFIX}/invocation/"
# awslambdaric sends the traceback once more in a header, for X-Ray, up to this size.
_MAX_HEADER_BYTES: Final = 2 * 1024 * 1024
# A frozen process keeps its connection; ending it would make the next call pay for a new one.
_KEEPALIVE_S: Final = 3600.0


class Runtime(Protocol):
    """The environment behind one port."""

    function_arn: str

    async def next_invocation(self) -> Invocation | None:
        """The runtime is ready; wait for work, or for None when the environment ends."""

    def answered(self, request_id: str, payload: bytes | None) -> bool:
        """The handler returned (None: more than the limit); False when that is not the invocation under way."""

    def failed(self, request_id: str, payload: bytes) -> bool:
        """The handler raised; False when that is not the invocation under way."""

    def init_failed(self, payload: bytes) -> None:
        """The module of the handler could not be loaded."""


class RuntimeApi:
    """One listening port on 127.0.0.1 that serves one `Runtime`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._handlers: web.Server | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Listen; returns the address as `host:port`."""
        self._handlers = web.Server(
            self._handle, access_log=None, keepalive_timeout=_KEEPALIVE_S, max_field_size=_MAX_HEADER_BYTES
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._handlers, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        """Stop listening and end the connections."""
        if self._server is not None and self._handlers is not None:
            self._server.close()
            await self._handlers.shutdown(timeout=1.0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except ConnectionError:  # the process died while it sent its answer; its exit is reported instead
            return _refused(400, "Runtime.Disconnected", "The request was not complete.")

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == _NEXT:
            return await self._next()
        if path == _INIT_ERROR:
            self._runtime.init_failed(await read_body(request, MAX_RESPONSE_BYTES) or b"{}")
            return _accepted()
        if path.startswith(_INVOCATION):
            request_id, _, action = path[len(_INVOCATION) :].partition("/")
            if action in {"response", "error"}:
                return await self._completed(request, request_id, succeeded=action == "response")
        return _refused(404, "NotFound", f"No such operation: {path}")

    async def _next(self) -> web.StreamResponse:
        invocation = await self._runtime.next_invocation()
        if invocation is None:
            return _refused(410, "Container.Gone", "The environment has ended.")
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_epoch_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self._runtime.function_arn,
        }
        if invocation.trace_id:
            headers["Lambda-Runtime-Trace-Id"] = invocation.trace_id
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return web.Response(body=invocation.payload, headers=headers)

    async def _completed(self, request: web.BaseRequest, request_id: str, *, succeeded: bool) -> web.StreamResponse:
        payload = await read_body(request, MAX_RESPONSE_BYTES)
        if succeeded:
            known = self._runtime.answered(request_id, payload)
        else:
            known = self._runtime.failed(request_id, payload or b"{}")
        if not known:
            return _refused(400, "InvalidRequestID", "Invalid request ID")
        if payload is None:
            return _refused(
                413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            )
        return _accepted()


def _accepted() -> web.Response:
    return web.Response(status=202, body=b'{"status":"OK"}', content_type="application/json")


def _refused(status: int, error_type: str, message: str) -> web.Response:
    body = msgspec.json.encode({"errorType": error_type, "errorMessage": message})
    return web.Response(status=status, body=body, content_type="application/json")
