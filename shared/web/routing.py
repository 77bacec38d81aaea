"""Routes without FastAPI's round of parameters and validation, which took a tenth of a millisecond of each request."""

from collections.abc import Awaitable, Callable
from inspect import signature
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response

Endpoint = Callable[..., Awaitable[Response]]


class DirectRoute(APIRoute):
    """A route whose function takes texts of its path, and the request if it has a parameter of that name.

    It is described in the OpenAPI document as any other; there is nothing to validate, since a path holds texts only.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        with_request = "request" in signature(endpoint).parameters

        async def call(request: Request) -> Response:
            given: dict[str, Any] = request.path_params
            return await endpoint(request, **given) if with_request else await endpoint(**given)

        self.app = request_response(call)
