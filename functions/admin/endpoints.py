"""Routes of the settings of endpoints."""

import re
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.admin.answers import answer, page_of
from functions.admin.contract import described
from functions.admin.queries import NoQuery, PageQuery
from functions.admin.services import changes, serve, services_of
from shared.domain import errors
from shared.domain.endpoint_settings import ENDPOINT_NAME, EndpointSettings
from shared.domain.idempotency import StoredAnswer
from shared.schemas.admin import EndpointDocument, EndpointList, EndpointRequest
from shared.web.documents import read_document, read_query

EndpointPath = Annotated[str, Path(description="Name of an endpoint, which is that of its model")]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        "/v1/admin/endpoints",
        list_endpoints,
        methods=["GET"],
        **described(
            "listEndpoints",
            "Endpoints for which something is set",
            "Settings, by name.",
            "EndpointList",
            query=PageQuery,
        ),
    )
    routes.add_api_route(
        "/v1/admin/endpoints/{endpoint}",
        get_endpoint,
        methods=["GET"],
        **described("getEndpoint", "The settings of an endpoint", "The settings.", "EndpointDocument", errors.NotFound),
    )
    routes.add_api_route(
        "/v1/admin/endpoints/{endpoint}",
        put_endpoint,
        methods=["PUT"],
        **described(
            "putEndpoint",
            "Set an endpoint",
            "The settings as they are now.",
            "EndpointDocument",
            errors.NotFound,
            errors.Conflict,
            body="EndpointRequest",
        ),
    )


async def list_endpoints(request: Request) -> Response:
    """What was set; for every other endpoint the defaults hold."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(PageQuery, request.scope)
        part, following = page_of(services_of(request).endpoints.list(), query, lambda settings: settings.endpoint)
        return answer(EndpointList(endpoints=[EndpointDocument.of(settings) for settings in part], next=following))

    return await serve(request, work)


async def get_endpoint(request: Request, endpoint: EndpointPath) -> Response:
    """What holds for an endpoint: the defaults, as version 0, as long as nothing is stored."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        name = _checked(endpoint)
        stored = services_of(request).endpoints.get(name)
        return answer(EndpointDocument.of(stored or EndpointSettings(name)))

    return await serve(request, work)


async def put_endpoint(request: Request, endpoint: EndpointPath) -> Response:
    """Replace the settings, if `version` is still the one that is stored: else somebody else was faster (409)."""

    def work(body: bytes) -> StoredAnswer:
        name = _checked(endpoint)
        settings = read_document(EndpointRequest, body, request.scope).to_settings(name)
        changes(request, f"endpoint:{name}")
        services_of(request).endpoints.put(settings)
        return answer(EndpointDocument.of(settings))

    return await serve(request, work)


def _checked(endpoint: str) -> str:
    if not re.fullmatch(ENDPOINT_NAME, endpoint):
        raise errors.NotFound("An endpoint's name has lower-case letters, digits and '._-', at most 64 of them.")
    return endpoint
