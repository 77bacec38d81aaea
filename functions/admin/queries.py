"""Query strings of the admin API."""

from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.admin_bounds import MAX_NOTE
from shared.schemas.admin import TenantName


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(_Query):
    """Routes that take no parameter."""


class PageQuery(_Query):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=1000, description="Most entries of the answer")] = 100
    page: Annotated[str, Field(max_length=300, description="The `next` of the answer before")] = ""


class HistoryQuery(_Query):
    """Which part of an endpoint's history."""

    limit: Annotated[int, Field(ge=1, le=100, description="Most revisions of the answer")] = 20
    page: Annotated[int | None, Field(ge=1, le=10**9, description="The `next` of the answer before", examples=[3])] = (
        None
    )


class ChangeQuery(_Query):
    """How an endpoint is changed."""

    dry_run: Annotated[bool, Field(description="Answer what would change, and change nothing")] = False


class PutQuery(ChangeQuery):
    """How an endpoint's configuration is replaced."""

    note: Annotated[str, Field(max_length=MAX_NOTE, description="Why, for the history")] = ""


class KeysQuery(PageQuery):
    """Whose keys."""

    tenant: Annotated[TenantName, Field(description="Tenant whose keys are listed", examples=["acme"])]


class RoleQuery(_Query):
    """Which IAM role or user."""

    arn: Annotated[str, Field(max_length=2048, description="ARN of an IAM role or user")]


class TrafficQuery(_Query):
    """Which days (UTC)."""

    since: Annotated[
        date | None, Field(description="First day; without it, 29 days before `until`", examples=["2026-11-01"])
    ] = None
    until: Annotated[date | None, Field(description="Last day; without it, today", examples=["2026-11-30"])] = None


class UsageQuery(_Query):
    """Which days (UTC)."""

    since: Annotated[
        date | None,
        Field(description="First day; without it, the first of the month of `until`", examples=["2026-11-01"]),
    ] = None
    until: Annotated[date | None, Field(description="Last day; without it, today", examples=["2026-11-30"])] = None
