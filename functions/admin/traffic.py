"""Route of what the traffic of endpoints showed."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from functions.admin.answers import answer
from functions.admin.contract import described
from functions.admin.endpoints import EndpointPath
from functions.admin.queries import TrafficQuery
from functions.admin.services import serve, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.schemas.admin_traffic import TrafficDocument
from shared.web.documents import read_query


def add_routes(routes: APIRouter) -> None:
    """Add the route of this module."""
    routes.add_api_route(
        "/v1/admin/endpoints/{endpoint}/traffic",
        get_traffic,
        methods=["GET"],
        **described(
            "getEndpointTraffic",
            "What the traffic of an endpoint showed",
            "Variants, arms of experiments, shadows and stand-ins.",
            "TrafficDocument",
            errors.NotFound,
            query=TrafficQuery,
        ),
    )


async def get_traffic(request: Request, endpoint: EndpointPath) -> Response:
    """Counters lag behind the requests by the seconds that the log takes."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(TrafficQuery, request.scope)
        found = services_of(request).traffic(endpoint, query.since, query.until)
        return answer(TrafficDocument.of(found.endpoint, found.since, found.until, found.traffic))

    return await serve(request, work)
