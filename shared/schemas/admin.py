"""Documents of the admin API: tenants and plans. The command `sluice` prints the same ones for scripts."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.json_schema import SkipJsonSchema

from shared.domain import admin_bounds as bounds
from shared.domain.plans import PLAN_NAME, TENANT_NAME, OnLimiterFailure, Plan, Rate
from shared.domain.tenants import Tenant

TenantName = Annotated[str, StringConstraints(pattern=f"^{TENANT_NAME}$")]
PlanName = Annotated[str, StringConstraints(pattern=f"^{PLAN_NAME}$")]
Description = Annotated[str, StringConstraints(max_length=bounds.MAX_DESCRIPTION)]
Quota = Annotated[int, Field(ge=0, le=bounds.MAX_QUOTA)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
NextPage = Annotated[str | None, Field(description="Given as `page`, it leads to the rest; null at the end.")]


class AdminDocument(BaseModel):
    """What they have in common: members that a document does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _any_part(schema: dict[str, Any]) -> None:
    """Say of a document's schema that each member may be left out, and not all of them."""
    schema["minProperties"] = 1
    for member in schema["properties"].values():
        member.pop("default", None)


class TenantRequest(AdminDocument):
    """A new tenant; its plan must exist."""

    name: TenantName
    plan: PlanName = "default"
    description: Description = ""


class TenantChange(AdminDocument):
    """What of a tenant is to change: at least one member."""

    model_config = ConfigDict(json_schema_extra=_any_part)

    plan: PlanName | SkipJsonSchema[None] = None
    suspended: bool | SkipJsonSchema[None] = None
    description: Description | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("name at least one of plan, suspended and description")
        return self


class TenantDocument(AdminDocument):
    """A tenant. None of the credentials of one that is suspended is accepted."""

    name: TenantName
    plan: PlanName
    suspended: bool
    description: str
    created_at: Timestamp

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """The document of a domain value."""
        return cls(
            name=tenant.name,
            plan=tenant.plan,
            suspended=tenant.suspended,
            description=tenant.description,
            created_at=timestamp(tenant.created_at),
        )


class TenantList(AdminDocument):
    """Tenants by name."""

    tenants: list[TenantDocument]
    next: NextPage


class RateDocument(AdminDocument):
    """A token bucket: requests a second in the long run, and how many of them at once."""

    per_second: Annotated[float, Field(ge=bounds.MIN_RATE, le=bounds.MAX_RATE)]
    burst: Annotated[int, Field(ge=1, le=bounds.MAX_BURST)]

    @classmethod
    def of(cls, rate: Rate) -> Self:
        """The document of a domain value."""
        return cls(per_second=rate.per_second, burst=rate.burst)


class PlanRequest(AdminDocument):
    """What a plan allows: rates of each key and of the tenant, requests in a UTC day and month (null: no bound).

    `shards` spreads the tenant's bucket over that many items: more of them for more than some hundred requests a
    second.
    """

    key: RateDocument
    tenant: RateDocument
    daily_quota: Quota | None = None
    monthly_quota: Quota | None = None
    shards: Annotated[int, Field(ge=1, le=bounds.MAX_SHARDS)] = 1
    on_limiter_failure: OnLimiterFailure = OnLimiterFailure.OPEN
    max_keys: Annotated[int, Field(ge=1, le=bounds.MAX_KEYS)] = 100

    def to_plan(self, name: str) -> Plan:
        """The domain's value."""
        return Plan(
            name=name,
            key=Rate(self.key.per_second, self.key.burst),
            tenant=Rate(self.tenant.per_second, self.tenant.burst),
            daily_quota=self.daily_quota,
            monthly_quota=self.monthly_quota,
            shards=self.shards,
            on_limiter_failure=self.on_limiter_failure,
            max_keys=self.max_keys,
        )


class PlanDocument(PlanRequest):
    """A plan."""

    name: PlanName

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """The document of a domain value."""
        return cls(
            name=plan.name,
            key=RateDocument.of(plan.key),
            tenant=RateDocument.of(plan.tenant),
            daily_quota=plan.daily_quota,
            monthly_quota=plan.monthly_quota,
            shards=plan.shards,
            on_limiter_failure=plan.on_limiter_failure,
            max_keys=plan.max_keys,
        )


class PlanList(AdminDocument):
    """Plans by name; `default` is always among them."""

    plans: list[PlanDocument]
    next: NextPage


def timestamp(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
