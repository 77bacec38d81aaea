"""Documents of the admin API: what a tenant used."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Self

from shared.domain.plans import Plan
from shared.domain.tenants import Standing
from shared.domain.usage import Usage, UsageRow
from shared.schemas.admin import AdminDocument, PlanName, TenantName


class UsageCounters(AdminDocument):
    """What was used: `requests` are those that quotas count, `model_s` the seconds in the backend."""

    requests: int
    errors: int
    rows: int
    bytes_in: int
    bytes_out: int
    model_s: float
    cost_usd: float

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """The document of a domain value."""
        return cls(
            requests=usage.requests,
            errors=usage.errors,
            rows=usage.rows,
            bytes_in=usage.bytes_in,
            bytes_out=usage.bytes_out,
            model_s=usage.model_us / 1e6,
            cost_usd=usage.cost_nusd / 1e9,
        )

    @staticmethod
    def sum(counters: "Iterable[UsageCounters]") -> "UsageCounters":
        """All of them together."""
        listed = list(counters)
        return UsageCounters(
            **{name: sum(getattr(each, name) for each in listed) for name in UsageCounters.model_fields}
        )


class DayUsage(UsageCounters):
    """A UTC day; `models` are its parts that reached a model."""

    day: date
    models: dict[str, UsageCounters]


class QuotaState(AdminDocument):
    """Requests of the running UTC day or month against the plan's quota; null: no bound."""

    used: int
    quota: int | None


class UsageDocument(AdminDocument):
    """What a tenant used from day `since` to day `until` (UTC, both included), and where it stands today."""

    tenant: TenantName
    plan: PlanName
    since: date
    until: date
    total: UsageCounters
    days: list[DayUsage]
    today: QuotaState
    month: QuotaState

    @classmethod
    def of(
        cls, tenant: str, plan: Plan, standing: Standing, since: date, until: date, rows: Sequence[UsageRow]
    ) -> Self:
        """The document of a tenant's rows, which come by day."""
        sums = {row.day: row.usage for row in rows if row.model is None}
        models: dict[date, dict[str, UsageCounters]] = {day: {} for day in sums}
        for row in rows:
            if row.model is not None:
                models.setdefault(row.day, {})[row.model] = UsageCounters.of(row.usage)
        return cls(
            tenant=tenant,
            plan=plan.name,
            since=since,
            until=until,
            total=UsageCounters.of(sum(sums.values(), Usage())),
            days=[
                DayUsage(**dict(UsageCounters.of(sums.get(day, Usage()))), day=day, models=models[day])
                for day in sorted(models)
            ],
            today=QuotaState(used=standing.used_today, quota=plan.daily_quota),
            month=QuotaState(used=standing.used_this_month, quota=plan.monthly_quota),
        )
