"""Joining and the cache: one run for identical requests, each caller's own deadline and departure."""

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, cast

import numpy as np
import pytest

from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.inference.sharing import Flight, Sharing, sharing_for
from gpu_service.models.served_model import ModelKey, ServedModel
from gpu_service.scheduling.errors import CallerGone, DeadlinePassed, Overloaded
from gpu_service.telemetry.stats import ModelStats
from shared.codecs.content.decoded import Decoded
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, NotFinite, SluiceError
from shared.domain.serving import CachePolicy, ServingPolicy
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array
from shared.domain.validation import Inputs

SPEC = TensorSpec("x", DType.FP32, (None, 2))
SIGNATURE = Signature((SPEC,), (TensorSpec("y", DType.FP32, (None, 2)),))
JOIN = ServingPolicy(join=True)
CACHE = ServingPolicy(cache=CachePolicy(100_000))
BOTH = ServingPolicy(join=True, cache=CachePolicy(100_000))


class FakeQueue:
    """Holds what is submitted until the test lands it; drops the dead as the real one does."""

    def __init__(self) -> None:
        self.waiting: list[InferenceRequest] = []
        self.refusal: SluiceError | None = None

    def submit(self, request: InferenceRequest) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.waiting.append(request)

    def land(self, error: SluiceError | None = None) -> None:
        """Run the first; the outputs are its inputs plus one."""
        request = self.waiting.pop(0)
        request.started = monotonic()
        if error is None:
            request.result = {"y": request.inputs["x"] + 1}
        request.error = error
        self.answer(request)

    def sweep(self) -> None:
        now = monotonic()
        for request in [r for r in self.waiting if r.cancelled or r.deadline <= now]:
            self.waiting.remove(request)
            request.error = CallerGone("gone") if request.cancelled else DeadlinePassed("late")
            self.answer(request)

    @staticmethod
    def answer(request: InferenceRequest) -> None:
        request.answered = True
        request.finished = monotonic()
        request.done(request)


class Bench:
    def __init__(self, policy: ServingPolicy) -> None:
        self.queue = FakeQueue()
        self.stats = ModelStats()
        sharing = sharing_for(ModelKey("m", 1), SIGNATURE, policy, self.queue, self.stats)
        assert sharing is not None
        self.sharing: Sharing = sharing
        self.answered: list[InferenceRequest] = []

    def ask(
        self,
        value: float = 1.0,
        *,
        tenant: str = "t",
        deadline_ms: float | None = None,
        priority: int = 0,
        parameters: dict[str, Any] | None = None,
        locate: Callable[[str, tuple[int, ...]], str] | None = None,
    ) -> InferenceRequest:
        inputs: dict[str, Array] = {"x": np.full((1, 2), value, dtype=np.float32)}
        given = Inputs(inputs) if locate is None else Inputs(inputs, locate)
        call = Call("m", deadline_ms=deadline_ms, tenant=tenant, priority=priority)
        decoded = Decoded(given, parameters=parameters)
        request = InferenceRequest(
            call, cast(ServedModel, None), decoded, inputs, 1, 8, None, monotonic(), self.answered.append
        )
        self.sharing.submit(request)
        assert not request.answered  # never before submit has returned
        return request

    def check_done(self, *requests: InferenceRequest) -> None:
        """Each of them, and nobody else, has been answered, once."""
        assert sorted(map(id, self.answered)) == sorted(map(id, requests))
        for request in requests:
            assert request.answered
            assert (request.result is None) != (request.error is None)
        assert not self.sharing._timers or any(not request.answered for request in self.sharing._timers)


def values(request: InferenceRequest) -> list[list[float]]:
    assert request.error is None
    assert request.result is not None
    return cast("list[list[float]]", request.result["y"].tolist())


def test_nothing_is_shared_unless_the_manifest_says_so() -> None:
    assert sharing_for(ModelKey("m", 1), SIGNATURE, ServingPolicy(), FakeQueue(), ModelStats()) is None


async def _joined_run() -> None:
    bench = Bench(JOIN)
    requests = [bench.ask() for _ in range(5)]
    assert len(bench.queue.waiting) == 1
    bench.queue.land()
    bench.check_done(*requests)
    assert [values(request) for request in requests] == [[[2.0, 2.0]]] * 5
    assert bench.stats.joins == 4
    results = [request.result for request in requests]
    assert len({id(result) for result in results}) == 5
    assert requests[0].result is not None
    assert not requests[0].result["y"].flags.writeable
    bench.ask()
    assert len(bench.queue.waiting) == 1  # what has landed is no longer joined


def test_identical_requests_in_flight_run_once() -> None:
    asyncio.run(_joined_run())


@pytest.mark.parametrize("change", [{"value": 2.0}, {"tenant": "u"}, {"parameters": {"a": 1}}, {"priority": -1}])
def test_others_run_by_themselves(change: dict[str, Any]) -> None:
    async def run() -> None:
        bench = Bench(BOTH)
        one, two = bench.ask(), bench.ask(**change)
        assert len(bench.queue.waiting) == 2
        bench.queue.land()
        bench.queue.land()
        bench.check_done(one, two)

    asyncio.run(run())


def test_a_leader_that_goes_takes_nobody_along() -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        leader, follower = bench.ask(), bench.ask()
        flight = bench.queue.waiting[0]
        leader.cancelled = True
        bench.queue.sweep()
        assert bench.queue.waiting == [flight]
        bench.queue.land()
        bench.check_done(leader, follower)
        assert isinstance(leader.error, CallerGone)
        assert values(follower) == [[2.0, 2.0]]

    asyncio.run(run())


def test_when_all_have_gone_the_run_is_dropped() -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        requests = [bench.ask(), bench.ask()]
        for request in requests:
            request.cancelled = True
        bench.queue.sweep()
        assert not bench.queue.waiting
        bench.check_done(*requests)
        assert all(isinstance(request.error, CallerGone) for request in requests)

    asyncio.run(run())


def test_everybody_keeps_their_own_deadline() -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        leader, follower, patient = bench.ask(deadline_ms=20), bench.ask(deadline_ms=40), bench.ask()
        flight = bench.queue.waiting[0]
        assert flight.deadline == inf
        while not follower.answered:
            await asyncio.sleep(0.005)
            bench.queue.sweep()
        assert isinstance(leader.error, DeadlinePassed)
        assert isinstance(follower.error, DeadlinePassed)
        assert not patient.answered
        bench.queue.land()
        bench.check_done(leader, follower, patient)
        assert values(patient) == [[2.0, 2.0]]

    asyncio.run(run())


def test_a_lone_request_expires_in_the_queue() -> None:
    async def run() -> None:
        bench = Bench(CACHE)
        request = bench.ask(deadline_ms=0)
        bench.queue.sweep()
        bench.check_done(request)
        assert isinstance(request.error, DeadlinePassed)

    asyncio.run(run())


@pytest.mark.parametrize("refused", [False, True])
def test_who_joins_a_run_that_was_given_up_gets_another(refused: bool) -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        leader = bench.ask()
        leader.cancelled = True
        follower = bench.ask()
        late = bench.ask()
        if refused:
            bench.queue.refusal = Overloaded("full", retry_after_s=1.0)
        bench.queue.land(CallerGone("nobody waited when the run was stopped"))
        if refused:
            bench.check_done(leader, follower, late)
            assert isinstance(follower.error, Overloaded)
            assert isinstance(leader.error, CallerGone)
            return
        bench.check_done(leader)
        last = bench.ask()
        assert len(bench.queue.waiting) == 1
        bench.queue.land()
        bench.check_done(leader, follower, late, last)
        assert values(follower) == values(late) == values(last)
        assert bench.sharing._joined == bench.sharing._joined_bytes == 0

    asyncio.run(run())


def test_a_second_run_is_the_last() -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        requests = [bench.ask(), bench.ask()]
        bench.queue.land(DeadlinePassed("stopped"))
        bench.queue.land(DeadlinePassed("stopped again"))
        assert not bench.queue.waiting
        bench.check_done(*requests)

    asyncio.run(run())


def test_an_error_is_shared_and_not_kept() -> None:
    async def run() -> None:
        bench = Bench(BOTH)
        requests = [bench.ask(), bench.ask()]
        bench.queue.land(BackendError("broken"))
        bench.check_done(*requests)
        assert all(isinstance(request.error, BackendError) for request in requests)
        bench.ask()
        assert len(bench.queue.waiting) == 1
        assert bench.sharing.cache_bytes == 0

    asyncio.run(run())


def test_a_wrong_value_is_found_where_each_caller_put_it() -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        one = bench.ask(np.nan, locate=lambda name, index: "/one")
        two = bench.ask(np.nan, locate=lambda name, index: "/two")
        bench.queue.land(NotFinite.at("/one", "is not a finite number"))
        bench.check_done(one, two)
        assert [request.error.fields[0].pointer for request in (one, two) if request.error] == ["/one", "/two"]

    asyncio.run(run())


def test_a_refusal_reaches_the_caller_and_leaves_nothing_to_join() -> None:
    async def run() -> None:
        bench = Bench(BOTH)
        bench.queue.refusal = Overloaded("full", retry_after_s=1.0)
        with pytest.raises(Overloaded):
            bench.ask()
        bench.queue.refusal = None
        request = bench.ask()
        bench.queue.land()
        bench.check_done(request)

    asyncio.run(run())


def test_what_was_answered_is_answered_again_without_a_run() -> None:
    async def run() -> None:
        bench = Bench(CACHE)
        first = bench.ask()
        bench.queue.land()
        second = bench.ask()
        assert not bench.queue.waiting
        await asyncio.sleep(0)
        bench.check_done(first, second)
        assert values(first) == values(second)
        assert (bench.stats.cache_hit.count, bench.stats.cache_miss.count) == (1, 1)
        assert bench.sharing.cache_bytes > 0
        bench.ask(tenant="u")
        assert len(bench.queue.waiting) == 1

    asyncio.run(run())


def test_without_joining_identical_requests_in_flight_run_each() -> None:
    async def run() -> None:
        bench = Bench(CACHE)
        requests = [bench.ask(), bench.ask()]
        assert len(bench.queue.waiting) == 2
        bench.queue.land()
        bench.queue.land()
        bench.check_done(*requests)

    asyncio.run(run())


def test_what_waits_to_be_joined_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        for _ in range(5):
            bench.ask()
        assert len(bench.queue.waiting) == 3  # two joined the first; then each goes by itself
        assert [len(cast(Flight, flight).members) for flight in bench.queue.waiting] == [3, 1, 1]
        for _ in range(3):
            bench.queue.land()
        assert len(bench.answered) == 5
        assert bench.sharing._joined == bench.sharing._joined_bytes == 0

    monkeypatch.setattr("gpu_service.inference.sharing._MAX_JOINED", 2)
    asyncio.run(run())


def test_a_more_urgent_request_does_not_wait_in_anothers_place() -> None:
    async def run() -> None:
        bench = Bench(JOIN)
        slow, urgent, joined = bench.ask(priority=5), bench.ask(priority=1), bench.ask(priority=5)
        assert [flight.priority for flight in bench.queue.waiting] == [5, 1]
        bench.queue.waiting.reverse()
        bench.queue.land()
        bench.check_done(urgent, joined)
        bench.queue.land()
        bench.check_done(urgent, joined, slow)

    asyncio.run(run())
