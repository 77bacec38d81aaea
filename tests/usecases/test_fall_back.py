"""The fallback chain: who answers in whose place, how it is marked, and what is raised when nobody does."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import BreakerSettings, EndpointConfig, Fallback, Retries
from shared.domain.endpoint.latency import Latencies
from shared.domain.endpoint.target import KeptAnswer, Ran, Target
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    InvalidPackage,
    InvalidRequest,
    Overloaded,
    SluiceError,
    VersionNotFound,
)
from shared.domain.ports import Backend
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.attempt import Tally
from shared.usecases.fall_back import FallBack
from shared.usecases.run_target import RunTarget
from tests.fakes import InMemoryGuards
from tests.usecases.targets import INPUTS, NOW, Named, Scripted, fails, hangs, target, version, within, works

SMALL = Fallback("variant", variant="small")
CACHED = Fallback("cached", max_age_s=60)
STATIC = Fallback("static", outputs={"y": [0.5]})
DOWN = BackendUnavailable("Refused.")
KEPT = KeptAnswer({"y": np.array([[7.0], [8.0]], np.float32)}, "old", "gpu2", NOW)
OTHER_INPUTS = Signature(
    inputs=(TensorSpec("z", DType.FP32, (None, 1)),), outputs=(TensorSpec("y", DType.FP32, (None, 1)),)
)


def chain(*members: Fallback, **more: Any) -> EndpointConfig:
    return EndpointConfig("m", retries=Retries(attempts=0), fallback=members, **more)


class Env:
    """An environment; `asked` has the ages that `last` was asked for, `kept` is what it gives,
    and it waits for `stalled` while that is set."""

    def __init__(self, kept: KeptAnswer | None = None, **backends: Backend) -> None:
        self.fall_back = FallBack(RunTarget(Named(**backends), InMemoryGuards(), Latencies()))
        self.targets: dict[str, Target] = {"small": target("small", "cpu", 2)}
        self.asked: list[int] = []
        self.kept = kept
        self.stalled: Event | None = None
        self.tally = Tally()

    def __call__(
        self, config: EndpointConfig, primary: Target | None = None, ms: int = 20_000, *, shortened: bool = False
    ) -> Ran:
        return self.fall_back(
            primary or target(),
            self.resolve,
            INPUTS,
            within(ms),
            config,
            {},
            rows=2,
            shortened=shortened,
            last=self.last,
            tally=self.tally,
        )

    def resolve(self, variant: str) -> Target:
        if variant not in self.targets:
            raise VersionNotFound(f"There is no {variant}.")
        return self.targets[variant]

    def last(self, max_age_s: int) -> KeptAnswer | None:
        self.asked.append(max_age_s)
        if self.stalled is not None:
            self.stalled.wait(30)
        return self.kept


@pytest.fixture
def go() -> Iterator[Event]:
    """Backends that hang do so until this is set, at the end of the test."""
    event = Event()
    yield event
    event.set()


def test_while_the_target_answers_nobody_else_is_asked() -> None:
    small = Scripted()
    env = Env(KEPT, gpu=Scripted(), cpu=small)
    ran = env(chain(SMALL, CACHED, STATIC))
    assert (ran.fallback, ran.reason, ran.target) == (None, None, target())
    assert not small.calls
    assert not env.asked


def test_another_variant_answers() -> None:
    env = Env(gpu=Scripted(fails(DOWN)), cpu=Scripted())
    ran = env(chain(SMALL, CACHED, STATIC))
    assert (ran.fallback, ran.reason, ran.target) == ("variant=small", "backend_unavailable", target("small", "cpu", 2))
    assert ran.outputs["y"].tolist() == [[4.0], [8.0]]
    assert ran.attempts == 2
    assert not env.asked


def test_the_last_answer_to_the_same_request() -> None:
    env = Env(KEPT, gpu=Scripted(fails(DOWN)))
    ran = env(chain(CACHED, STATIC))
    assert (ran.fallback, ran.outputs) == ("cached", KEPT.outputs)
    assert (ran.target.variant, ran.target.backend, ran.target.version) == ("old", "gpu2", version())
    assert env.asked == [60]


def test_an_answer_that_is_always_the_same() -> None:
    ran = Env(gpu=Scripted(fails(DOWN)))(chain(STATIC))
    assert (ran.fallback, ran.reason, ran.target) == ("static", "backend_unavailable", target())
    assert ran.outputs["y"].tolist() == [[0.5], [0.5]]
    assert ran.outputs["y"].dtype == np.float32


def test_each_that_fails_leaves_it_to_the_next() -> None:
    env = Env(gpu=Scripted(fails(BackendError("garbage"))), cpu=Scripted(fails(DOWN)))
    ran = env(chain(SMALL, Fallback("variant", variant="gone"), CACHED, STATIC))
    assert (ran.fallback, ran.reason, env.asked) == ("static", "backend_error", [60])
    assert (ran.attempts, env.tally.calls) == (2, 2)


def test_if_all_fail_the_first_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    env = Env(gpu=Scripted(fails(BackendError("the first"))), cpu=Scripted(fails(DOWN)))
    with pytest.raises(BackendError, match="the first"):
        env(chain(SMALL, CACHED, Fallback("static", outputs={"z": 1})))
    assert env.tally.calls == 2
    assert "variant=small" in caplog.text
    assert "does not fit this version" in caplog.text


@pytest.mark.parametrize(
    "error", [BackendRejected("no"), BackendTimeout("late"), Overloaded("full"), InvalidPackage("damaged"), DOWN]
)
def test_whatever_the_backend_cannot_do_falls_back(error: SluiceError) -> None:
    ran = Env(gpu=Scripted(fails(error)))(chain(STATIC))
    assert (ran.fallback, ran.reason) == ("static", error.code)


def test_an_open_circuit_falls_back_without_a_call() -> None:
    backend = Scripted(fails(DOWN))
    env = Env(gpu=backend, cpu=Scripted())
    config = chain(SMALL, breaker=BreakerSettings(min_calls=2))
    reasons = [env(config).reason for _ in range(4)]
    assert reasons == ["backend_unavailable"] * 2 + ["circuit_open"] * 2
    assert backend.calls == 2


def test_the_variant_has_a_circuit_of_its_own() -> None:
    small = Scripted(fails(DOWN))
    env = Env(gpu=Scripted(fails(DOWN)), cpu=small)
    config = chain(SMALL, STATIC, breaker=BreakerSettings(min_calls=2))
    assert [env(config).fallback for _ in range(5)] == ["static"] * 5
    assert small.calls == 2


def test_a_fault_of_the_caller_has_no_fallback() -> None:
    env = Env(KEPT, gpu=Scripted(fails(InvalidRequest("bent"))), cpu=Scripted())
    with pytest.raises(InvalidRequest, match="bent"):
        env(chain(SMALL, CACHED, STATIC))
    assert not env.asked


def test_whoever_named_the_version_gets_no_other() -> None:
    small = Scripted()
    env = Env(gpu=Scripted(fails(DOWN)), cpu=small)
    pinned = target(pinned=True)
    with pytest.raises(BackendUnavailable):
        env(chain(SMALL, STATIC), pinned)
    env.kept = KEPT
    assert env(chain(SMALL, STATIC, CACHED), pinned).fallback == "cached"
    assert not small.calls


def test_a_variant_that_is_the_failing_target_is_not_asked() -> None:
    gpu = Scripted(fails(DOWN), works)
    env = Env(gpu=gpu)
    env.targets["same"] = target("same")  # under another name
    for member in (Fallback("variant", variant="main"), Fallback("variant", variant="same")):
        gpu.contexts.clear()
        with pytest.raises(BackendUnavailable):
            env(chain(member))
        assert gpu.calls == 1


def test_a_variant_with_other_inputs_is_not_asked() -> None:
    small = Scripted()
    env = Env(gpu=Scripted(fails(DOWN)), cpu=small)
    env.targets["small"] = Target("small", version(2, OTHER_INPUTS), "cpu")
    assert env(chain(SMALL, STATIC)).fallback == "static"
    assert not small.calls


def test_time_is_kept_for_the_fallback(go: Event) -> None:
    gpu, small = Scripted(hangs(go)), Scripted()
    env = Env(gpu=gpu, cpu=small)
    ran = env(chain(SMALL, fallback_reserve_ms=400), ms=600)
    assert (ran.fallback, ran.reason) == ("variant=small", "backend_timeout")
    assert gpu.contexts[0].deadline_ms <= 300  # never more than half is kept
    assert 0 < small.contexts[0].deadline_ms <= 301
    gpu.contexts.clear()
    env(chain(SMALL, fallback_reserve_ms=100), ms=500)
    assert 300 < gpu.contexts[0].deadline_ms <= 400


def test_without_fallbacks_the_target_has_all_the_time() -> None:
    gpu = Scripted()
    Env(gpu=gpu)(chain(fallback_reserve_ms=400), ms=20_000)
    Env(gpu=gpu)(chain(SMALL, STATIC), target(pinned=True), ms=20_000)
    assert all(context.deadline_ms > 19_600 for context in gpu.contexts)


def test_when_everything_hangs_the_static_answer_still_comes(go: Event) -> None:
    env = Env(gpu=Scripted(hangs(go)), cpu=Scripted(hangs(go)))
    ran = env(chain(SMALL, STATIC), ms=200)
    assert (ran.fallback, ran.reason) == ("static", "backend_timeout")


def test_a_store_of_answers_that_hangs_is_not_waited_for(go: Event) -> None:
    env = Env(KEPT, gpu=Scripted(fails(DOWN)))
    env.stalled = go
    assert env(chain(CACHED, STATIC), ms=100).fallback == "static"


def test_a_fallback_s_own_lateness_does_not_open_its_circuit() -> None:
    small = Scripted(fails(BackendTimeout("late")))
    env = Env(gpu=Scripted(fails(DOWN)), cpu=small)
    for _ in range(5):
        env(replace(chain(SMALL, STATIC), breaker=BreakerSettings(min_calls=1, failure_rate=1.0)), ms=300)
    assert small.calls == 5


def test_short_deadlines_leave_others_their_fallback(go: Event) -> None:
    small = Scripted(*[hangs(go)] * 4, works)
    env = Env(gpu=Scripted(fails(DOWN)), cpu=small)
    config = chain(SMALL, breaker=BreakerSettings(enabled=False))
    for _ in range(6):
        with pytest.raises(BackendUnavailable):
            env(config, ms=100, shortened=True)
    assert small.calls == 4
    assert env(config).fallback == "variant=small"
