"""AWS's cron expressions: six fields, for minutes, hours, days of the month, months, days of the week and years.

Source: "Schedule types" of the EventBridge Scheduler user guide and "Setting a schedule pattern" of that of EventBridge
(`, - * / ? L W #`; days of the week are 1 to 7 from Sunday; one of the two fields of days must be `?`).
"""

import calendar
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

_MONTH_NAMES: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_WEEKDAYS: Final = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2199

DayTest = Callable[[date], bool]


class CronError(ValueError):
    """Text that is no cron expression; the message says which part."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The times that an expression stands for, without a time zone."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    years: tuple[int, ...]
    is_day: DayTest

    def after(self, time: datetime) -> Iterator[datetime]:
        """The times later than `time` (naive, as the results), in order, up to the year 2199."""
        for year in self.years:
            if year < time.year:
                continue
            for month in self.months:
                if (year, month) < (time.year, time.month):
                    continue
                for day in self._days(year, month, time.date()):
                    for hour in self.hours:
                        for minute in self.minutes:
                            found = datetime(day.year, day.month, day.day, hour, minute)
                            if found > time:
                                yield found

    def _days(self, year: int, month: int, earliest: date) -> Iterator[date]:
        for number in range(1, calendar.monthrange(year, month)[1] + 1):
            day = date(year, month, number)
            if day >= earliest and self.is_day(day):
                yield day


def parse_cron(text: str) -> Cron:
    """The expression between the parentheses of `cron(…)`; raises `CronError`."""
    fields = text.split()
    if len(fields) != 6:
        raise CronError(f"cron takes six fields, not {len(fields)}")
    minutes, hours, days, months, weekdays, years = (field.upper() for field in fields)
    if (days == "?") == (weekdays == "?"):
        raise CronError("exactly one of day of the month and day of the week must be ?")
    return Cron(
        minutes=_values(minutes, 0, 59, "minutes"),
        hours=_values(hours, 0, 23, "hours"),
        months=_values(months, 1, 12, "months", _MONTHS),
        years=_values(years, _FIRST_YEAR, _LAST_YEAR, "years"),
        is_day=_day_of_month(days) if weekdays == "?" else _day_of_week(weekdays),
    )


def _values(text: str, least: int, most: int, what: str, names: Mapping[str, int] | None = None) -> tuple[int, ...]:
    """Numbers, ranges, steps and lists of them."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, 1, most, what) if slash else 1
        first, dash, last = span.partition("-")
        if span == "*":
            start, end = least, most
        elif dash:
            start, end = _number(first, least, most, what, names), _number(last, least, most, what, names)
        else:
            start = _number(first, least, most, what, names)
            end = most if slash else start
        if start > end:
            raise CronError(f"{what}: {part} goes backwards")
        found.update(range(start, end + 1, step))
    return tuple(sorted(found))


def _number(text: str, least: int, most: int, what: str, names: Mapping[str, int] | None = None) -> int:
    if names and text in names:
        return names[text]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise CronError(f"{what}: {text or 'nothing'} is not within {least} to {most}")
    return int(text)


def _day_of_month(text: str) -> DayTest:
    if text == "L":
        return lambda day: day.day == _length(day)
    if text == "LW":
        return lambda day: day == _nearest_weekday(day, _length(day))
    if text.endswith("W"):
        number = _number(text[:-1], 1, 31, "day of the month")
        return lambda day: number <= _length(day) and day == _nearest_weekday(day, number)
    wanted = frozenset(_values(text, 1, 31, "days of the month"))
    return lambda day: day.day in wanted


def _day_of_week(text: str) -> DayTest:
    if text == "L":  # the last day of the week
        return lambda day: _weekday(day) == _WEEKDAYS["SAT"]
    if "#" in text:
        weekday_text, _, nth_text = text.partition("#")
        weekday = _number(weekday_text, 1, 7, "day of the week", _WEEKDAYS)
        nth = _number(nth_text, 1, 5, "day of the week")
        return lambda day: _weekday(day) == weekday and (day.day - 1) // 7 + 1 == nth
    if text.endswith("L"):
        weekday = _number(text[:-1], 1, 7, "day of the week", _WEEKDAYS)
        return lambda day: _weekday(day) == weekday and day.day + 7 > _length(day)
    wanted = frozenset(_values(text, 1, 7, "days of the week", _WEEKDAYS))
    return lambda day: _weekday(day) in wanted


def _weekday(day: date) -> int:
    """1 for Sunday to 7 for Saturday."""
    return day.isoweekday() % 7 + 1


def _length(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _nearest_weekday(day: date, number: int) -> date:
    """The weekday of the month of `day` that is nearest to its day `number`."""
    wanted = day.replace(day=number)
    if wanted.isoweekday() == 6:
        return day.replace(day=number - 1 if number > 1 else 3)
    if wanted.isoweekday() == 7:
        return day.replace(day=number + 1 if number < _length(day) else number - 2)
    return wanted
