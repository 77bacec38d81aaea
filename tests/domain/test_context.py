"""What travels in the authorizer's context comes back as it was; periods; the small cache."""

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.plans import Limits, OnLimiterFailure, Rate
from shared.domain.principal import Principal
from shared.domain.tenants import day_of, end_of_day, end_of_month, model_day, month_of
from shared.domain.timed_cache import TimedCache

rates = st.builds(Rate, st.floats(1e-6, 1e9) | st.integers(1, 10**6), st.integers(1, 10**9))
limits = st.builds(
    Limits,
    rates,
    rates,
    st.integers(1, 1000),
    st.sampled_from(OnLimiterFailure),
    st.sampled_from(["", "day", "month"]),
    st.integers(0, 2**40),
)
principals = st.builds(
    Principal,
    tenant=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    key_id=st.text(string.ascii_lowercase + "234567:#/", min_size=1, max_size=255),
    scopes=st.frozensets(st.sampled_from(["predict", "predict:a.b", "jobs", "ingest", "models:write", "admin"])),
    plan=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    limits=limits,
    expires_at=st.none() | st.integers(0, 2**40),
)


@given(principals)
def test_a_principal_comes_back_from_its_context(principal: Principal) -> None:
    context = principal.to_context()
    assert Principal.from_context(context) == principal
    assert all(isinstance(value, str) for value in context.values())


@pytest.mark.parametrize("rate", [1234567.5, 0.0001, 1e-6, 0.1 + 0.2, 1 / 3, 1e9, 500])
def test_limits_lose_no_digit(rate: float) -> None:
    made = Limits(Rate(rate, 1), Rate(rate, 2)).used_up("day", 7)
    assert Limits.from_text(made.to_text()) == made


@pytest.mark.parametrize(
    "text", ["", "1/2", "1/2 3/4 1 open -", "1/2 3/4 1 ajar - 0", "a/2 3/4 1 open - 0", "1/2/3 3/4 1 open - 0"]
)
def test_limits_that_are_malformed_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        Limits.from_text(text)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_periods_end_where_the_next_begin(moment: datetime) -> None:
    at = moment.timestamp()
    day, month = end_of_day(at), end_of_month(at)
    assert at < day <= month
    assert day_of(day - 1) == day_of(at) != day_of(day)
    assert month_of(month - 1) == month_of(at) != month_of(month)
    assert day % 86_400 == month % 86_400 == 0


def test_periods_read_as_they_are_stored() -> None:
    at = datetime(2026, 11, 21, 23, 59, 59, 999_000, tzinfo=UTC).timestamp()
    assert (day_of(at), month_of(at)) == ("day#2026-11-21", "month#2026-11")
    assert model_day(at, "tumor") == "day#2026-11-21#model#tumor"
    assert end_of_day(at) == datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    assert end_of_month(datetime(2028, 2, 29, tzinfo=UTC).timestamp()) == datetime(2028, 3, 1, tzinfo=UTC).timestamp()
    assert end_of_month(datetime(2026, 12, 31, tzinfo=UTC).timestamp()) == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_the_cache_ends_entries_by_time_and_number() -> None:
    at, made = [0.0], list[str]()

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    cache: TimedCache[str, str] = TimedCache(2, 60, lambda: at[0])
    assert [cache.get(key, make) for key in "aab"] == ["A", "A", "B"]
    assert made == ["a", "b"]
    at[0] = 59
    cache.get("c", make)  # a makes room
    cache.get("b", make)
    cache.get("a", make)
    assert made == ["a", "b", "c", "a"]
    at[0] = 119
    cache.get("a", make)
    assert made[-2:] == ["a", "a"]
    at[0] = 0  # a clock that was set back
    cache.get("a", make)
    assert len(made) == 6


def test_the_cache_keeps_no_failure() -> None:
    cache: TimedCache[str, str] = TimedCache(2, 60, lambda: 0.0)

    def fail(key: str) -> str:
        raise OSError(key)

    with pytest.raises(OSError, match="a"):
        cache.get("a", fail)
    assert cache.get("a", str.upper) == "A"
