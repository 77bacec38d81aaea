"""Routes of plans."""

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
from shared.domain.idempotency import StoredAnswer
from shared.domain.plans import PLAN_NAME
from shared.schemas.admin import PlanDocument, PlanList, PlanRequest
from shared.web.documents import read_document, read_query

PlanPath = Annotated[str, Path(description="Name of a plan")]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        "/v1/admin/plans",
        list_plans,
        methods=["GET"],
        **described("listPlans", "All plans", "Plans, by name.", "PlanList", query=PageQuery),
    )
    routes.add_api_route(
        "/v1/admin/plans/{plan}",
        get_plan,
        methods=["GET"],
        **described("getPlan", "A plan", "The plan.", "PlanDocument", errors.PlanNotFound),
    )
    routes.add_api_route(
        "/v1/admin/plans/{plan}",
        put_plan,
        methods=["PUT"],
        **described(
            "putPlan",
            "Create or replace a plan",
            "The plan as it is now.",
            "PlanDocument",
            errors.PlanNotFound,
            body="PlanRequest",
        ),
    )


async def list_plans(request: Request) -> Response:
    """All plans; the built-in `default` is among them until one of that name is stored."""

    def work(_: bytes) -> StoredAnswer:
        query = read_query(PageQuery, request.scope)
        part, following = page_of(services_of(request).tenants.plans(), query, lambda plan: plan.name)
        return answer(PlanList(plans=[PlanDocument.of(plan) for plan in part], next=following))

    return await serve(request, work)


async def get_plan(request: Request, plan: PlanPath) -> Response:
    """A plan."""

    def work(_: bytes) -> StoredAnswer:
        read_query(NoQuery, request.scope)
        return answer(PlanDocument.of(services_of(request).tenants.plan(plan)))

    return await serve(request, work)


async def put_plan(request: Request, plan: PlanPath) -> Response:
    """What is left out is as the built-in plan has it. The authorizer keeps plans for a minute."""

    def work(body: bytes) -> StoredAnswer:
        if not re.fullmatch(PLAN_NAME, plan):
            raise errors.PlanNotFound("A plan's name has lower-case letters, digits and dashes, at most 63 of them.")
        wanted = read_document(PlanRequest, body, request.scope).to_plan(plan)
        changes(request, f"plan:{plan}")
        return answer(PlanDocument.of(services_of(request).tenants.put_plan(wanted)))

    return await serve(request, work)
