"""`auto` chooses the cheapest backend that is expected to be in time."""

from collections.abc import Mapping

import pytest

from shared.domain.endpoint.auto import Estimate, Work, choose_backend
from shared.domain.endpoint.config import AutoRouting
from shared.domain.endpoint.latency import Latencies
from tests.functions.support import published

AUTO = AutoRouting(function_max_rows=8, function_max_bytes=1000)
PRICES = {"function": 10.0, "container": 1.0, "gpu": 5.0}


def choose(
    known: Mapping[str, Estimate], *, rows: int = 1, size: int = 10, deadline_ms: float = 100, draw: float = 1.0
) -> str | None:
    return choose_backend(
        list(known),
        AUTO,
        Work(rows, size, deadline_ms),
        estimate=known.__getitem__,
        cost=lambda name, ms: PRICES[name] * ms,
        draw=draw,
    )


def test_the_cheapest_in_time_wins() -> None:
    known = {"function": Estimate(5, 4), "container": Estimate(40, 30), "gpu": Estimate(20, 10)}
    assert choose(known) == "container"  # 40 against 50 and 100
    assert choose(known, deadline_ms=30) == "function"  # the container would be late
    assert choose(known, deadline_ms=10) == "function"


@pytest.mark.parametrize(("rows", "size"), [(9, 10), (1, 1001)])
def test_large_requests_stay_out_of_the_function(rows: int, size: int) -> None:
    known = {"function": Estimate(1, 1), "gpu": Estimate(50, 40)}
    assert choose(known, rows=rows, size=size) == "gpu"
    assert choose({"function": Estimate(1, 1)}, rows=rows, size=size) == "function"  # there is nothing else


def test_what_nothing_is_known_of_is_tried_now_and_then() -> None:
    known = {"function": Estimate(5, 4), "gpu": Estimate()}
    assert choose(known, draw=0.5) == "function"
    assert choose(known, draw=0.01) == "gpu"
    assert choose({"function": Estimate(500, 400), "gpu": Estimate()}, draw=0.5) == "gpu"
    assert choose({"function": Estimate(), "gpu": Estimate()}) == "function"


def test_none_is_chosen_only_if_none_can_be_in_time() -> None:
    assert choose({"function": Estimate(120, 90), "gpu": Estimate(110, 95)}) == "gpu"  # either may be, just
    assert choose({"function": Estimate(300, 200), "gpu": Estimate(400, 101)}) is None
    assert choose({"function": Estimate(300)}) == "function"  # one slow call says nothing against it


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_latencies_follow_the_rows_and_the_spread() -> None:
    latencies, version = Latencies(), published()
    for number in range(60):
        rows = 1 + number % 10
        latencies.note("gpu", version, rows, 5 + 2 * rows + (number % 3 - 1) * 0.1)
    for rows in (1, 5, 10, 20):
        expected, least = latencies.expected_ms("gpu", version, rows), latencies.least_ms("gpu", version, rows)
        assert expected is not None
        assert least is not None
        assert least < 5 + 2 * rows < expected
        assert expected - least < 3
    assert latencies.expected_ms("function", version, 1) is None
    assert latencies.expected_ms("gpu", published("other"), 1) is None


def test_the_call_that_loaded_the_model_is_forgotten() -> None:
    latencies, version = Latencies(), published()
    for ms in (900.0, 5.0, 5.2, 4.9):
        latencies.note("function", version, 1, ms)
    expected = latencies.expected_ms("function", version, 1)
    assert expected is not None
    assert expected < 10


def test_what_was_seen_a_minute_ago_is_forgotten() -> None:
    clock, version = _Clock(), published()
    latencies = Latencies(clock)
    for _ in range(5):
        latencies.note("gpu", version, 1, 5000.0)
    assert latencies.least_ms("gpu", version, 1) is not None
    clock.now = 61.0
    assert latencies.expected_ms("gpu", version, 1) is None
    assert latencies.least_ms("gpu", version, 1) is None


def test_latencies_are_bounded() -> None:
    latencies = Latencies()
    for number in range(1100):
        latencies.note(f"b{number}", published(), 1, 1.0)
    assert latencies.expected_ms("b0", published(), 1) is None
    assert latencies.expected_ms("b1099", published(), 1) is not None


def test_what_is_hopeless_was_seen_to_be_so_just_now() -> None:
    clock, version = _Clock(), published()
    latencies = Latencies(clock)
    for _ in range(5):
        latencies.note("gpu", version, 1, 800.0)
    clock.now = 4.0
    assert latencies.least_ms("gpu", version, 1, within_s=5.0) is not None
    clock.now = 6.0
    assert latencies.least_ms("gpu", version, 1, within_s=5.0) is None
    assert latencies.least_ms("gpu", version, 1) is not None


def test_what_is_usual_is_not_forgotten_and_grows_with_the_rows() -> None:
    clock, version = _Clock(), published()
    latencies = Latencies(clock)
    assert latencies.usual_ms("gpu", version, 1) is None
    assert not latencies.is_settled("gpu", version)
    for _ in range(2):
        latencies.note("gpu", version, 2, 100.0)
    assert not latencies.is_settled("gpu", version)
    latencies.note("gpu", version, 2, 100.0)
    assert latencies.is_settled("gpu", version)
    clock.now = 1e6
    assert [latencies.usual_ms("gpu", version, rows) for rows in (1, 2, 20)] == [100.0, 100.0, 1000.0]
    assert not latencies.is_settled("gpu", version)
