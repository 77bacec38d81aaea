"""Create and change tenants and plans, and see what a tenant used."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from time import time
from typing import Any

from shared.domain import admin_bounds as bounds
from shared.domain.errors import BackendUnavailable, FieldError, OutOfRange, PlanNotFound, TenantNotFound, TextTooLong
from shared.domain.plans import DEFAULT_PLAN, PLAN_NAME, TENANT_NAME, Plan
from shared.domain.ports import TenantStore, UsageStore
from shared.domain.tenants import Standing, Tenant, day_of, month_of
from shared.domain.usage import UsageRow

# A tenant that was read may be a moment old, or somebody else is faster.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """What a tenant used from day `since` to day `until` (UTC, both included), and how it stands against its plan."""

    plan: Plan
    standing: Standing
    since: date
    until: date
    rows: Sequence[UsageRow]


@dataclass(frozen=True, slots=True)
class ManageTenants:
    """What administrators do with tenants and plans; `now` gives seconds since 1970."""

    tenants: TenantStore
    used: UsageStore
    now: Callable[[], float] = time

    def create(self, name: str, plan: str = DEFAULT_PLAN.name, description: str = "") -> Tenant:
        """A new tenant. Raises Conflict if there is one, PlanNotFound, OutOfRange, TextTooLong, BackendError."""
        if not re.fullmatch(TENANT_NAME, name):
            raise OutOfRange.at("/name", "must be lower-case letters, digits and dashes, at most 63, no dash first")
        _check_description(description)
        self.plan(plan)
        tenant = Tenant(name, plan, created_at=int(self.now()), description=description)
        self.tenants.add(tenant)
        return tenant

    def get(self, name: str) -> Tenant:
        """A tenant. Raises TenantNotFound, BackendError."""
        found = self.tenants.get(name) if re.fullmatch(TENANT_NAME, name) else None
        if found is None:
            raise TenantNotFound(f"There is no tenant {name[:63]!r}.")
        return found

    def list(self) -> Sequence[Tenant]:
        """All tenants, by name. Raises BackendError."""
        return self.tenants.list()

    def update(
        self, name: str, *, plan: str | None = None, suspended: bool | None = None, description: str | None = None
    ) -> Tenant:
        """Change what is given; None leaves it, and what somebody else changes at the same time.

        Raises TenantNotFound, PlanNotFound, TextTooLong, BackendError.
        """
        changes: dict[str, Any] = {}
        if plan is not None:
            changes["plan"] = plan
        if suspended is not None:
            changes["suspended"] = suspended
        if description is not None:
            _check_description(description)
            changes["description"] = description
        for attempt in range(_ATTEMPTS):
            before = self.get(name)
            if plan is not None and not attempt:
                self.plan(plan)
            tenant = replace(before, **changes)
            if self.tenants.update(tenant, before):
                return tenant
        raise BackendUnavailable(f"The tenant {name} is being changed by others.", retry_after_s=1)

    def usage(self, name: str, since: date | None = None, until: date | None = None) -> TenantUsage:
        """What a tenant used; without `since` from the first of the month of `until`, without `until` to today.

        Raises TenantNotFound, OutOfRange for more than a year or an end before its start, BackendError.
        """
        now = self.now()
        until = until or datetime.fromtimestamp(now, UTC).date()
        since = since or until.replace(day=1)
        if not timedelta(0) <= until - since < timedelta(days=bounds.MAX_USAGE_DAYS):
            fields = [FieldError("/query/since", "must not be after `until`, and at most a year before it")]
            raise OutOfRange(
                f"From {since} to {until} are not 1 to {bounds.MAX_USAGE_DAYS} days: ask for less at once.",
                fields=fields,
            )
        self.get(name)
        standing = self.tenants.standing(name, day_of(now), month_of(now))
        if standing.tenant is None:
            raise TenantNotFound(f"There is no tenant {name!r}.")
        plan = self.tenants.plan(standing.tenant.plan) or DEFAULT_PLAN
        return TenantUsage(plan, standing, since, until, self.used.of_tenant(name, since, until))

    def plan(self, name: str) -> Plan:
        """A plan; the built-in one for `default` as long as none of that name is stored.

        Raises PlanNotFound, BackendError.
        """
        found = self.tenants.plan(name) if re.fullmatch(PLAN_NAME, name) else None
        if found is None and name == DEFAULT_PLAN.name:
            return DEFAULT_PLAN
        if found is None:
            raise PlanNotFound(f"There is no plan {name[:63]!r}. `sluice plans set NAME` or PUT /v1/admin/plans/NAME.")
        return found

    def plans(self) -> Sequence[Plan]:
        """All plans by name, `default` included. Raises BackendError."""
        stored = {plan.name: plan for plan in self.tenants.plans()}
        return sorted({DEFAULT_PLAN.name: DEFAULT_PLAN, **stored}.values(), key=lambda plan: plan.name)

    def put_plan(self, plan: Plan) -> Plan:
        """Store a plan; it holds for its tenants within a minute. Raises OutOfRange, BackendError."""
        if faults := _faults(plan):
            raise OutOfRange(f"{faults[0].pointer}: {faults[0].detail}.", fields=faults)
        self.tenants.put_plan(plan)
        return plan


def _check_description(text: str) -> None:
    if len(text) > bounds.MAX_DESCRIPTION:
        raise TextTooLong.at("/description", f"must have at most {bounds.MAX_DESCRIPTION} characters")


def _faults(plan: Plan) -> list[FieldError]:
    """What of a plan is out of its bounds; NaN is in no range."""
    slowest, fastest = bounds.MIN_RATE, bounds.MAX_RATE
    rate = f"must be from {slowest:g} to {fastest:.0f}"
    most = bounds.MAX_QUOTA
    within = {
        "/name": (
            bool(re.fullmatch(PLAN_NAME, plan.name)),
            "must be lower-case letters, digits and dashes, at most 63",
        ),
        "/key/per_second": (slowest <= plan.key.per_second <= fastest, rate),
        "/key/burst": (1 <= plan.key.burst <= bounds.MAX_BURST, f"must be from 1 to {bounds.MAX_BURST}"),
        "/tenant/per_second": (slowest <= plan.tenant.per_second <= fastest, rate),
        "/tenant/burst": (1 <= plan.tenant.burst <= bounds.MAX_BURST, f"must be from 1 to {bounds.MAX_BURST}"),
        "/shards": (1 <= plan.shards <= bounds.MAX_SHARDS, f"must be from 1 to {bounds.MAX_SHARDS}"),
        "/daily_quota": (plan.daily_quota is None or 0 <= plan.daily_quota <= most, f"must be from 0 to {most}"),
        "/monthly_quota": (plan.monthly_quota is None or 0 <= plan.monthly_quota <= most, f"must be from 0 to {most}"),
        "/max_keys": (1 <= plan.max_keys <= bounds.MAX_KEYS, f"must be from 1 to {bounds.MAX_KEYS}"),
    }
    return [FieldError(place, detail) for place, (fits, detail) in within.items() if not fits]
