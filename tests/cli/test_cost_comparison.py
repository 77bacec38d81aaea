"""The model behind `sluice cost`, against figures reckoned by hand."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cli.cost_comparison import (
    ASYNCHRONOUS,
    FUNCTION,
    REAL_TIME,
    SERVERLESS,
    Crossing,
    Setup,
    Way,
    break_even,
    break_evens,
    ways,
)
from shared.domain.prices import LIST_PRICES, PriceTable

# Round prices: what is 0 is tested by itself below.
ROUND = PriceTable(
    date="2026-01-01",
    http_request=1e-6,
    lambda_request=0.2e-6,
    gb_second_x86_64=1e-5,
    dynamodb_write=0,
    log_gb=0,
    serverless_gb_second=2e-5,
    sagemaker_data_gb=0,
    s3_put=0,
    s3_get=0,
)
SETUP = Setup(
    duty=1.0,
    rows=1,
    row_bytes=1_000,
    memory_mb=1024,
    architecture="x86_64",
    function_ms=100,
    front_ms=5,
    serverless_ms=100,
    serverless_memory_mb=1024,
    container_ms=20,
    usd_per_hour=1.0,
    concurrency=10,
    utilisation=1.0,
)


def test_a_month_of_each_way_by_hand() -> None:
    """One request a second is 2,628,000 a month; a million cost 1.20 at the door and 10 for a second of 1 GB."""
    found = ways(SETUP, ROUND)
    assert found[FUNCTION].usd(1) == pytest.approx(2.628 * (1.20 + 1.00))
    assert found[SERVERLESS].usd(1) == pytest.approx(2.628 * (1.20 + 1.05 + 2.00))
    assert found[REAL_TIME].usd(1) == pytest.approx(2.628 * (1.20 + 0.25) + 730)
    assert found[ASYNCHRONOUS].usd(1) == pytest.approx(2.628 * (1.20 + 0.05) + 730)


def test_the_door_data_and_objects_are_paid_by_the_request() -> None:
    plain = ways(SETUP, ROUND)
    more = PriceTable(
        date="2026-01-01",
        **{name: getattr(ROUND, name) for name in ("http_request", "lambda_request", "gb_second_x86_64")},
        serverless_gb_second=2e-5,
        dynamodb_write=1e-6,
        log_gb=1.0,
        sagemaker_data_gb=0.5,
        s3_put=3e-6,
        s3_get=1e-6,
    )
    door = 1.0 + 1_100e-9 * 1e6
    # The result of an asynchronous call is an object, and so is an input that is too large for the call.
    for rows, objects in ((4, 4.0), (129, 8.0)):
        found, data = ways(replace(SETUP, rows=rows), more), rows * 1_000e-9 * 0.5 * 1e6
        for name, extra in ((FUNCTION, 0), (SERVERLESS, data), (REAL_TIME, data), (ASYNCHRONOUS, data + objects)):
            assert found[name].usd(1) - plain[name].usd(1) == pytest.approx(2.628 * (door + extra))


def test_fleets_follow_the_load_and_the_hours() -> None:
    """An instance takes 10 / 0.02 s = 500 requests a second."""
    found = ways(replace(SETUP, duty=0.25), ROUND)
    one, none = found[REAL_TIME], found[ASYNCHRONOUS]
    assert [one.instances(rps) for rps in (0.1, 500, 501, 1_500)] == [1, 1, 2, 3]
    assert one.instance_hours(1_500) == 730 * (0.25 * 3 + 0.75 * 1)
    assert none.instance_hours(1_500) == 730 * 0.25 * 3
    assert found[FUNCTION].instance_hours(1_500) == 0
    fixed = ways(replace(SETUP, duty=0.25, instances=2), ROUND)[REAL_TIME]
    assert [fixed.instance_hours(rps) for rps in (1, 1_000, 1_001)] == [1_460, 1_460, 730 * (0.25 * 3 + 0.75 * 2)]
    assert one.requests(4) == pytest.approx(2_628_000)


def test_break_even_points_by_hand() -> None:
    """A million requests cost 0.75 less than in the function, an instance 730: it pays from 370.37 requests a second.

    At 500 and at 1000 another instance lifts the fleet over the function once more.
    """
    found = ways(SETUP, ROUND)
    even = break_even(found[FUNCTION], found[REAL_TIME], until=100_000)
    saved = 0.75e-6 * 2_628_000
    assert even.at_first == FUNCTION
    assert [each.rps for each in even.crossings] == pytest.approx(
        [730 / saved, 500, 2 * 730 / saved, 1_000, 3 * 730 / saved]
    )
    assert [each.cheaper for each in even.crossings] == [REAL_TIME, FUNCTION, REAL_TIME, FUNCTION, REAL_TIME]


def test_ways_that_never_cross() -> None:
    found = ways(SETUP, ROUND)
    even = break_even(found[FUNCTION], found[SERVERLESS], until=100_000)
    assert (even.at_first, even.crossings, even.until) == (FUNCTION, [], 100_000)
    # Without objects to pay for, and with traffic all the time, waiting is all that is different.
    assert break_even(found[REAL_TIME], found[ASYNCHRONOUS], until=1_000).at_first == ASYNCHRONOUS


def test_every_pair_is_compared() -> None:
    pairs = [even.between for even in break_evens(ways(SETUP, LIST_PRICES), 1_000)]
    assert pairs == list(combinations((FUNCTION, SERVERLESS, REAL_TIME, ASYNCHRONOUS), 2))


@given(
    duty=st.floats(0.01, 1),
    function_ms=st.integers(1, 5_000),
    container_ms=st.integers(1, 5_000),
    usd_per_hour=st.sampled_from(sorted(LIST_PRICES.instance_hour.values())),
    concurrency=st.integers(1, 50),
    instances=st.none() | st.integers(1, 5),
    shares=st.lists(st.floats(0.0001, 0.9999), min_size=5, max_size=20),
)
def test_curves_cross_where_it_says_and_nowhere_else(
    duty: float,
    function_ms: int,
    container_ms: int,
    usd_per_hour: float,
    concurrency: int,
    instances: int | None,
    shares: list[float],
) -> None:
    setup = replace(
        SETUP,
        duty=duty,
        function_ms=function_ms,
        serverless_ms=function_ms,
        container_ms=container_ms,
        usd_per_hour=usd_per_hour,
        concurrency=concurrency,
        instances=instances,
    )
    found = ways(setup, LIST_PRICES)
    until = setup.instance_rps * 20
    for even in break_evens(found, until):
        one, other = (found[name] for name in even.between)
        for rps in (share * until for share in shares):
            passed = [each.cheaper for each in even.crossings if each.rps < rps]
            cheaper, dearer = (one, other) if (passed or [even.at_first])[-1] == one.name else (other, one)
            assert cheaper.usd(rps) <= dearer.usd(rps) * (1 + 1e-9)
        for crossing in even.crossings:
            _assert_crosses(crossing, one, other)


def _assert_crosses(crossing: Crossing, one: Way, other: Way) -> None:
    gaps = [one.usd(rps) - other.usd(rps) for rps in (crossing.rps * (1 - 1e-9), crossing.rps * (1 + 1e-9))]
    near = 1e-6 * one.usd(crossing.rps)
    # The curves meet there, or a step lifts one over the other.
    assert min(gaps) <= near
    assert max(gaps) >= -near
