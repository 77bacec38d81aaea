"""What one caller sends, or the little time that it gives itself, must not cost the others their backend."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event, current_thread
from time import sleep

import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import BreakerSettings, EndpointLimits
from shared.domain.errors import BackendError, BackendTimeout
from shared.domain.ports import Lease
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.shared_guards import Place
from tests.fakes import InMemoryGuards
from tests.usecases.environment import CONFIG, DOWN, Env
from tests.usecases.targets import Scripted, fails, hangs, settle, takes, target, version, within, works

NO_BREAKER = replace(CONFIG, breaker=BreakerSettings(enabled=False))
HERE = target(backend="function")


@pytest.fixture
def go() -> Iterator[Event]:
    """Backends that hang do so until this is set, at the end of the test."""
    event = Event()
    yield event
    event.set()


# ------------------------------------------------------------------------------------------------ content and circuits
def test_a_failure_that_blames_no_backend_opens_nothing() -> None:
    error = BackendError("The model failed while it ran.")
    error.blames_backend = False
    env = Env(function=Scripted(fails(error)))
    assert [env.outcome(to=HERE) for _ in range(10)] == ["backend_error"] * 10


def test_nor_does_what_the_function_itself_should_not_raise(caplog: pytest.LogCaptureFixture) -> None:
    env = Env(function=Scripted(fails(KeyError("x"))))
    assert [env.outcome(to=HERE) for _ in range(10)] == ["backend_error"] * 10
    assert "KeyError" in caplog.text


def test_one_tenant_s_failures_open_nothing_while_another_is_served() -> None:
    poison, fine = fails(BackendError("no")), works
    env = Env(gpu=Scripted(*[poison, poison, fine] * 10, fails(DOWN)))
    evil, victim = within(tenant="evil"), within(tenant="victim")
    for _ in range(10):
        assert [env.outcome(context=who) for who in (evil, evil, victim)] == ["backend_error"] * 2 + ["ok"]
    # Once it fails for both, it is the backend.
    assert [env.outcome(context=who) for who in (victim, victim)] == ["backend_unavailable", "circuit_open"]


def test_a_batch_that_needs_more_than_the_time_of_an_answer_is_no_fault_of_the_backend() -> None:
    env = Env(gpu=Scripted(*[takes(0.03)] * 3, fails(BackendTimeout("late"))))
    for _ in range(3):
        env(rows=1)
    assert [env.outcome(rows=100, context=within(300)) for _ in range(6)] == ["backend_timeout"] * 6
    assert [env.outcome(rows=1, context=within(300)) for _ in range(4)][-1] == "circuit_open"


def test_a_backend_that_has_become_slow_is_left_alone_although_its_late_answers_are_seen() -> None:
    env = Env(gpu=Scripted(*[takes(0.005)] * 4, takes(0.2)))
    for _ in range(4):
        env()
    env.clock.now += 60
    outcomes = []
    for _ in range(4):
        outcomes.append(env.outcome(context=within(100)))
        settle(env.runner, "m/gpu")
    assert outcomes == ["backend_timeout"] * 3 + ["circuit_open"]


@pytest.mark.parametrize("shortened", [False, True])
def test_time_that_goes_into_loading_counts_against_nobody(go: Event, *, shortened: bool) -> None:
    env = Env(ready=False, function=Scripted(fails(BackendTimeout("The deadline passed while it was loaded."))))
    assert [env.outcome(to=HERE, shortened=shortened) for _ in range(10)] == ["backend_timeout"] * 10


# --------------------------------------------------------------------------------------------- short deadlines, threads
def test_calls_with_a_deadline_of_their_own_leave_half_of_the_places_to_others(go: Event) -> None:
    backend = Scripted(*[hangs(go)] * 4, works)
    env = Env(gpu=backend)
    short = [env.outcome(NO_BREAKER, context=within(100), shortened=True) for _ in range(10)]
    assert short == ["backend_timeout"] * 4 + ["overloaded"] * 6
    assert env.outcome(NO_BREAKER) == "ok"
    # What stands in for another target does so for a caller with all of its time, too.
    assert env.outcome(NO_BREAKER, stand_in=True) == "ok"
    go.set()
    settle(env.runner, "m/gpu")
    assert env.outcome(NO_BREAKER, shortened=True) == "ok"


def test_a_deadline_that_cannot_be_kept_makes_no_call() -> None:
    backend = Scripted()
    env = Env(gpu=backend)
    for _ in range(5):
        env.latencies.note("gpu", version(), 2, 800.0)
    assert env.outcome(context=within(50), shortened=True) == "backend_timeout"
    assert not backend.calls
    assert env.outcome(context=within(5_000), shortened=True) == "ok"
    assert env.outcome(context=within(50)) == "ok"  # the endpoint's own timeout: it is asked, or nobody learns of it


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("x", DType.BYTES, (None, 1)),
        TensorSpec("x", DType.FP32, (None, None)),
        TensorSpec("x", DType.FP32, (None, 1)),
    ],
)
def test_what_may_take_long_for_its_content_never_runs_on_the_thread_of_the_request(spec: TensorSpec) -> None:
    threads: list[str] = []
    env = Env(function=Scripted(lambda: threads.append(current_thread().name)))
    made = replace(HERE, version=version(1, Signature(inputs=(spec,), outputs=(spec,))))
    for _ in range(10):
        env(to=made)
    is_plain = spec.shape == (None, 1) and spec.dtype is not DType.BYTES
    assert (threads[-1] == current_thread().name) == is_plain


def test_a_version_that_takes_some_time_never_runs_on_the_thread_of_the_request() -> None:
    threads: list[str] = []
    env = Env(function=Scripted(lambda: threads.append(current_thread().name)))
    for _ in range(5):
        env.latencies.note("function", HERE.version, 2, 60.0)
    env(to=HERE, context=within(20_000))
    assert threads == ["call m/function"]


# ---------------------------------------------------------------------------------------------- short deadlines, places
class _Leisurely(InMemoryGuards):
    """Takes a few milliseconds, as a store over the network does."""

    def acquire(self, endpoint: str, pool: str, slots: int, expires_at: float, now: float) -> Lease | None:
        sleep(0.03)
        return super().acquire(endpoint, pool, slots, expires_at, now)


def test_no_deadline_is_short_enough_to_switch_the_bound_off() -> None:
    guards, backend = _Leisurely(), Scripted()
    env = Env(guards, gpu=backend)
    config = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    lease = guards.acquire("m", "gpu", 1, env.clock.now + 60, env.clock.now)
    assert lease is not None
    for _ in range(10):
        assert env.outcome(config, context=within(10, "evil"), shortened=True) == "backend_timeout"
    settle(env.runner, "#guards")
    assert env.outcome(config) == "overloaded"
    assert not backend.calls
    guards.release(lease)
    assert env.outcome(config) == "ok"
    assert guards._slots == {}


def test_a_store_that_fails_late_is_left_alone_whoever_found_out() -> None:
    guards = _Leisurely()
    env = Env(guards, gpu=Scripted())
    guards.error = BackendError("The store is away.")
    config = replace(CONFIG, limits=EndpointLimits(concurrency=1))
    assert env.outcome(config, context=within(10), shortened=True) == "backend_timeout"
    settle(env.runner, "#guards")
    assert env.outcome(config) == "ok"
    assert guards.calls == ["acquire"]


@pytest.mark.parametrize("order", ["hold leave let_go", "let_go hold leave", "hold let_go leave"])
def test_a_place_is_given_back_once_in_whatever_order_that_is_told(order: str) -> None:
    given: list[str] = []
    place = Place(lambda: given.append("late"))
    told = [getattr(place, step)() for step in order.split()]
    given += ["at once"] * told.count(True)
    assert given == (["late"] if order.endswith("let_go") else ["at once"])
