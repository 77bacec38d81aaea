from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.request_line import RequestLine, parse_line
from shared.domain.usage import (
    COUNTERS,
    Usage,
    UsageKey,
    day_and_model,
    day_period,
    model_period,
    month_period,
    usage_of,
)
from tests.log_lines import NOON, request

DAY = date(2026, 11, 21)


def line(**fields: object) -> RequestLine:
    found = parse_line(request(**fields))
    assert isinstance(found, RequestLine)
    return found


def test_a_prediction_counts_for_its_day_its_month_and_its_model() -> None:
    used = Usage(requests=1, rows=2, bytes_in=100, bytes_out=50, model_us=1500, cost_nusd=700)
    assert usage_of(line(), NOON) == {
        UsageKey("acme", "day#2026-11-21"): used,
        UsageKey("acme", "month#2026-11"): used,
        UsageKey("acme", "day#2026-11-21#model#tumor"): used,
    }


@pytest.mark.parametrize(
    ("status", "requests", "errors"),
    [(200, 1, 0), (302, 1, 0), (404, 1, 0), (422, 1, 0), (429, 0, 0), (499, 1, 0), (500, 0, 1), (503, 0, 1)],
)
def test_requests_count_as_quotas_do(status: int, requests: int, errors: int) -> None:
    used = usage_of(line(status=status), NOON)[UsageKey("acme", "day#2026-11-21")]
    assert (used.requests, used.errors, used.bytes_in) == (requests, errors, 100)


@pytest.mark.parametrize("tenant", [None, ""])
def test_a_request_of_nobody_counts_for_nobody(tenant: str | None) -> None:
    assert usage_of(line(tenant=tenant), NOON) == {}


@pytest.mark.parametrize("fields", [{"version": None}, {"rows": None}, {"model": None}, {"model": "Ü#model#x"}])
def test_a_name_that_found_no_version_has_no_row(fields: dict[str, object]) -> None:
    assert {key.period for key in usage_of(line(**fields), NOON)} == {"day#2026-11-21", "month#2026-11"}


def test_days_and_months_are_in_utc() -> None:
    late = datetime.fromisoformat("2026-12-01T00:30:00+01:00")
    assert {key.period for key in usage_of(line(model=None), late)} == {"day#2026-11-30", "month#2026-11"}


def test_a_counter_has_a_most() -> None:
    used = usage_of(line(bytes_in=10**300, steps_ms={"run": 1e300}), NOON)[UsageKey("acme", "month#2026-11")]
    assert (used.bytes_in, used.model_us) == (2**53, 2**53)
    assert usage_of(line(steps_ms={"run": -5}), NOON)[UsageKey("acme", "month#2026-11")].model_us == 0


@given(st.dates(), st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,63}\Z"))
def test_periods_are_read_back(day: date, model: str) -> None:
    assert day_and_model(day_period(day)) == (day, None)
    assert day_and_model(model_period(day, model)) == (day, model)
    # The text order that a query by range goes by.
    after = day_period(day) + "$"
    assert day_period(day) < model_period(day, model) < after
    if day < date.max:
        assert after < day_period(day + timedelta(days=1))


@pytest.mark.parametrize("period", [month_period(DAY), "day#", "day#x", "", "day#2026-13-01"])
def test_other_periods_are_refused(period: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        day_and_model(period)


COUNTS = st.builds(Usage, *[st.integers(0, 2**53)] * 7)


@given(COUNTS, COUNTS)
def test_usage_is_added_counter_by_counter(one: Usage, other: Usage) -> None:
    total = one + other
    assert total == other + one
    assert all(getattr(total, name) == getattr(one, name) + getattr(other, name) for name in COUNTERS)
    assert total + Usage() == total
