"""Routes for whoever operates the stack: liveness and readiness. Open, without a credential."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from functions.predict.services import Services
from shared.codecs.json_documents import dumps
from shared.web.contract import answers, document, reference


def add_routes(routes: APIRouter) -> None:
    """Add them, with what they say of themselves in the OpenAPI document."""
    routes.add_api_route(
        "/health",
        health,
        methods=["GET"],
        operation_id="health",
        summary="Liveness: the function runs",
        tags=["operations"],
        responses=answers("The function runs.", reference("Health")),
    )
    routes.add_api_route(
        "/ready",
        ready,
        methods=["GET"],
        operation_id="ready",
        summary="Readiness: predictions can be served, or what is missing",
        tags=["operations"],
        responses={
            **answers("Predictions can be served.", reference("Readiness")),
            503: document("Something is missing, and `missing` says what.", reference("Readiness")),
        },
    )


async def health() -> Response:
    """Liveness: asks nothing of anybody."""
    return Response(b'{"status":"ok"}', media_type="application/json")


async def ready(request: Request) -> Response:
    """Readiness: 200, or 503 with what is missing."""
    services: Services = request.app.state.services
    report = services.readiness()
    missing = report.missing
    body = dumps({"ready": not missing, "missing": missing, "checks": report.checks})
    return Response(body, status_code=503 if missing else 200, media_type="application/json")
