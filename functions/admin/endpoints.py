"""Routes of the configurations of endpoints."""

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from functions.admin import endpoint_contract as contract
from functions.admin.answers import answer, page_of
from functions.admin.queries import ChangeQuery, HistoryQuery, NoQuery, PageQuery, PutQuery
from functions.admin.services import changes, serve, serve_as, services_of
from shared.domain import errors
from shared.domain.endpoint.config import StoredEndpoint
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.schemas.endpoint import (
    EndpointDocument,
    RollbackRequest,
    TrafficRequest,
    encoded,
    plan_of,
    read_config,
)
from shared.usecases.manage_endpoints import Changed, check_name
from shared.web.documents import check_body, read_document, read_query
from shared.web.requests import header

# A function's answer has at most 6 MB, and is text with escapes on its way.
_MAX_LIST_BYTES = 4 * 1024 * 1024
_ETAG = re.compile(r'"?([0-9]{1,10})"?')
_BASE = "/v1/admin/endpoints/{endpoint}"

EndpointPath = Annotated[str, Path(description="Name of an endpoint, which is that of its model")]
RevisionPath = Annotated[str, Path(description="Number of a revision")]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    for method, path, route, description in (
        ("GET", "/v1/admin/endpoints", list_endpoints, contract.listing()),
        ("GET", _BASE, get_endpoint, contract.reading()),
        ("PUT", _BASE, put_endpoint, contract.replacing()),
        ("GET", f"{_BASE}/history", list_history, contract.history()),
        ("GET", f"{_BASE}/history/{{revision}}", get_revision, contract.revision()),
        ("POST", f"{_BASE}/rollback", roll_back, contract.rollback()),
        ("PATCH", f"{_BASE}/traffic", patch_traffic, contract.traffic()),
    ):
        routes.add_api_route(path, route, methods=[method], **description)


async def list_endpoints(request: Request) -> Response:
    """What was set; for every other endpoint the defaults hold. A page may end before `limit`, at some megabytes."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(PageQuery, request.scope)
        part, following = page_of(services_of(request).endpoints.list(), query, _name)
        documents = _fitting(part)
        following = following if len(documents) == len(part) else _name(part[len(documents) - 1])
        return answer(msgspec.json.encode({"endpoints": documents, "next": following}))

    return await serve(request, work)


async def get_endpoint(request: Request, endpoint: EndpointPath) -> Response:
    """What holds for an endpoint: the defaults, as revision 0, as long as nothing is stored."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        return _document(services_of(request).endpoints.get(endpoint))

    return await serve(request, work)


async def put_endpoint(request: Request, endpoint: EndpointPath) -> Response:
    """Replace the configuration, if it is still the one that `If-Match` names: else somebody else was faster (412).

    What changes nothing makes no new revision. In force everywhere within five seconds.
    """

    def work(caller: Principal, body: bytes) -> StoredAnswer:
        query = read_query(PutQuery, request.scope)
        check_name(endpoint)
        expected = _expected(request.scope, dry_run=query.dry_run)
        check_body(body, request.scope)
        config = read_config(body, endpoint)
        _note(request, endpoint, query)
        changed = services_of(request).endpoints.put(
            config, expected=expected, by=caller.key_id, note=query.note, dry_run=query.dry_run
        )
        return _outcome(changed, query)

    return await serve_as(request, work)


async def list_history(request: Request, endpoint: EndpointPath) -> Response:
    """The last hundred revisions are kept. A page may end before `limit`, at some megabytes."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(HistoryQuery, request.scope)
        found = services_of(request).endpoints.history(endpoint, limit=query.limit + 1, before=query.page)
        documents = _fitting(found[: query.limit])
        following = str(found[len(documents) - 1].revision) if len(found) > len(documents) else None
        return answer(msgspec.json.encode({"revisions": documents, "next": following}))

    return await serve(request, work)


async def get_revision(request: Request, endpoint: EndpointPath, revision: RevisionPath) -> Response:
    """The configuration as it was with this revision."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        check_name(endpoint)
        number = int(revision) if re.fullmatch(r"[0-9]{1,10}", revision) else 0
        found = services_of(request).endpoints.revision(endpoint, number)
        return answer(encoded(EndpointDocument.of(found)))

    return await serve(request, work)


async def roll_back(request: Request, endpoint: EndpointPath) -> Response:
    """Make an earlier revision the newest one, if the one in force is still that of `If-Match`."""

    def work(caller: Principal, body: bytes) -> StoredAnswer:
        query = read_query(ChangeQuery, request.scope)
        check_name(endpoint)
        expected = _expected(request.scope, dry_run=query.dry_run)
        wanted = read_document(RollbackRequest, body, request.scope)
        _note(request, endpoint, query)
        changed = services_of(request).endpoints.rollback(
            endpoint,
            wanted.revision,
            expected=expected,
            by=caller.key_id,
            note=wanted.note,
            dry_run=query.dry_run,
        )
        return _outcome(changed, query)

    return await serve_as(request, work)


async def patch_traffic(request: Request, endpoint: EndpointPath) -> Response:
    """Give versions, labels or variants shares of the traffic; what is left goes to the other variants as before.

    A version without a variant gets one, `v<version>`, on the backend that has most of the traffic.
    """

    def work(caller: Principal, body: bytes) -> StoredAnswer:
        query = read_query(ChangeQuery, request.scope)
        check_name(endpoint)
        expected = _expected(request.scope, dry_run=query.dry_run)
        wanted = read_document(TrafficRequest, body, request.scope)
        _note(request, endpoint, query)
        changed = services_of(request).endpoints.traffic(
            endpoint,
            wanted.shares,
            expected=expected,
            by=caller.key_id,
            note=wanted.note,
            dry_run=query.dry_run,
        )
        return _outcome(changed, query)

    return await serve_as(request, work)


def _expected(scope: Scope, *, dry_run: bool) -> int | None:
    """The revision that is to be changed. A dry run may leave it out, and is about the one in force then.

    Weak tags never match, and other texts are no tag of ours: PreconditionFailed, as RFC 9110, 13.1.1 has it.
    """
    given, none = header(scope, b"if-match"), header(scope, b"if-none-match")
    if given is not None and given.strip() != "*":
        tag = _ETAG.fullmatch(given.strip())
        if tag is None:
            raise errors.PreconditionFailed('If-Match is none of our ETags, which read as "3" does.')
        return int(tag[1])
    if given is None and none is not None and none.strip() == "*":
        return 0
    if dry_run:
        return None
    raise errors.PreconditionRequired(
        "Send the ETag of what you have read as If-Match, or If-None-Match: * where nothing is stored: nobody's change "
        "is overwritten unseen then."
    )


def _note(request: Request, endpoint: str, query: ChangeQuery) -> None:
    if not query.dry_run:
        changes(request, f"endpoint:{endpoint}")


def _outcome(changed: Changed, query: ChangeQuery) -> StoredAnswer:
    stored, plan = changed
    if not query.dry_run:
        return _document(stored)
    in_force = stored.revision - 1 if plan else stored.revision
    return answer(plan_of(in_force, plan), _tag(in_force))


def _document(stored: StoredEndpoint) -> StoredAnswer:
    return answer(encoded(EndpointDocument.of(stored)), _tag(stored.revision))


def _tag(revision: int) -> tuple[str, str]:
    return "ETag", f'"{revision}"'


def _fitting(found: Sequence[StoredEndpoint]) -> list[msgspec.Raw]:
    """As many documents as fit into an answer; one at the least, if there are any."""
    documents: list[msgspec.Raw] = []
    size = 0
    for stored in found:
        document = encoded(EndpointDocument.of(stored))
        size += len(document)
        if documents and size > _MAX_LIST_BYTES:
            break
        documents.append(msgspec.Raw(document))
    return documents


def _name(stored: StoredEndpoint) -> str:
    return stored.config.endpoint
