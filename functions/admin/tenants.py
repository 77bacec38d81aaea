"""Routes of tenants and of what they used."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.admin.answers import answer, created, page_of
from functions.admin.contract import described
from functions.admin.queries import NoQuery, PageQuery, UsageQuery
from functions.admin.services import changes, serve, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.schemas.admin import TenantChange, TenantDocument, TenantList, TenantRequest
from shared.schemas.admin_usage import UsageDocument
from shared.web.documents import read_document, read_query

TenantPath = Annotated[str, Path(description="Name of a tenant")]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        "/v1/admin/tenants",
        create_tenant,
        methods=["POST"],
        **described(
            "createTenant",
            "Create a tenant",
            "The tenant.",
            "TenantDocument",
            errors.PlanNotFound,
            errors.Conflict,
            body="TenantRequest",
            creates=True,
            post=True,
        ),
    )
    routes.add_api_route(
        "/v1/admin/tenants",
        list_tenants,
        methods=["GET"],
        **described("listTenants", "All tenants", "Tenants, by name.", "TenantList", query=PageQuery),
    )
    routes.add_api_route(
        "/v1/admin/tenants/{tenant}",
        get_tenant,
        methods=["GET"],
        **described("getTenant", "A tenant", "The tenant.", "TenantDocument", errors.TenantNotFound),
    )
    routes.add_api_route(
        "/v1/admin/tenants/{tenant}",
        change_tenant,
        methods=["PATCH"],
        **described(
            "changeTenant",
            "Change a tenant: its plan, its description, whether it is suspended",
            "The tenant as it is now.",
            "TenantDocument",
            errors.TenantNotFound,
            errors.PlanNotFound,
            body="TenantChange",
        ),
    )
    routes.add_api_route(
        "/v1/admin/tenants/{tenant}/usage",
        get_usage,
        methods=["GET"],
        **described(
            "getUsage",
            "What a tenant used",
            "Usage by day and model, and where the tenant stands against its quotas.",
            "UsageDocument",
            errors.TenantNotFound,
            query=UsageQuery,
        ),
    )


async def create_tenant(request: Request) -> Response:
    """A new tenant, to which keys can be issued."""

    def work(body: bytes) -> StoredAnswer:
        wanted = read_document(TenantRequest, body, request.scope)
        changes(request, f"tenant:{wanted.name}")
        made = services_of(request).tenants.create(wanted.name, wanted.plan, wanted.description)
        return created(TenantDocument.of(made), f"/v1/admin/tenants/{made.name}")

    return await serve(request, work)


async def list_tenants(request: Request) -> Response:
    """All tenants."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(PageQuery, request.scope)
        part, following = page_of(services_of(request).tenants.list(), query, lambda tenant: tenant.name)
        return answer(TenantList(tenants=[TenantDocument.of(tenant) for tenant in part], next=following))

    return await serve(request, work)


async def get_tenant(request: Request, tenant: TenantPath) -> Response:
    """A tenant."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        return answer(TenantDocument.of(services_of(request).tenants.get(tenant)))

    return await serve(request, work)


async def change_tenant(request: Request, tenant: TenantPath) -> Response:
    """Change what the document names. It holds for requests once the gateway's cached authorizations have aged."""

    def work(body: bytes) -> StoredAnswer:
        wanted = read_document(TenantChange, body, request.scope)
        tenants = services_of(request).tenants
        changes(request, f"tenant:{tenants.get(tenant).name}")
        changed = tenants.update(tenant, plan=wanted.plan, suspended=wanted.suspended, description=wanted.description)
        return answer(TenantDocument.of(changed))

    return await serve(request, work)


async def get_usage(request: Request, tenant: TenantPath) -> Response:
    """Usage lags behind the requests by the seconds that the log takes."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(UsageQuery, request.scope)
        used = services_of(request).tenants.usage(tenant, query.since, query.until)
        return answer(UsageDocument.of(tenant, used.plan, used.standing, used.since, used.until, used.rows))

    return await serve(request, work)
