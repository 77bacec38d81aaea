"""How far predictions are trusted."""

from itertools import cycle, islice

from hypothesis import given
from hypothesis import strategies as st

from gpu_service.scheduling.margin import WaitMargin


@given(st.lists(st.booleans(), max_size=300))
def test_it_stays_within_its_bounds(seen: list[bool]) -> None:
    margin = WaitMargin()
    for kept in seen:
        margin.learn(kept=kept)
        assert 1.25 <= margin.factor <= 3.0


def test_misses_raise_it_at_once_and_what_is_kept_lowers_it_slowly() -> None:
    margin = WaitMargin()
    for _ in range(20):
        margin.learn(kept=False)
    assert margin.factor == 3.0
    for _ in range(100):
        margin.learn(kept=True)
    assert margin.factor > 2.8
    for _ in range(10_000):
        margin.learn(kept=True)
    assert margin.factor == 1.25


def test_it_settles_where_few_waits_are_longer() -> None:
    """Of waits that take one to two times their prediction, evenly spread, about a two-hundredth is missed."""
    margin = WaitMargin()
    ratios = list(islice(cycle(1.0 + (37 * number % 1000) / 1000 for number in range(1000)), 50_000))
    missed = 0
    for number, ratio in enumerate(ratios):
        kept = ratio <= margin.factor
        missed += not kept and number >= 10_000
        margin.learn(kept=kept)
    assert 0.0025 < missed / 40_000 < 0.01
