"""Routes that are called directly: FastAPI's description of them is made for the OpenAPI document only.

Analysing the routes of a function took FastAPI 30 ms of each cold start, and a round of parameters without anything to
validate a tenth of a millisecond of each request.
"""

from collections.abc import Awaitable, Callable, Collection
from inspect import signature
from typing import Any, cast

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

Endpoint = Callable[..., Awaitable[Response]]


class DirectRoute(Route):
    """A route whose function takes texts of its path, and the request if it has a parameter of that name.

    `described` is FastAPI's own route in its place.
    """

    def __init__(self, path: str, endpoint: Endpoint, *, methods: Collection[str], **description: Any) -> None:
        with_request = "request" in signature(endpoint).parameters

        async def call(request: Request) -> Response:
            given: dict[str, Any] = request.path_params
            return await endpoint(request, **given) if with_request else await endpoint(**given)

        super().__init__(path, call, methods=list(methods), name=endpoint.__name__)
        self.methods = set(methods)  # HEAD is none of ours, though Starlette adds it to GET
        self._endpoint = endpoint
        self._description = description

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's; the scope names the route, which log lines and limits go by."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            child_scope["route"] = self
        return match, child_scope

    def described(self) -> APIRoute:
        """The same route with all that FastAPI says of it."""
        return APIRoute(self.path, self._endpoint, methods=self.methods, **self._description)


def direct_router() -> APIRouter:
    """A router whose routes are direct ones; FastAPI asks nothing of them but that they are routes."""
    return APIRouter(route_class=cast("type[APIRoute]", DirectRoute))
