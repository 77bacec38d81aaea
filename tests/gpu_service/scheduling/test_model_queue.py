"""Admission by deadline: who is refused at once, who is given up while it waits, and what is learned from that."""

from math import inf
from time import monotonic
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.scheduling.cost import CostModel
from gpu_service.scheduling.errors import CallerGone, DeadlinePassed, Overloaded
from gpu_service.scheduling.model_queue import Batching, ModelQueue, QueueLimits
from gpu_service.telemetry.stats import ModelStats
from shared.codecs.content.decoded import Decoded
from shared.domain.validation import Inputs

ROW_S = 1.0  # long, so that what the test itself takes does not count


class Bench:
    """A queue whose model takes a second a row, and that nobody takes from but the test."""

    def __init__(self, **batching: Any) -> None:
        cost = CostModel()
        for _ in range(20):
            for rows in (1, 2, 4):
                cost.observe(rows, rows * ROW_S)
        executor: Any = SimpleNamespace(wake=lambda queue: None)
        self.queue = ModelQueue(executor, Batching(64, **batching), cost, QueueLimits(), ModelStats())
        self.answered: list[InferenceRequest] = []

    def submit(self, deadline_s: float = inf, tenant: str = "") -> InferenceRequest:
        inputs = {"x": np.zeros((1, 1), np.float32)}
        call = Call(deadline_ms=None if deadline_s == inf else deadline_s * 1e3, tenant=tenant)
        model: Any = None
        now = monotonic()
        request = InferenceRequest(call, model, Decoded(Inputs({})), inputs, 1, 4, None, now, self.answered.append)
        self.queue.submit(request)
        return request


def refused(bench: Bench, deadline_s: float) -> bool:
    try:
        bench.submit(deadline_s)
    except Overloaded:
        return True
    return False


def test_only_what_fits_before_the_deadline_is_let_in() -> None:
    bench = Bench()
    for _ in range(10):
        bench.submit()
    assert refused(bench, 10.0)  # ten ahead and its own
    assert not refused(bench, 20.0)
    assert not refused(bench, inf)
    with pytest.raises(DeadlinePassed):
        bench.submit(0.0)


def test_what_runs_counts() -> None:
    bench = Bench()
    bench.submit()
    bench.queue.take(1)
    assert refused(bench, 1.4)
    assert not refused(bench, 3.0)


def test_what_runs_for_longer_than_it_should_counts_the_more() -> None:
    bench = Bench(callers=2)
    for _ in range(2):
        bench.submit()
        bench.queue.take(1)
    assert not refused(bench, 20.0)
    bench.queue.take(64)
    bench.queue._begun -= 30.0
    assert refused(bench, 20.0)
    assert not refused(bench, 100.0)


def test_one_that_would_be_late_is_given_up_before_its_deadline() -> None:
    bench = Bench()
    bench.submit()
    bench.queue.take(1)
    late = bench.submit(5.0)
    patient = bench.submit()
    bench.queue.sweep(late.deadline - 1.5 * ROW_S)
    assert bench.answered == []
    bench.queue.sweep(late.deadline - 0.5 * ROW_S)
    assert bench.answered == [late]
    assert isinstance(late.error, Overloaded)
    assert bench.queue.take(64) == [patient]


def test_one_that_was_let_in_though_it_seemed_hopeless_is_not_given_up() -> None:
    """Else a prediction that is wrong would never be corrected."""
    bench = Bench()
    for _ in range(100):
        if not refused(bench, ROW_S):
            break
    (probe,) = bench.queue.take(64)
    assert probe.deadline < monotonic() + ROW_S
    assert bench.answered == []


def test_who_has_gone_and_whose_time_is_over_are_told_so() -> None:
    bench = Bench()
    bench.submit()
    bench.queue.take(1)
    gone, over = bench.submit(100.0), bench.submit(100.0)
    gone.cancelled = True
    over.deadline = monotonic() - 1.0
    bench.queue.sweep(monotonic())
    assert isinstance(gone.error, CallerGone)
    assert isinstance(over.error, DeadlinePassed)


def test_a_wait_that_took_too_long_makes_cautious() -> None:
    bench = Bench()
    for _ in range(5):
        bench.submit()
    trust = bench.queue.margin.factor
    waiting = bench.submit(12.0)
    assert waiting.begins_by
    waiting.begins_by = monotonic() - 1.0  # as if it had waited for long
    bench.queue.take(5)
    bench.queue.take(1)
    assert bench.queue.margin.factor > trust


def test_a_wait_far_from_its_limit_teaches_nothing() -> None:
    bench = Bench()
    bench.submit()
    assert not bench.submit(1000.0).begins_by
    assert not bench.submit().begins_by


def test_batches_leave_time_to_wait_for_others() -> None:
    bench = Bench()
    for _ in range(8):
        bench.queue.cost.observe(8, 7.0 * ROW_S)  # a little quicker for each row
    bench.submit(1000.0)
    assert bench.queue.cost.best_rows(8, bench.queue.seconds_to_answer) == 8
    assert bench.queue.cost.best_rows(8, 20.0) == 4
    assert bench.queue.cost.best_rows(8, 2.0) == 1
