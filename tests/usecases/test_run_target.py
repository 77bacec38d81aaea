"""One target in bad times: circuits, places, retries, hedges, deadlines; backends fail as they are told."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event, current_thread
from time import monotonic, sleep

import pytest

from shared.domain.endpoint.config import BreakerSettings, EndpointLimits, Fallback, Hedge, Retries
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    CircuitOpen,
    InvalidRequest,
    Overloaded,
    SluiceError,
)
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors
from shared.usecases.attempt import Tally
from shared.usecases.shared_guards import places_of
from tests.fakes import InMemoryGuards
from tests.usecases.environment import CONFIG, DOWN, Env
from tests.usecases.targets import (
    INPUTS,
    LONG_MS,
    Scripted,
    fails,
    hangs,
    settle,
    takes,
    target,
    version,
    within,
    works,
)


@pytest.fixture
def go() -> Iterator[Event]:
    """Backends that hang do so until this is set, at the end of the test."""
    event = Event()
    yield event
    event.set()


# ------------------------------------------------------------------------------------------------------ in good times
def test_the_outputs_and_what_they_took() -> None:
    env = Env(gpu=Scripted(takes(0.01)))
    ran = env()
    assert ran.outputs["y"].tolist() == [[2.0], [4.0]]
    assert (ran.target, ran.attempts, ran.hedged, ran.fallback, ran.reason) == (target(), 1, False, None, None)
    assert ran.ms >= 10
    assert env.guards.calls == []


def test_what_was_measured_is_kept_by_backend() -> None:
    env = Env(gpu=Scripted(takes(0.01)))
    assert env.latencies.expected_ms("gpu", version(), 2) is None
    env()
    expected = env.latencies.expected_ms("gpu", version(), 2)
    assert expected is not None
    assert expected >= 10


def test_the_backend_is_told_what_is_left_of_the_time() -> None:
    backend = Scripted(fails(DOWN), works)
    env = Env(gpu=backend)
    env.run._pause = lambda _: sleep(0.03)
    env(replace(CONFIG, retries=Retries(attempts=1)), context=within(5_000))
    first, second = (context.deadline_ms for context in backend.contexts)
    assert first <= 5_000
    assert second <= first - 29
    assert all(replace(context, deadline_ms=0) == within(0) for context in backend.contexts)


def test_without_time_nothing_is_called() -> None:
    backend = Scripted()
    with pytest.raises(BackendTimeout):
        Env(gpu=backend)(context=within(0))
    assert not backend.calls


def test_a_backend_that_is_not_there() -> None:
    with pytest.raises(BackendUnavailable, match="no backend gpu"):
        Env()()


# ------------------------------------------------------------------------------------------------------- the deadline
def test_a_backend_that_hangs_is_given_up_and_learnt_from_later(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go)))
    with pytest.raises(BackendTimeout):
        env(context=within(50))
    assert env.latencies.expected_ms("gpu", version(), 2) is None
    go.set()
    settle(env.runner, "m/gpu")
    expected = env.latencies.expected_ms("gpu", version(), 2)
    assert expected is not None
    assert expected >= 50


def test_a_dead_backend_keeps_at_most_eight_calls_and_no_other_endpoint_waiting(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go)), other=Scripted())
    config = replace(CONFIG, breaker=BreakerSettings(enabled=False))
    assert [env.outcome(config, context=within(20)) for _ in range(9)] == ["backend_timeout"] * 8 + ["overloaded"]
    assert env.outcome(config, to=target(backend="other")) == "ok"
    assert env.outcome(replace(config, endpoint="n"), context=within(20)) == "backend_timeout"


def test_what_runs_in_the_function_needs_no_thread_once_it_is_known_to_be_quick() -> None:
    threads: list[str] = []
    env = Env(function=Scripted(lambda: threads.append(current_thread().name)))
    here = target(backend="function")
    for _ in range(10):
        env(to=here)
    assert threads[:3] == ["call m/function"] * 3
    assert threads[-1] == current_thread().name
    for _ in range(20):
        env.latencies.note("function", here.version, 2, 5_000.0)
    env(to=here, context=within(10_000))
    assert threads[-1] == "call m/function"


def test_a_model_that_has_to_be_loaded_is_not_waited_for_nor_measured(go: Event) -> None:
    env = Env(ready=False, function=Scripted(hangs(go), works))
    with pytest.raises(BackendTimeout):
        env(to=target(backend="function"), context=within(30))
    go.set()
    env(to=target(backend="function"))
    settle(env.runner, "m/function")
    assert env.latencies.expected_ms("function", version(), 2) is None


# ---------------------------------------------------------------------------------------------------------- circuits
def test_a_circuit_opens_closes_and_is_shared_in_two_writes() -> None:
    backend = Scripted(*[fails(DOWN)] * 3, works)
    env = Env(gpu=backend)
    assert [env.outcome() for _ in range(5)] == ["backend_unavailable"] * 3 + ["circuit_open"] * 2
    assert backend.calls == 3
    assert env.guards.open_until == {"m": {"gpu/main": env.clock.now + 5}}
    env.clock.now += 5
    assert [env.outcome() for _ in range(3)] == ["ok"] * 3
    assert env.guards.open_until == {"m": {}}
    assert env.guards.calls == ["open", "close"]


def test_another_environment_leaves_the_backend_alone_and_closes_it_for_all() -> None:
    guards, healthy = InMemoryGuards(), Scripted()
    one, other = Env(guards, gpu=Scripted(fails(DOWN))), Env(guards, gpu=healthy)
    assert [one.outcome(shared=True) for _ in range(3)] == ["backend_unavailable"] * 3
    assert [env.outcome(shared=True) for env in (one, other)] == ["circuit_open"] * 2
    assert not healthy.calls
    other.clock.now += 5
    assert other.outcome(shared=True) == "ok"
    assert guards.open_until == {"m": {}}
    # The one that opened it sees that others closed it, and tries before its own time is over.
    assert one.outcome(shared=True) == "backend_unavailable"


def test_an_environment_with_stale_knowledge_finds_out_by_itself() -> None:
    guards = InMemoryGuards()
    one, stale = Env(guards, gpu=Scripted(fails(DOWN))), Env(guards, gpu=Scripted(fails(DOWN)))
    for _ in range(3):
        one.outcome(shared=True)
    assert [stale.outcome(open_until={}) for _ in range(4)] == ["backend_unavailable"] * 3 + ["circuit_open"]


def test_variants_and_backends_have_circuits_of_their_own() -> None:
    env = Env(gpu=Scripted(*[fails(DOWN)] * 3, works), other=Scripted())
    for _ in range(3):
        env.outcome()
    assert env.outcome() == "circuit_open"
    assert env.outcome(to=target(variant="next")) == "ok"
    assert env.outcome(to=target(backend="other")) == "ok"
    assert env.outcome(replace(CONFIG, endpoint="n")) == "ok"


def test_the_function_s_own_circuit_is_nobody_else_s_business() -> None:
    env = Env(function=Scripted(fails(BackendError("The model failed while it ran."))))
    here = target(backend="function")
    assert [env.outcome(to=here) for _ in range(4)] == ["backend_error"] * 3 + ["circuit_open"]
    assert env.guards.calls == []


@pytest.mark.parametrize(
    "error", [InvalidRequest("bent"), BackendRejected("no"), Overloaded("full"), CircuitOpen("a gateway's own")]
)
def test_what_is_no_fault_of_the_backend_opens_nothing(error: SluiceError) -> None:
    env = Env(gpu=Scripted(fails(error)))
    assert [env.outcome() for _ in range(10)] == [error.code] * 10


@pytest.mark.parametrize("error", [BackendError("garbage"), BackendTimeout("late"), DOWN])
def test_what_is_a_fault_of_the_backend_opens_it(error: SluiceError) -> None:
    env = Env(gpu=Scripted(fails(error)))
    assert [env.outcome() for _ in range(4)] == [error.code] * 3 + ["circuit_open"]


def test_an_error_that_no_backend_should_raise_is_one_of_the_backend(caplog: pytest.LogCaptureFixture) -> None:
    env = Env(gpu=Scripted(fails(KeyError("outputs"))))
    assert [env.outcome() for _ in range(4)] == ["backend_error"] * 3 + ["circuit_open"]
    assert "KeyError" in caplog.text


def test_a_request_that_gave_itself_too_little_time_does_not_count(go: Event) -> None:
    late = BackendTimeout("late")
    env = Env(gpu=Scripted(fails(late)))
    assert [env.outcome(context=within(400), shortened=True) for _ in range(10)] == ["backend_timeout"] * 10
    # Nobody knows what it takes: 5 s may be too little, too.
    assert [env.outcome(context=within(5_000), shortened=True) for _ in range(10)] == ["backend_timeout"] * 10
    env.latencies.note("gpu", version(), 2, 100.0)
    assert [env.outcome(context=within(400), shortened=True) for _ in range(10)] == ["backend_timeout"] * 10
    assert [env.outcome(context=within(5_000), shortened=True) for _ in range(4)][-1] == "circuit_open"
    # Where the backend usually takes long, it has to have had twice that.
    env = Env(gpu=Scripted(fails(late)))
    for _ in range(30):
        env.latencies.note("gpu", version(), 2, 1_000.0)
    assert [env.outcome(context=within(1_500), shortened=True) for _ in range(10)] == ["backend_timeout"] * 10
    assert [env.outcome(context=within(9_000), shortened=True) for _ in range(4)][-1] == "circuit_open"


def test_a_circuit_that_is_switched_off_never_opens() -> None:
    env = Env(gpu=Scripted(fails(DOWN)))
    config = replace(CONFIG, breaker=BreakerSettings(enabled=False))
    outcomes = [env.outcome(config, open_until={"gpu/main": env.clock.now + 60}) for _ in range(20)]
    assert outcomes == ["backend_unavailable"] * 20


def test_one_probe_at_a_time_while_others_are_told_to_wait(go: Event) -> None:
    backend = Scripted(*[fails(DOWN)] * 3, hangs(go))
    env = Env(gpu=backend)
    for _ in range(3):
        env.outcome()
    env.clock.now += 5
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(env.outcome)
        while backend.calls < 4:
            sleep(0.001)
        assert [env.outcome() for _ in range(5)] == ["circuit_open"] * 5
        go.set()
        assert probe.result() == "ok"
    assert env.outcome() == "ok"


@pytest.mark.parametrize("stalled", [False, True])
def test_a_guard_store_that_fails_fails_no_request(go: Event, stalled: bool, caplog: pytest.LogCaptureFixture) -> None:
    env = Env(gpu=Scripted(*[fails(DOWN)] * 3, works))
    if stalled:
        env.guards.stalled = go
    else:
        env.guards.error = BackendError("The store is away.")
    limited = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    assert [env.outcome(limited) for _ in range(4)] == ["backend_unavailable"] * 3 + ["circuit_open"]
    env.clock.now += 5
    assert [env.outcome(limited) for _ in range(3)] == ["ok"] * 3
    assert "nobody was told" in caplog.text


# ------------------------------------------------------------------------------------------------------------- places
def test_places_are_taken_and_given_back() -> None:
    env = Env(gpu=Scripted(works, fails(BackendError("no")), works))
    config = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    assert [env.outcome(config) for _ in range(3)] == ["ok", "backend_error", "ok"]
    assert env.guards.calls == ["acquire", "release"] * 3


def test_beyond_the_limit_calls_are_shed(go: Event) -> None:
    guards, backend = InMemoryGuards(), Scripted(hangs(go))
    config = replace(CONFIG, limits=EndpointLimits(concurrency=2))
    with ThreadPoolExecutor(1) as pool:
        # Two places, of which `normal` sees one.
        running = pool.submit(Env(guards, gpu=backend).outcome, config)
        while not backend.calls:
            sleep(0.001)
        other = Env(guards, gpu=Scripted(), free=Scripted())
        assert other.outcome(config) == "overloaded"
        assert other.outcome(config, to=target(backend="free")) == "ok"
        go.set()
        assert running.result() == "ok"
    assert other.outcome(config) == "ok"


def test_priorities_see_fewer_places() -> None:
    assert [places_of(10, priority) for priority in ("low", "normal", "high")] == [5, 8, 10]
    assert [places_of(1, priority) for priority in ("low", "normal", "high")] == [1, 1, 1]
    guards = InMemoryGuards()
    env = Env(guards, gpu=Scripted())
    config = replace(
        CONFIG, limits=EndpointLimits(concurrency=10, priorities={"batch": "low", "acme": "normal", "vip": "high"})
    )

    def outcomes(taken: int) -> list[str]:
        guards._slots.clear()
        for _ in range(taken):
            assert guards.acquire("m", "gpu", 10, env.clock.now + 60, env.clock.now)
        return [env.outcome(config, context=within(tenant=tenant)) for tenant in ("batch", "acme", "other", "vip")]

    assert outcomes(4) == ["ok"] * 4
    assert outcomes(5) == ["overloaded", "ok", "ok", "ok"]
    assert outcomes(8) == ["overloaded", "overloaded", "overloaded", "ok"]
    assert outcomes(10) == ["overloaded"] * 4


def test_a_call_that_was_given_up_keeps_its_place_until_it_must_have_ended(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go), works))
    config = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    assert env.outcome(config, context=within(300)) == "backend_timeout"
    assert env.outcome(config) == "overloaded"
    env.clock.now += 2
    assert env.outcome(config) == "ok"


def test_a_call_that_was_given_up_gives_its_place_back_when_it_ends(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go), works))
    config = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    assert env.outcome(config, context=within(300)) == "backend_timeout"
    assert env.outcome(config) == "overloaded"
    go.set()
    settle(env.runner, "m/gpu")
    assert env.outcome(config) == "ok"


def test_whenever_calls_end_every_place_is_free_afterwards() -> None:
    env = Env(gpu=Scripted(takes(0.01)))
    config = replace(HEDGED, retries=Retries(attempts=0, hedge=Hedge(after_ms=1), budget=1.0))
    config = replace(config, limits=EndpointLimits(concurrency=100), breaker=BreakerSettings(enabled=False))
    outcomes = set()
    for n in range(60):
        outcomes.add(env.outcome(config, context=within(250 if n % 2 else 10), shortened=False))
        settle(env.runner, "m/gpu")
        settle(env.runner, "#guards")
    assert "ok" in outcomes
    assert env.guards._slots == {}


def test_being_shed_is_no_lost_probe() -> None:
    guards = InMemoryGuards()
    env = Env(guards, gpu=Scripted(*[fails(DOWN)] * 3, works))
    config = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    for _ in range(3):
        env.outcome(config)
    env.clock.now += 5
    lease = guards.acquire("m", "gpu", 1, env.clock.now + 60, env.clock.now)
    assert lease is not None
    assert env.outcome(config) == "overloaded"
    guards.release(lease)
    assert env.outcome(config) == "ok"


# ------------------------------------------------------------------------------------------------------------ retries
TWICE = replace(CONFIG, retries=Retries(attempts=2, backoff_ms=100), breaker=BreakerSettings(enabled=False))


def test_what_no_backend_took_on_is_tried_again_with_longer_and_longer_pauses() -> None:
    backend = Scripted(fails(DOWN), fails(DOWN), works)
    env = Env(gpu=backend)
    ran = env(TWICE)
    assert (ran.attempts, backend.calls) == (3, 3)
    assert env.pauses == [0.1, 0.2]


def test_the_last_error_is_raised_when_no_attempt_is_left() -> None:
    env = Env(gpu=Scripted(fails(BackendUnavailable("1")), fails(BackendUnavailable("2")), fails(DOWN)))
    tally = Tally()
    with pytest.raises(BackendUnavailable, match="Refused"):
        env(TWICE, tally=tally)
    assert tally == Tally(calls=3)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("bent"),
        BackendRejected("no"),
        BackendError("garbage"),
        BackendTimeout("late"),
        Overloaded("full"),
        CircuitOpen("open"),
        BackendUnavailable("reset after it was sent", retryable=False),
    ],
)
def test_what_may_have_run_or_would_fail_again_is_not_tried_again(error: SluiceError) -> None:
    backend = Scripted(fails(error), works)
    assert Env(gpu=backend).outcome(TWICE) == error.code
    assert backend.calls == 1


def test_a_short_retry_after_is_respected_if_there_is_time() -> None:
    busy = fails(BackendUnavailable("Busy.", retry_after_s=1))
    env = Env(gpu=Scripted(busy, works))
    env(TWICE)
    assert env.pauses == [1]
    backend = Scripted(busy, works)
    assert Env(gpu=backend).outcome(TWICE, context=within(900)) == "backend_unavailable"
    assert backend.calls == 1


@pytest.mark.parametrize(("retry_after_s", "fallback"), [(1.5, ()), (0.2, (Fallback("static", outputs={"y": [0]}),))])
def test_nobody_waits_long_for_a_retry_and_not_at_all_where_something_can_stand_in(
    retry_after_s: float, fallback: tuple[Fallback, ...]
) -> None:
    env = Env(gpu=Scripted(fails(BackendUnavailable("Busy.", retry_after_s=retry_after_s)), works))
    assert env.outcome(replace(TWICE, fallback=fallback)) == "backend_unavailable"
    assert env.pauses == []


def test_no_retry_where_the_time_left_is_less_than_a_call_takes() -> None:
    backend = Scripted(fails(DOWN), works)
    env = Env(gpu=backend)
    for _ in range(30):
        env.latencies.note("gpu", version(), 2, 800.0)
    assert env.outcome(TWICE, context=within(700)) == "backend_unavailable"
    assert backend.calls == 1
    assert env.outcome(TWICE, context=within(5_000)) == "ok"


def test_when_most_calls_fail_there_are_hardly_any_retries() -> None:
    backend = Scripted(fails(DOWN))
    env = Env(gpu=backend)
    for _ in range(100):
        env.outcome(TWICE)
    assert backend.calls == 102
    backend.steps = [works]
    for _ in range(200):
        env(TWICE)
    backend.steps = [fails(DOWN)]
    before = backend.calls
    for _ in range(100):
        env.outcome(TWICE)
    assert backend.calls - before == 110


def test_no_retry_against_a_circuit_that_has_just_opened() -> None:
    backend = Scripted(fails(DOWN))
    env = Env(gpu=backend)
    config = replace(CONFIG, retries=Retries(attempts=3), breaker=BreakerSettings(min_calls=2))
    assert env.outcome(config) == "backend_unavailable"
    assert backend.calls == 2
    assert env.outcome(config) == "circuit_open"


# ------------------------------------------------------------------------------------------------------------- hedges
HEDGED = replace(CONFIG, retries=Retries(attempts=0, hedge=Hedge(after_ms=20)))


def test_a_second_call_overtakes_a_slow_first_one(go: Event) -> None:
    backend = Scripted(hangs(go), works)
    env = Env(gpu=backend)
    ran = env(HEDGED)
    assert (ran.hedged, ran.attempts, backend.calls) == (True, 2, 2)
    assert ran.outputs["y"].tolist() == [[2.0], [4.0]]
    go.set()
    settle(env.runner, "m/gpu")
    assert env.outcome(HEDGED) == "ok"


def test_a_quick_call_has_no_second_one() -> None:
    backend = Scripted()
    ran = Env(gpu=backend)(replace(HEDGED, retries=Retries(hedge=Hedge(after_ms=5_000))))
    assert (ran.hedged, ran.attempts, backend.calls) == (False, 1, 1)


def test_a_second_call_that_fails_does_not_matter() -> None:
    env = Env(gpu=Scripted(takes(0.2), fails(DOWN)))
    ran = env(HEDGED)
    assert (ran.hedged, ran.attempts) == (True, 2)


def test_if_both_fail_the_first_error_is_raised() -> None:
    def slowly_refused() -> None:
        sleep(0.4)
        raise BackendError("the first call's, but later")

    env = Env(gpu=Scripted(slowly_refused, fails(BackendUnavailable("the second call's"))))
    with pytest.raises(BackendUnavailable, match="the second call's"):
        env(HEDGED)


def test_if_both_hang_the_deadline_holds(go: Event) -> None:
    backend = Scripted(hangs(go))
    assert Env(gpu=backend).outcome(HEDGED, context=within(300)) == "backend_timeout"
    assert backend.calls == 2


def test_hedges_share_the_retries_budget(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go)))
    config = replace(HEDGED, breaker=BreakerSettings(enabled=False))
    tallies = [Tally() for _ in range(4)]
    for tally in tallies:
        env.outcome(config, context=within(150), tally=tally)
    assert [tally.calls for tally in tallies] == [2, 2, 1, 1]


def test_a_hedge_takes_a_place_of_its_own(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go), works))
    config = replace(HEDGED, limits=EndpointLimits(concurrency=1))
    assert env.outcome(config, context=within(80)) == "backend_timeout"  # there is no second place
    env = Env(gpu=Scripted(hangs(go), works))
    ran = env(replace(HEDGED, limits=EndpointLimits(concurrency=4)))
    assert ran.hedged
    assert env.guards.calls == ["acquire", "acquire", "release"]  # the other call is still under way


def test_the_function_never_hedges() -> None:
    backend = Scripted(takes(0.1))
    ran = Env(function=backend)(HEDGED, to=target(backend="function"))
    assert (ran.hedged, backend.calls) == (False, 1)


# ------------------------------------------------------------------------------------------------------- all at once
def test_under_faults_everyone_gets_their_own_answer_and_in_time() -> None:
    class Moody:
        """Fails, dawdles and answers in turn; the answer is the request's own."""

        def __init__(self) -> None:
            self.count = 0

        def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
            self.count += 1
            match self.count % 5:
                case 0:
                    raise BackendUnavailable("Refused.")
                case 1:
                    sleep(0.03)
            return {"y": inputs["x"] + 1}

    env = Env(gpu=Moody())
    config = replace(CONFIG, retries=Retries(attempts=1, hedge=Hedge(after_ms=10), budget=1.0))

    def one(n: int) -> bool:
        inputs = {"x": INPUTS["x"] * n}
        try:
            ran = env.run(target(), inputs, within(LONG_MS), config, {}, rows=2, shortened=False)
        except BackendError:
            return True
        return bool((ran.outputs["y"] == inputs["x"] + 1).all())

    started = monotonic()
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(200)))
    assert monotonic() - started < LONG_MS / 1e3
