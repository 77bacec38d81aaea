"""The cost model: what it predicts, and which batch size it prefers."""

from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_service.scheduling.cost import CostModel


def learned(cost: Callable[[int], float], sizes: list[int], times: int = 20) -> CostModel:
    model = CostModel()
    for _ in range(times):
        for rows in sizes:
            model.observe(rows, cost(rows))
    return model


def settled(model: CostModel, cost: Callable[[int], float], limit: int, batches: int = 100) -> int:
    """The size that a busy server comes to: every batch is as large as the model likes."""
    for _ in range(batches):
        rows = model.best_rows(limit)
        model.observe(rows, cost(rows))
    return model.best_rows(limit)


def linear(rows: int) -> float:
    return 0.001 + 0.0001 * rows


def test_nothing_known_predicts_nothing() -> None:
    model = CostModel()
    assert model.predict(64) == 0.0
    assert model.predicted_finish(rows=1, waiting=1000, running=64, callers=2) == 0.0
    assert model.best_rows(64) == 64


@given(st.integers(1, 5000))
def test_unknown_sizes_lie_on_the_line(rows: int) -> None:
    model = learned(linear, [1, 7, 20, 64])
    assert model.predict(rows) == pytest.approx(linear(rows), rel=0.1)


def test_one_known_size_scales() -> None:
    model = learned(lambda _: 0.08, [8])
    assert model.predict(8) == pytest.approx(0.08)
    assert model.predict(80) == pytest.approx(0.8)


@given(st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 100)), min_size=1, max_size=80), st.integers(1, 4000))
def test_predictions_are_finite_and_never_negative(runs: list[tuple[int, float]], rows: int) -> None:
    model = CostModel()
    for size, seconds in runs:
        model.observe(size, seconds)
    assert 0.0 <= model.predict(rows) < 1e9
    assert 1 <= model.best_rows(rows) <= rows
    assert 0.0 <= model.predicted_finish(rows=1, waiting=rows, running=0, callers=2) < 1e12


def test_a_slow_first_run_is_soon_forgotten() -> None:
    model = CostModel()
    model.observe(4, 3.0)
    for _ in range(12):
        model.observe(4, 0.01)
    assert model.predict(4) < 0.02


def test_one_run_that_was_held_up_changes_little() -> None:
    model = learned(lambda _: 0.01, [4])
    model.observe(4, 5.0)
    assert model.predict(4) < 0.02


def test_a_lasting_change_is_followed() -> None:
    model = learned(lambda _: 0.01, [4])
    for _ in range(80):
        model.observe(4, 0.05)
    assert model.predict(4) == pytest.approx(0.05, rel=0.05)


def test_a_model_that_gains_nothing_from_batches_runs_small_ones() -> None:
    assert settled(learned(lambda n: 0.02 * n, [1], 1), lambda n: 0.02 * n, 1024) == 1


def test_a_gain_too_small_to_wait_for_is_left() -> None:
    assert learned(lambda n: 0.01 * n * (1 - 0.009 * (n.bit_length() - 1)), [1, 2, 4, 8]).best_rows(1024) == 1


def test_a_model_that_gains_from_batches_comes_to_large_ones() -> None:
    assert settled(learned(linear, [1], 1), linear, 1024) >= 256
    assert settled(learned(linear, [1], 1), linear, 48) == 48


def test_the_size_beyond_which_a_row_costs_more_is_found() -> None:
    def cost(rows: int) -> float:
        return 0.004 + 0.001 * rows + (0.002 * (rows - 32) if rows > 32 else 0.0)  # leaves the cache above 32 rows

    assert settled(learned(cost, [1], 1), cost, 1024) == 32


def test_a_size_that_seemed_bad_once_is_tried_again() -> None:
    noise = cycle([0.98, 1.01, 0.99, 1.02, 1.0, 0.985, 1.015])

    def calm(rows: int) -> float:
        return linear(rows) * next(noise)

    model = learned(linear, [1, 2, 4], 5)
    for _ in range(3):
        model.observe(8, 10.0)
    assert model.best_rows(1024) == 4
    assert settled(model, calm, 64, 2000) >= 32


def test_a_batch_leaves_time_to_wait_for_others_where_smaller_ones_are_as_quick() -> None:
    by_row = learned(lambda n: 0.01 * n * 0.9 ** (n.bit_length() - 1), [1, 2, 4, 8, 16])
    assert by_row.best_rows(16) == by_row.best_rows(16, 10.0) == 16
    assert by_row.best_rows(16, 0.25) < 16
    assert by_row.best_rows(16, 0.001) == 1


def test_a_batch_that_shares_a_fixed_cost_takes_more_of_the_time() -> None:
    shared = learned(lambda n: 0.1 + 0.001 * n, [1, 2, 4, 8, 16])
    assert shared.best_rows(16, 0.25) == 16
    assert shared.best_rows(16, 0.15) == 1


def test_exploring_ends_though_nobody_sends_so_much() -> None:
    model = learned(linear, [1, 2, 4, 8, 16], 60)
    for _ in range(1000):
        model.observe(2, linear(2))
    sizes = set()
    for _ in range(600):
        sizes.add(model.best_rows(1 << 20))
        model.observe(2, linear(2))
    assert max(sizes) <= 64


def test_finish_counts_what_is_ahead() -> None:
    model = learned(lambda n: 0.01 * n, [1, 2, 4, 8, 16])  # one row a batch is best
    assert model.predicted_finish(rows=1, waiting=0, running=0, callers=2) == pytest.approx(0.01)
    assert model.predicted_finish(rows=1, waiting=10, running=0, callers=1) == pytest.approx(0.11)
    assert model.predicted_finish(rows=1, waiting=10, running=0, callers=2) == pytest.approx(0.06)
    assert model.predicted_finish(rows=1, waiting=0, running=1, callers=1) == pytest.approx(0.015)
    assert model.predicted_finish(rows=16, waiting=0, running=0, callers=1) == pytest.approx(0.16, rel=0.1)


def test_finish_shares_the_batch_that_forms() -> None:
    model = learned(linear, [1, 2, 4, 8, 16, 32, 64], 30)
    alone = model.predicted_finish(rows=1, waiting=0, running=0, callers=1, limit=64)
    joined = model.predicted_finish(rows=1, waiting=20, running=0, callers=1, limit=64)
    behind = model.predicted_finish(rows=1, waiting=64 * 3, running=0, callers=1, limit=64)
    assert alone == pytest.approx(linear(1), rel=0.05)
    assert joined == pytest.approx(linear(21), rel=0.1)
    # While it waits for three batches, others fill its own.
    assert behind == pytest.approx(4 * linear(64), rel=0.1)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 64))
def test_more_ahead_is_never_quicker(waiting: int, more: int, running: int) -> None:
    model = learned(lambda n: 0.01 * n, [1, 2, 4, 8])
    one = model.predicted_finish(rows=1, waiting=waiting, running=running, callers=2)
    assert model.predicted_finish(rows=1, waiting=waiting + more, running=running, callers=2) >= one - 1e-9


def test_a_refusal_in_some_may_prove_the_prediction_wrong() -> None:
    model = CostModel()
    assert sum(model.may_probe() for _ in range(64)) == 4
