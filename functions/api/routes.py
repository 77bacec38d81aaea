"""Routes of the catalogue and of the API's own documentation."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from functions.api import documentation
from functions.api.documentation import CONTENT_SECURITY_POLICY, Contract, page
from shared.domain import errors
from shared.domain.ports import ModelRegistry
from shared.schemas.api import ModelDocument, ModelList, ModelSummary, VersionDocument
from shared.web.contract import SECURED, answers, reference
from shared.web.requests import model_name, principal_of

_VERSION = re.compile(r"[1-9][0-9]{0,8}")

ModelPath = Annotated[str, Path(description="Name of a published model")]
VersionPath = Annotated[str, Path(description="A version, counted from 1")]


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with."""

    registry: ModelRegistry
    contract: Contract


def router() -> APIRouter:
    """The routes, with what they say of themselves in the OpenAPI document."""
    routes = APIRouter()
    routes.add_api_route(
        "/v1/models",
        models,
        methods=["GET"],
        operation_id="listModels",
        summary="All published models",
        tags=["catalogue"],
        responses=answers("The models, by name.", reference("ModelList"), errors.Unauthenticated),
        openapi_extra=SECURED,
    )
    routes.add_api_route(
        "/v1/models/{model}",
        model_of,
        methods=["GET"],
        operation_id="getModel",
        summary="A model, its versions and its traffic",
        tags=["catalogue"],
        responses=answers("The model.", reference("ModelDocument"), errors.Unauthenticated, errors.ModelNotFound),
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
            errors.Unauthenticated,
            errors.ModelNotFound,
            errors.VersionNotFound,
        ),
        openapi_extra=SECURED,
    )
    routes.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    routes.add_api_route("/docs", docs, methods=["GET"], include_in_schema=False)
    routes.add_api_route("/docs/{asset}", docs_asset, methods=["GET"], include_in_schema=False)
    return routes


async def models(request: Request) -> Response:
    """The highest version of every model, in short."""
    principal_of(request.scope)
    published = _services(request).registry.models()
    return _answer(ModelList(models=[ModelSummary.of(version) for version in published]))


async def model_of(request: Request, model: ModelPath) -> Response:
    """The versions of a model, who gets the traffic, and all of the highest version."""
    principal_of(request.scope)
    return _answer(ModelDocument.of_versions(_services(request).registry.versions(model_name(model))))


async def version_of(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Signature, digest, size, placement, stage and metadata of one version."""
    principal_of(request.scope)
    name = model_name(model)
    if not _VERSION.fullmatch(version):
        raise errors.VersionNotFound("A version is an integer from 1.")
    return _answer(VersionDocument.of(_services(request).registry.get(name, int(version))))


async def openapi(request: Request) -> Response:
    """The contract of all functions, every model's own operation included."""
    return Response(_services(request).contract.document(), media_type="application/json")


async def docs() -> Response:
    """The page that shows the contract."""
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    return Response(page(), media_type="text/html", headers=headers)


async def docs_asset(asset: str) -> Response:
    """A file of the page."""
    found = documentation.asset(asset)
    headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(found.content, media_type=found.media_type, headers=headers)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _answer(document: BaseModel) -> Response:
    return Response(document.model_dump_json(), media_type="application/json")
