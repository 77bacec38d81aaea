"""GCRA against a token bucket that keeps fractions of tokens."""

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.gcra import STALE_AFTER_US, Bucket, BucketState
from shared.domain.plans import Rate

BUCKETS = st.builds(Bucket, interval_us=st.integers(1, 1_000), burst=st.integers(1, 20))
GAPS = st.lists(st.integers(0, 3_000), max_size=60)
START = 1_700_000_000_000_000


class TokenBucket:
    """The textbook: tokens drop in at the rate, up to `burst`, and each request takes one."""

    def __init__(self, bucket: Bucket, now: int) -> None:
        self._bucket = bucket
        self._tokens = Fraction(bucket.burst)
        self._at = now

    def take(self, now: int) -> bool:
        self._refill(now)
        passes = self._tokens >= 1
        self._tokens -= passes
        return passes

    def whole_tokens(self, now: int) -> int:
        self._refill(now)
        return int(self._tokens)

    def _refill(self, now: int) -> None:
        self._tokens = min(
            Fraction(self._bucket.burst), self._tokens + Fraction(now - self._at, self._bucket.interval_us)
        )
        self._at = now


@given(BUCKETS, GAPS)
def test_it_decides_as_a_token_bucket_does(bucket: Bucket, gaps: list[int]) -> None:
    reference, now, tat = TokenBucket(bucket, START), START, None
    for gap in gaps:
        now += gap
        assert bucket.remaining(tat, now) == reference.whole_tokens(now)
        passes = bucket.state(tat, now) is not BucketState.EMPTY
        assert passes == reference.take(now)
        if passes:
            tat = bucket.taken(tat, now)


@given(BUCKETS, GAPS)
def test_no_span_of_time_lets_more_pass_than_burst_and_rate(bucket: Bucket, gaps: list[int]) -> None:
    now, tat, passed = START, None, list[int]()
    for gap in gaps:
        now += gap
        if bucket.state(tat, now) is not BucketState.EMPTY:
            tat = bucket.taken(tat, now)
            passed.append(now)
    for first, since in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= bucket.burst + (passed[last] - since) / bucket.interval_us


@given(BUCKETS, st.integers(-5_000, 25_000))
def test_the_wait_ends_when_the_next_request_passes_and_not_before(bucket: Bucket, ahead: int) -> None:
    tat = START + min(ahead, bucket.interval_us * bucket.burst)
    wait = bucket.wait_us(tat, START)
    assert bucket.state(tat, START + wait) is not BucketState.EMPTY
    if wait:
        assert bucket.state(tat, START + wait - 1) is BucketState.EMPTY


@given(BUCKETS, st.integers(-5_000, 25_000))
def test_one_more_request_passes_when_it_is_said_to_and_not_before(bucket: Bucket, ahead: int) -> None:
    tat, now = START + ahead, START
    remaining, more_in = bucket.remaining(tat, now), bucket.next_us(tat, now)
    if more_in == 0:
        assert remaining == bucket.burst
    else:
        assert bucket.remaining(tat, now + more_in) == remaining + 1
        assert bucket.remaining(tat, now + more_in - 1) == remaining


@given(BUCKETS, st.integers(0, 10**9), st.integers(-(10**6), 10**6))
def test_time_never_runs_back_in_a_bucket_that_is_believed(bucket: Bucket, ahead: int, skew: int) -> None:
    tat, now = START + ahead, START + skew
    if bucket.state(tat, now) in {BucketState.IDLE, BucketState.ACTIVE}:
        assert bucket.taken(tat, now) > tat


@given(st.floats(0.001, 5_000), st.integers(1, 1_000), st.integers(1, 64))
def test_shards_have_the_whole_rate_and_burst_together(per_second: float, burst: int, shards: int) -> None:
    whole = Bucket.of(Rate(per_second, burst))
    parts = [Bucket.of(Rate(per_second, burst), shards, shard) for shard in range(shards)]
    assert sum(part.burst for part in parts) == max(burst, shards)
    together = sum(1 / part.interval_us for part in parts)
    assert together <= per_second / 1_000_000 * (1 + 1e-9)
    # Rounding an interval up by a microsecond at most is all that is lost.
    assert together >= 1 / (whole.interval_us + 1) * (1 - 1e-9)


@pytest.mark.parametrize("per_second", [0, -1, nan])
def test_a_rate_that_lets_nothing_pass_is_no_rate(per_second: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Bucket.of(Rate(per_second, 10))


def test_extreme_rates_have_a_bucket() -> None:
    assert Bucket.of(Rate(inf, 0)) == Bucket(interval_us=1, burst=1)
    assert Bucket.of(Rate(50, 100)) == Bucket(interval_us=20_000, burst=100)
    assert Bucket.of(Rate(3, 1)) == Bucket(interval_us=333_334, burst=1)


def test_the_four_states() -> None:
    bucket = Bucket(interval_us=100, burst=3)
    assert bucket.state(None, START) is BucketState.IDLE
    assert bucket.state(START, START) is BucketState.IDLE
    assert bucket.state(START + 1, START) is BucketState.ACTIVE
    assert bucket.state(START + 200, START) is BucketState.ACTIVE
    assert bucket.state(START + 201, START) is BucketState.EMPTY
    assert bucket.state(START + 300 + STALE_AFTER_US, START) is BucketState.EMPTY
    assert bucket.state(START + 301 + STALE_AFTER_US, START) is BucketState.STALE


def test_an_empty_bucket_gives_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        Bucket(interval_us=100, burst=1).taken(START + 1, START)


def test_what_another_plan_left_is_an_empty_bucket_that_gives_one() -> None:
    bucket = Bucket(interval_us=100, burst=3)
    left = START + 10 * STALE_AFTER_US
    assert bucket.wait_us(left, START) == 0
    after = bucket.taken(left, START)
    assert bucket.remaining(after, START) == 0
    assert bucket.wait_us(after, START) == 100


def test_an_environment_whose_clock_is_ahead_gains_its_skew_once() -> None:
    bucket, tat, passed = Bucket(interval_us=10_000, burst=5), None, 0
    skew = 50_000
    for step in range(1_000):
        now = START + step * 1_000
        for clock in (now, now + skew):
            if bucket.state(tat, clock) is not BucketState.EMPTY:
                tat, passed = bucket.taken(tat, clock), passed + 1
    assert passed <= 5 + (1_000_000 + skew) / 10_000
