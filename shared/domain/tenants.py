"""Tenants, where they stand against their quotas, and the UTC days and months that usage is counted in."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who owns keys and data; `plan` names the plan whose limits hold, `created_at` is in seconds since 1970."""

    name: str
    plan: str
    suspended: bool = False
    created_at: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant, None if there is no such tenant, and the requests that it has made in a day and a month."""

    tenant: Tenant | None
    used_today: int = 0
    used_this_month: int = 0


def day_of(at: float) -> str:
    """The period of the UTC day that the second `at` since 1970 lies in, such as `day#2026-11-21`."""
    return f"day#{_utc(at):%Y-%m-%d}"


def month_of(at: float) -> str:
    """The period of the UTC month that the second `at` since 1970 lies in, such as `month#2026-11`."""
    return f"month#{_utc(at):%Y-%m}"


def model_day(at: float, model: str) -> str:
    """The period of one model's usage in a UTC day, such as `day#2026-11-21#model#tumor`."""
    return f"{day_of(at)}#model#{model}"


def end_of_day(at: float) -> int:
    """The first second since 1970 after the UTC day that `at` lies in."""
    return _seconds(_midnight(at) + timedelta(days=1))


def end_of_month(at: float) -> int:
    """The first second since 1970 after the UTC month that `at` lies in."""
    # No month has more than 31 days: 32 days after its first, the next one has begun.
    return _seconds((_midnight(at).replace(day=1) + timedelta(days=32)).replace(day=1))


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _midnight(at: float) -> datetime:
    return _utc(at).replace(hour=0, minute=0, second=0, microsecond=0)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
