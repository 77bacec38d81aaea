"""Routes of the catalogue and of the API's own documentation."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from functions.api import batches, documentation, jobs, uploads, webhooks
from functions.api.documentation import CONTENT_SECURITY_POLICY, page
from functions.api.model_contract import schemas
from functions.api.services import Services, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.schemas.api import ModelDocument, ModelList, ModelSchemas, ModelSummary, VersionDocument
from shared.web.contract import ADMISSION, SECURED, answers, reference
from shared.web.requests import model_name, model_version
from shared.web.routing import direct_router

ModelPath = Annotated[str, Path(description="Name of a published model")]
VersionPath = Annotated[str, Path(description="A version, counted from 1")]


def router() -> APIRouter:
    """The routes, with what they say of themselves in the OpenAPI document."""
    routes = direct_router()
    _add_catalogue(routes)
    for area in (batches, jobs, uploads, webhooks):
        area.add_routes(routes)
    routes.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    routes.add_api_route("/docs", docs, methods=["GET"], include_in_schema=False)
    routes.add_api_route("/docs/{asset}", docs_asset, methods=["GET"], include_in_schema=False)
    return routes


def _add_catalogue(routes: APIRouter) -> None:
    routes.add_api_route(
        "/v1/models",
        models,
        methods=["GET"],
        operation_id="listModels",
        summary="All published models",
        tags=["catalogue"],
        responses=answers("The models, by name.", reference("ModelList"), *ADMISSION),
        openapi_extra=SECURED,
    )
    routes.add_api_route(
        "/v1/models/{model}",
        model_of,
        methods=["GET"],
        operation_id="getModel",
        summary="A model, its versions and its traffic",
        tags=["catalogue"],
        responses=answers("The model.", reference("ModelDocument"), *ADMISSION, errors.ModelNotFound),
        openapi_extra=SECURED,
    )
    routes.add_api_route(
        "/v1/models/{model}/schema",
        schema_of,
        methods=["GET"],
        operation_id="getModelSchema",
        summary="JSON Schemas of a model's requests and answers",
        tags=["catalogue"],
        responses=answers("The schemas.", reference("ModelSchemas"), *ADMISSION, errors.ModelNotFound),
        openapi_extra=SECURED,
    )
    routes.add_api_route(
        "/v1/models/{model}/versions/{version}",
        version_of,
        methods=["GET"],
        operation_id="getModelVersion",
        summary="One version of a model",
        tags=["catalogue"],
        responses=answers(
            "The version.",
            reference("VersionDocument"),
            *ADMISSION,
            errors.ModelNotFound,
            errors.VersionNotFound,
        ),
        openapi_extra=SECURED,
    )


async def models(request: Request) -> Response:
    """The highest version of every model, in short."""
    return await _serve(
        request, lambda services: ModelList(models=[ModelSummary.of(found) for found in services.registry.models()])
    )


async def model_of(request: Request, model: ModelPath) -> Response:
    """The versions of a model, who gets the traffic, and all of the highest version."""

    def read(services: Services) -> ModelDocument:
        versions = services.registry.versions(model_name(model))
        return ModelDocument.of_versions(versions, services.config_of(model))

    return await _serve(request, read)


async def schema_of(request: Request, model: ModelPath) -> Response:
    """What the highest version takes and gives as JSON (JSON Schema 2020-12).

    Made from its graph, its manifest and the endpoint's configuration.
    """

    def read(services: Services) -> ModelSchemas:
        latest = services.registry.latest(model_name(model))
        return ModelSchemas.model_validate(schemas(latest, services.config_of(model)))

    return await _serve(request, read)


async def version_of(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Signature, digest, size, placement, stage and metadata of one version."""

    def read(services: Services) -> VersionDocument:
        found = services.registry.get(model_name(model), model_version(version))
        return VersionDocument.of(found, services.config_of(model))

    return await _serve(request, read)


async def openapi(request: Request) -> Response:
    """The contract of all functions, every model's own operation included."""
    return Response(services_of(request).contract.document(), media_type="application/json")


async def docs() -> Response:
    """The page that shows the contract."""
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    return Response(page(), media_type="text/html", headers=headers)


async def docs_asset(asset: str) -> Response:
    """A file of the page."""
    found = documentation.asset(asset)
    headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(found.content, media_type=found.media_type, headers=headers)


async def _serve(request: Request, read: Callable[[Services], BaseModel]) -> Response:
    """A document for an admitted caller."""
    services = services_of(request)

    def work(_principal: Principal, _body: bytes) -> StoredAnswer:
        document = read(services)
        return StoredAnswer(200, (("Content-Type", "application/json"),), document.model_dump_json().encode())

    return await services.door.serve(request, work)
