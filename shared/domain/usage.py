"""What a tenant used: requests, rows, bytes, time in the model and cost, by UTC day, by month, and by model and day."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import NamedTuple

from shared.domain.request_line import RequestLine

_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# A counter of one request that is larger than this is no count; sums of such stay within DynamoDB's 38 digits.
_MOST = 2**53
_DAY = "day#"
_MONTH = "month#"
_OF_MODEL = "#model#"


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters that only grow.

    `requests` are those that quotas count: answered below 500 and not refused by a limit or a quota (429). `errors` are
    answers from 500 on. `model_us` are microseconds in the backend, `cost_nusd` 10⁻⁹ US dollars.
    """

    requests: int = 0
    errors: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    model_us: int = 0
    cost_nusd: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.errors + other.errors,
            self.rows + other.rows,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.model_us + other.model_us,
            self.cost_nusd + other.cost_nusd,
        )


COUNTERS = tuple(field.name for field in fields(Usage))


class UsageKey(NamedTuple):
    """Where usage is added up: a tenant, and a period as the store names it."""

    tenant: str
    period: str


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What a tenant used on a UTC day; `model` None is everything together, routes without a model included."""

    tenant: str
    day: date
    model: str | None
    usage: Usage


def day_period(day: date) -> str:
    """The period of a day: `day#2026-11-21`."""
    return f"{_DAY}{day.isoformat()}"


def month_period(day: date) -> str:
    """The period of the month that a day is in: `month#2026-11`."""
    return f"{_MONTH}{day.isoformat()[:7]}"


def model_period(day: date, model: str) -> str:
    """The period of a day for one model: `day#2026-11-21#model#tumor`."""
    return f"{day_period(day)}{_OF_MODEL}{model}"


def day_and_model(period: str) -> tuple[date, str | None]:
    """What `day_period` or `model_period` was made of; ValueError for any other text."""
    if not period.startswith(_DAY):
        raise ValueError("not the period of a day")
    day, _, model = period.removeprefix(_DAY).partition(_OF_MODEL)
    return date.fromisoformat(day), model or None


def usage_of(line: RequestLine, when: datetime) -> Mapping[UsageKey, Usage]:
    """What a request at `when` adds, by tenant and period; nothing where no tenant is known.

    A model has counters of its own once the request has found a version of it: the name alone may be made up.
    """
    if not line.tenant:
        return {}
    usage = _counted(line)
    day = when.astimezone(UTC).date()
    periods = [day_period(day), month_period(day)]
    if line.version is not None and line.rows is not None and line.model and _MODEL.fullmatch(line.model):
        periods.append(model_period(day, line.model))
    return {UsageKey(line.tenant, period): usage for period in periods}


def _counted(line: RequestLine) -> Usage:
    return Usage(
        requests=int(line.status < 500 and line.status != 429),
        errors=int(line.status >= 500),
        rows=min(line.rows or 0, _MOST),
        bytes_in=min(line.bytes_in, _MOST),
        bytes_out=min(line.bytes_out, _MOST),
        model_us=round(min(max(line.steps_ms.get("run", 0.0), 0.0) * 1000, _MOST)),
        cost_nusd=min(line.cost_nusd, _MOST),
    )
