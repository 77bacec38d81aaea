"""Routes of features: what a tenant's entities have in the feature store."""

import re
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.admin.answers import answer
from functions.admin.contract import described
from functions.admin.queries import NoQuery
from functions.admin.services import changes, serve, services_of
from shared.domain import errors
from shared.domain.features import SET_NAME
from shared.domain.idempotency import StoredAnswer
from shared.domain.plans import TENANT_NAME
from shared.schemas.admin_features import (
    EntitiesDocument,
    EntitiesRequest,
    EntityFeaturesDocument,
    EntityFeaturesRequest,
)
from shared.web.documents import read_document, read_query

TenantPath = Annotated[str, Path(description="Name of a tenant")]
SetPath = Annotated[str, Path(description="Name of a set of features")]
EntityPath = Annotated[str, Path(description="Id of an entity, percent-encoded")]

_SET = "/v1/admin/tenants/{tenant}/features/{feature_set}"
# An id may hold slashes.
_ENTITY = f"{_SET}/{{entity:path}}"


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        _SET,
        put_entities,
        methods=["POST"],
        **described(
            "putEntities",
            "Store the features of several entities",
            "How many were stored, and which were not.",
            "EntitiesDocument",
            errors.TenantNotFound,
            body="EntitiesRequest",
            post=True,
        ),
    )
    routes.add_api_route(
        _ENTITY,
        get_features,
        methods=["GET"],
        **described(
            "getFeatures",
            "The features of an entity",
            "The features.",
            "EntityFeaturesDocument",
            errors.TenantNotFound,
            errors.NotFound,
        ),
    )
    routes.add_api_route(
        _ENTITY,
        put_features,
        methods=["PUT"],
        **described(
            "putFeatures",
            "Store the features of an entity, in place of those that it has in the set",
            "The features as they are now.",
            "EntityFeaturesDocument",
            errors.TenantNotFound,
            errors.NotFinite,
            body="EntityFeaturesRequest",
        ),
    )
    routes.add_api_route(
        _ENTITY,
        delete_features,
        methods=["DELETE"],
        **described(
            "deleteFeatures",
            "Remove the features of an entity",
            "What was removed.",
            "EntityFeaturesDocument",
            errors.TenantNotFound,
            errors.NotFound,
        ),
    )


async def put_entities(request: Request, tenant: TenantPath, feature_set: SetPath) -> Response:
    """What is wrong with one entity keeps none of the others from being stored; the same ones may be sent again."""

    def work(body: bytes) -> StoredAnswer:
        given = read_document(EntitiesRequest, body, request.scope).to_new()
        _note(request, tenant, feature_set)
        failed = services_of(request).features.put_many(tenant, feature_set, given)
        return answer(EntitiesDocument.of(len(given), failed))

    return await serve(request, work)


async def get_features(request: Request, tenant: TenantPath, feature_set: SetPath, entity: EntityPath) -> Response:
    """The features of an entity, as they were last stored."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        found = services_of(request).features.get(tenant, feature_set, entity)
        return answer(EntityFeaturesDocument.of(tenant, found))

    return await serve(request, work)


async def put_features(request: Request, tenant: TenantPath, feature_set: SetPath, entity: EntityPath) -> Response:
    """Requests see them within a second or so."""

    def work(body: bytes) -> StoredAnswer:
        given = read_document(EntityFeaturesRequest, body, request.scope).to_new(entity)
        _note(request, tenant, feature_set)
        stored = services_of(request).features.put(tenant, feature_set, given)
        return answer(EntityFeaturesDocument.of(tenant, stored))

    return await serve(request, work)


async def delete_features(request: Request, tenant: TenantPath, feature_set: SetPath, entity: EntityPath) -> Response:
    """Requests see it within a second or so."""

    def work(_: bytes) -> StoredAnswer:
        _note(request, tenant, feature_set)
        removed = services_of(request).features.delete(tenant, feature_set, entity)
        return answer(EntityFeaturesDocument.of(tenant, removed))

    return await serve(request, work)


def _note(request: Request, tenant: str, feature_set: str) -> None:
    """Note what is about to change; an entity's id may be personal, and is no matter of the log."""
    if re.fullmatch(TENANT_NAME, tenant) and re.fullmatch(SET_NAME, feature_set):
        changes(request, f"features:{tenant}/{feature_set}")
