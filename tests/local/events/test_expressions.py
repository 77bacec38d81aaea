from datetime import UTC, datetime
from typing import Any

import pytest

from infra.local.events.expressions import ExpressionError, parse_expression

BEGAN = datetime(2026, 11, 20, 10, 0, 30, tzinfo=UTC)  # a Friday


def times(text: str, count: int = 3, after: str = "2026-11-21T10:17:05", **options: Any) -> list[str]:
    expression = parse_expression(text, once=True, **options)
    time: datetime | None = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        assert time is not None
        time = expression.next(time, BEGAN)
        if time is None:
            break
        found.append(time.isoformat().removesuffix(":00+00:00"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cron(* * * * ? *)", ["2026-11-21T10:18", "2026-11-21T10:19", "2026-11-21T10:20"]),
        ("cron(0/20 * * * ? *)", ["2026-11-21T10:20", "2026-11-21T10:40", "2026-11-21T11:00"]),
        ("cron(5,10-11 9 * * ? *)", ["2026-11-22T09:05", "2026-11-22T09:10", "2026-11-22T09:11"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-11-23T18:00", "2026-11-24T18:00", "2026-11-25T18:00"]),
        ("cron(0 8 1 * ? *)", ["2026-12-01T08:00", "2027-01-01T08:00", "2027-02-01T08:00"]),
        ("cron(0 0 L * ? *)", ["2026-11-30T00:00", "2026-12-31T00:00", "2027-01-31T00:00"]),
        ("cron(0 0 LW * ? 2027)", ["2027-01-29T00:00", "2027-02-26T00:00", "2027-03-31T00:00"]),
        ("cron(0 0 15W JAN-MAR ? *)", ["2027-01-15T00:00", "2027-02-15T00:00", "2027-03-15T00:00"]),
        ("cron(0 0 1W MAY,AUG ? 2027)", ["2027-05-03T00:00", "2027-08-02T00:00"]),
        ("cron(0 0 31W OCT ? 2027)", ["2027-10-29T00:00"]),
        ("cron(30 9 ? * 2#1 *)", ["2026-12-07T09:30", "2027-01-04T09:30", "2027-02-01T09:30"]),
        ("cron(30 9 ? * 6L *)", ["2026-11-27T09:30", "2026-12-25T09:30", "2027-01-29T09:30"]),
        ("cron(0 0 ? * L *)", ["2026-11-28T00:00", "2026-12-05T00:00", "2026-12-12T00:00"]),
        ("cron(0 0 ? * SUN 2026)", ["2026-11-22T00:00", "2026-11-29T00:00", "2026-12-06T00:00"]),
        ("cron(0 0 29 2 ? *)", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
        ("cron(0 0 1 1 ? 2026)", []),
        ("at(2026-11-21T11:00:00)", ["2026-11-21T11:00"]),
        ("at(2026-11-21T10:00:00)", []),
    ],
)
def test_when_it_is_due(text: str, expected: list[str]) -> None:
    assert times(text) == expected


def test_a_rate_counts_from_its_begin() -> None:
    assert times("rate(1 hour)", 2) == ["2026-11-21T11:00:30+00:00", "2026-11-21T12:00:30+00:00"]
    assert times("rate(5 minutes)", 1) == ["2026-11-21T10:20:30+00:00"]
    assert times("rate(2 days)", 1) == ["2026-11-22T10:00:30+00:00"]
    assert times("rate(1 day)", 2, start="2026-12-01T00:00:00Z") == ["2026-12-01T00:00", "2026-12-02T00:00"]
    assert times("rate(1 minute)", 3, end="2026-11-21T10:19:00Z") == [
        "2026-11-21T10:17:30+00:00",
        "2026-11-21T10:18:30+00:00",
    ]


def test_time_zones_and_their_changes() -> None:
    berlin: dict[str, Any] = {"zone": "Europe/Berlin"}
    assert times("cron(0 9 * * ? *)", 1, **berlin) == ["2026-11-22T08:00"]
    assert times("at(2026-11-21T12:00:00)", **berlin) == ["2026-11-21T11:00"]
    # 02:30 does not exist on the 28th of March, and comes twice on the 31st of October.
    spring = times("cron(30 2 * * ? *)", 2, after="2027-03-27T12:00:00", **berlin)
    assert spring == ["2027-03-29T00:30", "2027-03-30T00:30"]
    autumn = times("cron(30 2 * * ? *)", 2, after="2027-10-30T12:00:00", **berlin)
    assert autumn == ["2027-10-31T00:30", "2027-11-01T01:30"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("every minute", "not of the form"),
        ("rate(1 minutes)", "a rate is"),
        ("rate(5 minute)", "a rate is"),
        ("rate(0 minutes)", "a rate is"),
        ("rate(5 seconds)", "a rate is"),
        ("cron(* * * * *)", "six fields"),
        ("cron(* * * * * *)", r"must be \?"),
        ("cron(* * ? * ? *)", r"must be \?"),
        ("cron(60 * * * ? *)", "minutes: 60"),
        ("cron(5-1 * * * ? *)", "goes backwards"),
        ("cron(* * * FOO ? *)", "months: FOO"),
        ("cron(* * ? * 8 *)", "days of the week: 8"),
        ("cron(* * * * ? 1969)", "years: 1969"),
        ("at(tomorrow)", "is no time"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        parse_expression(text, once=True)


def test_one_time_schedules_are_the_scheduler_s_alone() -> None:
    with pytest.raises(ExpressionError, match=r"rate\(…\) or cron\(…\)$"):
        parse_expression("at(2026-11-21T11:00:00)")
    with pytest.raises(ExpressionError, match="no time zone"):
        parse_expression("rate(1 day)", zone="Mars/Phobos")
