"""Schedule expressions: `rate(…)`, `cron(…)` and, for schedules of EventBridge Scheduler, `at(…)`.

Source: "Schedule types" of the EventBridge Scheduler user guide. A time that its time zone leaves out when clocks go
forward is passed over, and one that comes twice when they go back counts once.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from infra.local.events.cron import Cron, CronError, parse_cron

_FORM: Final = re.compile(r"(rate|cron|at)\((.*)\)")
_RATE: Final = re.compile(r"([1-9]\d*) +(minute|hour|day)(s?)")


class ExpressionError(ValueError):
    """Text that is no schedule expression; the message says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """When something is due; `text` is the expression as it was written. One of the other forms is set.

    `start` and `end` bound what recurs.
    """

    text: str
    every: timedelta | None = None
    cron: Cron | None = None
    at: datetime | None = None
    zone: ZoneInfo | None = None
    start: datetime | None = None
    end: datetime | None = None

    def next(self, after: datetime, began: datetime) -> datetime | None:
        """The first time later than `after`, or None; `began` is when the schedule was made. All are aware.

        A rate counts from its start or, without one, from `began`.
        """
        if self.at is not None:
            return self.at if self.at > after else None
        found = self._next_of_rate(after, began) if self.every is not None else self._next_of_cron(after)
        return found if found is not None and (self.end is None or found <= self.end) else None

    def _next_of_rate(self, after: datetime, began: datetime) -> datetime | None:
        if self.every is None or (self.start is not None and self.start > after):
            return self.start
        origin = self.start or began
        return origin + self.every * ((after - origin) // self.every + 1)

    def _next_of_cron(self, after: datetime) -> datetime | None:
        if self.cron is None:
            return None
        if self.start is not None:
            after = max(after, self.start - timedelta(seconds=1))
        zone = self.zone or UTC
        for local in self.cron.after(after.astimezone(zone).replace(tzinfo=None)):
            found = local.replace(tzinfo=zone).astimezone(UTC)
            if found.astimezone(zone).replace(tzinfo=None) == local and found > after:
                return found
        return None


def parse_expression(
    text: str, *, zone: str | None = None, start: str | None = None, end: str | None = None, once: bool = False
) -> Expression:
    """The expression `text`; `once` allows `at(…)`. `start` and `end` are ISO 8601 times, UTC unless they say so.

    Raises `ExpressionError`.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None or (form[1] == "at" and not once):
        forms = "rate(…), cron(…) or at(…)" if once else "rate(…) or cron(…)"
        raise ExpressionError(f"{text!r} is not of the form {forms}")
    try:
        time_zone = ZoneInfo(zone) if zone else None
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ExpressionError(f"{zone!r} is no time zone") from error
    try:
        cron = parse_cron(form[2]) if form[1] == "cron" else None
    except CronError as error:
        raise ExpressionError(f"{text!r}: {error}") from error
    if form[1] == "at":
        return Expression(text, at=_time(form[2], time_zone))
    every = _rate(form[2]) if form[1] == "rate" else None
    return Expression(text, every=every, cron=cron, zone=time_zone, start=_time(start), end=_time(end))


def _rate(text: str) -> timedelta:
    found = _RATE.fullmatch(text.strip())
    if found is None or (found[1] == "1") == bool(found[3]):
        raise ExpressionError(f"rate({text}): a rate is a number and minute(s), hour(s) or day(s)")
    return int(found[1]) * timedelta(**{f"{found[2]}s": 1})


def _time(text: str | None, zone: ZoneInfo | None = None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ExpressionError(f"{text!r} is no time as 2030-01-31T12:00:00") from error
    return (time if time.tzinfo else time.replace(tzinfo=zone or UTC)).astimezone(UTC)
