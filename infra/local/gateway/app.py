"""A local API Gateway HTTP API, with AWS's limits and its own error answers.

Limits: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html. The answer to a throttled
function (503) has not been confirmed by a primary source.
"""

import asyncio
import logging
from typing import Any

import msgspec
from aiohttp import web

from infra.local.gateway import sigv4
from infra.local.gateway.authorizer import (
    Authorizer,
    AuthorizerFailedError,
    ForbiddenError,
    Invoke,
    UnauthorizedError,
)
from infra.local.gateway.cors import Cors
from infra.local.gateway.event import (
    Event,
    add_body,
    integration_event,
    new_request_id,
    receive,
    split_target,
)
from infra.local.gateway.response import (
    BAD_REQUEST,
    BODY_TOO_LARGE,
    FORBIDDEN,
    HEAD_TOO_LARGE,
    INTERNAL_ERROR,
    NOT_FOUND,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    UNAVAILABLE,
    MalformedResponseError,
    function_response,
    gateway_error,
)
from infra.local.gateway.routing import Match, Router
from infra.local.gateway.throttle import Throttle
from infra.local.lambda_service.body import read_body
from infra.local.lambda_service.errors import LambdaApiError, RequestTooLargeError, TooManyRequestsError
from infra.local.stack import HttpApiSpec, RouteSpec

MAX_HEAD_BYTES = 10_240
MAX_BODY_BYTES = 10 * 1024 * 1024

_log = logging.getLogger(__name__)

# The head is measured here, to answer 431 as API Gateway does; aiohttp's own, larger limits only bound its memory.
# Bodies pass as they come: a compressed one is not opened.
_HANDLER_ARGS: dict[str, Any] = {
    "max_line_size": 64 * 1024,
    "max_field_size": 64 * 1024,
    "max_headers": 4096,
    "auto_decompress": False,
    "access_log": None,
}


def create_app(api: HttpApiSpec, invoke: Invoke) -> web.Application:
    """The HTTP API as an application for any host; `invoke` is `LambdaService.invoke` or of its form.

    Raises:
        ValueError: an authorizer has an identity source of an unknown kind, or a route names no authorizer of the API.

    """
    gateway = _Gateway(api, invoke)
    app = web.Application(handler_args=_HANDLER_ARGS)
    app.router.add_route("*", r"/{path:[\s\S]*}", gateway.handle)
    app.on_response_prepare.append(_hide_server)
    return app


async def _hide_server(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


class _Gateway:
    def __init__(self, api: HttpApiSpec, invoke: Invoke) -> None:
        self._api = api
        self._invoke = invoke
        self._router = Router(api.routes)
        self._prefix = "" if api.stage == "$default" else f"/{api.stage}"
        self._cors = None if api.cors is None else Cors(api.cors)
        self._throttle = Throttle(api.throttle, api.route_throttles)
        self._authorizers = {name: Authorizer(api, spec, invoke) for name, spec in api.authorizers.items()}
        for route in api.routes:
            if route.authorizer is not None and route.authorizer not in self._authorizers:
                raise ValueError(f"{api.logical_id} has no authorizer {route.authorizer!r}, which {route.key!r} names")

    async def handle(self, request: web.Request) -> web.Response:
        request_id = new_request_id()
        preflight = self._preflight(request)
        if preflight is not None:
            preflight.headers["apigw-requestid"] = request_id
            return preflight
        try:
            response = await self._serve(request, request_id)
        except _RefusedError as refused:
            response = gateway_error(refused.error, request_id)
        if self._cors is not None:
            self._cors.apply(request.headers, response.headers)
        return response

    def _preflight(self, request: web.Request) -> web.Response | None:
        """The gateway's own answer, unless a route that takes OPTIONS (`ANY`, `$default`) asks who calls."""
        if self._cors is None or request.method != "OPTIONS":
            return None
        match = self._match("OPTIONS", split_target(request.raw_path)[0])
        if match is not None and (match.route.iam or match.route.authorizer is not None):
            return None
        return self._cors.preflight(request)

    async def _serve(self, request: web.Request, request_id: str) -> web.Response:
        if _head_bytes(request) > MAX_HEAD_BYTES:
            raise _RefusedError(HEAD_TOO_LARGE)
        path, query = split_target(request.raw_path)
        match = self._match(request.method, path)
        if match is None:
            raise _RefusedError(NOT_FOUND)
        if not self._throttle.admits(match.route.key):
            raise _RefusedError(TOO_MANY_REQUESTS)
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise _RefusedError(BODY_TOO_LARGE)
        event = integration_event(self._api, receive(request, request_id, path, query), match)
        if match.route.authorizer is not None:
            context = await self._authorize(self._authorizers[match.route.authorizer], event)
            event["requestContext"]["authorizer"] = {"lambda": context}
        try:
            body = await read_body(request, MAX_BODY_BYTES)
        except ConnectionError as error:  # the client has gone away in the middle; nobody hears this answer
            raise _RefusedError(BAD_REQUEST) from error
        if body is None:
            raise _RefusedError(BODY_TOO_LARGE)
        if match.route.iam:
            event["requestContext"]["authorizer"] = {"iam": _iam(request, body)}
        add_body(event, body)
        return await self._integrate(match.route, event, request_id)

    def _match(self, method: str, path: str) -> Match | None:
        if self._prefix:
            if path != self._prefix and not path.startswith(f"{self._prefix}/"):
                return None
            path = path[len(self._prefix) :] or "/"
        return self._router.match(method, path)

    async def _authorize(self, authorizer: Authorizer, event: Event) -> dict[str, Any]:
        try:
            return await authorizer.authorize(event)
        except UnauthorizedError as error:
            raise _RefusedError(UNAUTHORIZED) from error
        except ForbiddenError as error:
            raise _RefusedError(FORBIDDEN) from error
        except (AuthorizerFailedError, LambdaApiError) as error:
            _log.warning("authorizer of %s: %s", event["routeKey"], error)
            raise _RefusedError(INTERNAL_ERROR) from error

    async def _integrate(self, route: RouteSpec, event: Event, request_id: str) -> web.Response:
        payload = msgspec.json.encode(event)
        try:
            async with asyncio.timeout(route.timeout_s):
                result = await self._invoke(route.function, payload, trace_id=event["headers"]["x-amzn-trace-id"])
            if result.function_error is None:
                return function_response(result.payload, request_id)
        except RequestTooLargeError as error:
            raise _RefusedError(BODY_TOO_LARGE) from error
        except (TimeoutError, TooManyRequestsError) as error:
            _log.warning("%s: %s", route.function, str(error) or "integration timeout")
            raise _RefusedError(UNAVAILABLE) from error
        except (MalformedResponseError, LambdaApiError) as error:
            _log.warning("%s: %s", route.function, error)
            raise _RefusedError(INTERNAL_ERROR) from error
        _log.warning("%s: %s", route.function, result.payload[:1000].decode(errors="replace"))
        raise _RefusedError(INTERNAL_ERROR)


def _iam(request: web.BaseRequest, body: bytes) -> dict[str, Any]:
    try:
        return sigv4.authorize(request, body)
    except ForbiddenError as error:
        raise _RefusedError(FORBIDDEN) from error


class _RefusedError(Exception):
    """The gateway answers by itself."""

    def __init__(self, error: tuple[int, str]) -> None:
        super().__init__(error)
        self.error = error


def _head_bytes(request: web.BaseRequest) -> int:
    """Size of request line and headers on the wire."""
    line = len(request.method) + len(request.raw_path.encode("utf-8", "surrogateescape")) + len("  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
