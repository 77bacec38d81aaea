"""Routes of credentials: API keys, and IAM roles and users that act for a tenant."""

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.admin.answers import answer, created, page_of
from functions.admin.contract import described
from functions.admin.queries import KeysQuery, NoQuery, RoleQuery
from functions.admin.services import changes, serve, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.schemas.admin_keys import CreatedKey, KeyDocument, KeyList, KeyRequest, RoleRequest, RotationRequest
from shared.usecases.manage_keys import NewKey, role_key_id
from shared.web.documents import read_document, read_query

_KEY_ID = re.compile(r"[a-z2-7]{16}|iam#[!-~]{1,251}")

KeyPath = Annotated[str, Path(description="Id of a key, which is the part between `sluice_` and the secret")]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        "/v1/admin/keys",
        create_key,
        methods=["POST"],
        **described(
            "createKey",
            "Create an API key",
            "The key; its text is shown this once.",
            "CreatedKey",
            errors.TenantNotFound,
            errors.Conflict,
            body="KeyRequest",
            creates=True,
            post=True,
        ),
    )
    routes.add_api_route(
        "/v1/admin/keys",
        list_keys,
        methods=["GET"],
        **described(
            "listKeys", "The keys of a tenant", "Keys, by id.", "KeyList", errors.TenantNotFound, query=KeysQuery
        ),
    )
    routes.add_api_route(
        "/v1/admin/keys/{key_id}",
        get_key,
        methods=["GET"],
        **described("getKey", "A key", "The key, without its secret.", "KeyDocument", errors.KeyNotFound),
    )
    routes.add_api_route(
        "/v1/admin/keys/{key_id}",
        revoke_key,
        methods=["DELETE"],
        **described(
            "revokeKey",
            "Revoke a key",
            "The key, which no longer works once the gateway's cached authorizations have aged.",
            "KeyDocument",
            errors.KeyNotFound,
        ),
    )
    routes.add_api_route(
        "/v1/admin/keys/{key_id}/rotate",
        rotate_key,
        methods=["POST"],
        **described(
            "rotateKey",
            "Rotate a key",
            "The new key; the old one works until the overlap is over.",
            "CreatedKey",
            errors.KeyNotFound,
            errors.Conflict,
            body="RotationRequest",
            body_required=False,
            creates=True,
            post=True,
        ),
    )
    routes.add_api_route(
        "/v1/admin/roles",
        bind_role,
        methods=["PUT"],
        **described(
            "bindRole",
            "Let an IAM role or user act for a tenant",
            "The binding, in place of the one before.",
            "KeyDocument",
            errors.TenantNotFound,
            errors.Conflict,
            body="RoleRequest",
        ),
    )
    routes.add_api_route(
        "/v1/admin/roles",
        unbind_role,
        methods=["DELETE"],
        **described(
            "unbindRole",
            "Let an IAM role or user act for nobody",
            "The binding, revoked.",
            "KeyDocument",
            errors.KeyNotFound,
            query=RoleQuery,
        ),
    )


async def create_key(request: Request) -> Response:
    """A new key of a tenant. The answer holds its text, which is stored nowhere and shown this once."""

    def work(body: bytes) -> StoredAnswer:
        wanted = read_document(KeyRequest, body, request.scope)
        changes(request, f"tenant:{wanted.tenant}")
        made = services_of(request).keys.create(
            wanted.tenant, wanted.scopes, name=wanted.name, expires_at=_seconds(wanted.expires_at)
        )
        changes(request, _target(made.key.key_id))
        return _shown(request, made)

    return await serve(request, work, secret=True)


async def list_keys(request: Request) -> Response:
    """The keys of a tenant, without their secrets: those that have ended are listed as long as they are stored."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(KeysQuery, request.scope)
        services = services_of(request)
        found = services.keys.of_tenant(query.tenant)
        part, following = page_of(found, query, lambda key: key.key_id)
        now = services.now()
        return answer(KeyList(keys=[KeyDocument.of(key, now) for key in part], next=following))

    return await serve(request, work)


async def get_key(request: Request, key_id: KeyPath) -> Response:
    """A key, without its secret."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        services = services_of(request)
        return answer(KeyDocument.of(services.keys.get(key_id), services.now()))

    return await serve(request, work)


async def revoke_key(request: Request, key_id: KeyPath) -> Response:
    """End a key for good; revoking it once more changes nothing."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        return _revoked(request, key_id)

    return await serve(request, work)


async def rotate_key(request: Request, key_id: KeyPath) -> Response:
    """A new key in place of an old one, which still works for `overlap_s` seconds (a day if not said otherwise)."""

    def work(body: bytes) -> StoredAnswer:
        wanted = read_document(RotationRequest, body, request.scope, optional=True)
        changes(request, _target(key_id))
        made = services_of(request).keys.rotate(
            key_id, overlap_s=wanted.overlap_s, expires_at=_seconds(wanted.expires_at)
        )
        changes(request, f"{_target(key_id)} {_target(made.key.key_id)}")
        return _shown(request, made)

    return await serve(request, work, secret=True)


async def bind_role(request: Request) -> Response:
    """Requests that this IAM role or user signs are the tenant's from now on, with these scopes."""

    def work(body: bytes) -> StoredAnswer:
        wanted = read_document(RoleRequest, body, request.scope)
        changes(request, _target(role_key_id(wanted.arn)))
        services = services_of(request)
        bound = services.keys.bind_role(wanted.arn, wanted.tenant, wanted.scopes)
        return answer(KeyDocument.of(bound, services.now()))

    return await serve(request, work)


async def unbind_role(request: Request) -> Response:
    """Requests that this IAM role or user signs are nobody's from now on."""

    def work(_: bytes) -> StoredAnswer:
        return _revoked(request, role_key_id(read_query(RoleQuery, request.scope).arn))

    return await serve(request, work)


def _revoked(request: Request, key_id: str) -> StoredAnswer:
    changes(request, _target(key_id))
    services = services_of(request)
    return answer(KeyDocument.of(services.keys.revoke(key_id), services.now()))


def _shown(request: Request, made: NewKey) -> StoredAnswer:
    document = CreatedKey.of_text(made.text, made.key, services_of(request).now())
    return created(document, f"/v1/admin/keys/{made.key.key_id}")


def _target(key_id: str) -> str:
    # Where an id belongs, somebody may have put the whole key: that must not reach the log.
    return f"key:{key_id}" if _KEY_ID.fullmatch(key_id) else "key:malformed"


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
