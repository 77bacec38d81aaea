"""The response cache: when an answer is given again, who makes a new one, and what a failing store costs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event, Lock, get_ident
from time import monotonic, sleep, time
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_answers import DynamoDBAnswers
from shared.adapters.memory_answers import MemoryAnswers
from shared.domain.endpoint.config import CacheSettings, EndpointConfig, Fallback
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadImage,
    DeadlineMissed,
    InvalidRequest,
    SluiceError,
)
from shared.domain.ports import AnswerStore
from shared.usecases.deadline import DeadlineRunner
from shared.usecases.keep_answers import STORE_PAUSED, CacheStatus, KeepAnswers, keep_seconds
from tests.conftest import LocalAws
from tests.faults import SILENT, FaultProxy

FRESH = CacheSettings(ttl_s=60)
STALE = CacheSettings(ttl_s=60, stale_s=30)
JOIN = CacheSettings(ttl_s=60, store="dynamodb", join=True)
KEY = "acme/" + "0" * 64


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.s


class Store(MemoryAnswers):
    """A store that counts its calls and raises `error` while that is set; `refuses` makes all answers too large."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now=now)
        self.error: BackendError | None = None
        self.failing: set[str] = {"get", "put", "lease", "release"}
        self.refuses = False
        self.calls: list[str] = []

    def get(self, key: str) -> KeptAnswer | None:
        self._note("get")
        return super().get(key)

    def put(self, key: str, answer: KeptAnswer, keep_s: float) -> bool:
        self._note("put")
        return not self.refuses and super().put(key, answer, keep_s)

    def lease(self, key: str, seconds: float) -> bool:
        self._note("lease")
        return super().lease(key, seconds)

    def release(self, key: str) -> None:
        self._note("release")
        super().release(key)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.error is not None and call in self.failing:
            raise self.error


class Model:
    """Makes answers that say which run made them; `error` is raised by runs while it is set."""

    def __init__(self, now: Callable[[], float], takes_s: float = 0.0) -> None:
        self._now = now
        self._lock = Lock()
        self.takes_s = takes_s
        self.runs = 0
        self.error: SluiceError | None = None

    def __call__(self) -> KeptAnswer:
        with self._lock:
            self.runs += 1
            run = self.runs
        sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return KeptAnswer({"y": np.array([run])}, "main", "function", self._now())


class Cache:
    """A `KeepAnswers` on a clock, its stores, and the model behind it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory, self.shared = Store(self.clock), Store(self.clock)
        self.model = Model(self.clock)
        self.keep = KeepAnswers(self.memory, self.shared, self.clock, ticks=self.clock, wait=self._wait)
        self.waited = 0.0
        self.while_waiting: Callable[[], object] = lambda: None

    def _wait(self, seconds: float) -> None:
        self.waited += seconds
        self.clock.s += seconds
        self.while_waiting()

    def ask(self, settings: CacheSettings = FRESH, key: str = KEY, **more: Any) -> tuple[int, CacheStatus]:
        """Which run's answer is given, and how."""
        more = {"deadline_s": 2.0, "keep_s": settings.ttl_s + settings.stale_s, **more}
        answer, status = self.keep(settings, key, self.model, **more)
        return int(answer.outputs["y"][0]), status

    def given(self, settings: CacheSettings = FRESH, key: str = KEY, **more: Any) -> tuple[int, str]:
        run, status = self.ask(settings, key, **more)
        return run, status.hit


@pytest.fixture
def cache() -> Cache:
    return Cache()


# ------------------------------------------------------------------------------------------------------ fresh answers
def test_an_answer_is_given_again_while_it_is_fresh(cache: Cache) -> None:
    assert cache.ask() == (1, CacheStatus("miss", ttl_s=60, forwarded="miss", stored=True))
    cache.clock.s += 20
    assert cache.ask() == (1, CacheStatus("hit", age_s=20, ttl_s=40))
    cache.clock.s += 39.9
    assert cache.given() == (1, "hit")
    cache.clock.s += 0.1
    assert cache.given() == (2, "miss")
    assert cache.given(key="acme/other") == (3, "miss")
    assert cache.model.runs == 3


@pytest.mark.parametrize(("store", "used"), [("memory", "memory"), ("dynamodb", "shared")])
def test_settings_choose_the_store(cache: Cache, store: Any, used: str) -> None:
    settings = CacheSettings(60, store=store)
    cache.given(settings)
    cache.given(settings)
    assert {name: getattr(cache, name).calls for name in ("memory", "shared")} == {
        "memory": [],
        "shared": [],
        used: ["get", "put", "get"],
    }


def test_shorter_settings_hold_for_what_is_kept_already(cache: Cache) -> None:
    cache.given(CacheSettings(600), keep_s=600)
    cache.clock.s += 100
    assert cache.given(CacheSettings(600), keep_s=600) == (1, "hit")
    assert cache.given(CacheSettings(60), keep_s=600) == (2, "miss")


def test_no_cache_makes_a_new_answer_for_everybody(cache: Cache) -> None:
    cache.given()
    assert cache.ask(no_cache=True) == (2, CacheStatus("bypass", ttl_s=60, forwarded="request", stored=True))
    assert cache.given() == (2, "hit")


def test_no_store_neither_reads_nor_keeps(cache: Cache) -> None:
    cache.given()
    cache.memory.calls.clear()
    assert cache.ask(no_store=True) == (2, CacheStatus("bypass", forwarded="bypass"))
    assert cache.ask(no_store=True, no_cache=True)[0] == 3
    assert cache.memory.calls == []
    assert cache.given() == (1, "hit")


def test_what_stands_in_for_an_answer_is_not_kept(cache: Cache) -> None:
    assert cache.ask(is_worth_keeping=lambda _: False) == (1, CacheStatus("miss", forwarded="miss"))
    assert cache.memory.calls == ["get"]
    assert cache.given() == (2, "miss")


def test_what_is_too_large_is_not_said_to_be_kept(cache: Cache) -> None:
    cache.memory.refuses = True
    assert cache.ask() == (1, CacheStatus("miss", forwarded="miss"))


def test_without_time_nothing_is_kept(cache: Cache) -> None:
    def slow() -> KeptAnswer:
        cache.clock.s += 1.96
        return cache.model()

    _, status = cache.keep(FRESH, KEY, slow, deadline_s=2.0, keep_s=60)
    assert not status.stored
    assert cache.memory.calls == ["get"]


@pytest.mark.parametrize("error", [BackendUnavailable("Gone."), BadImage("Not one."), DeadlineMissed("Late.")])
@pytest.mark.parametrize("settings", [FRESH, STALE, JOIN])
def test_what_the_model_raises_is_raised_and_not_kept(
    cache: Cache, error: SluiceError, settings: CacheSettings
) -> None:
    cache.model.error = error
    with pytest.raises(type(error)):
        cache.ask(settings)
    cache.model.error = None
    assert cache.given(settings) == (2, "miss")


def test_a_clock_that_goes_back_makes_no_answer_younger_than_new(cache: Cache) -> None:
    cache.given()
    cache.clock.s -= 5
    assert cache.ask() == (1, CacheStatus("hit", age_s=0.0, ttl_s=60))


# ------------------------------------------------------------------------------------------------------ stale answers
def test_one_request_makes_a_stale_answer_anew_and_others_get_the_stale_one(cache: Cache) -> None:
    cache.given(STALE)
    cache.clock.s += 70
    seen: list[tuple[int, CacheStatus]] = []

    def run() -> KeptAnswer:
        seen.append(cache.ask(STALE))  # meanwhile
        return cache.model()

    answer, status = cache.keep(STALE, KEY, run, deadline_s=2.0, keep_s=90)
    assert (answer.outputs["y"][0], status) == (2, CacheStatus("miss", ttl_s=60, forwarded="stale", stored=True))
    assert seen == [(1, CacheStatus("stale", age_s=70, ttl_s=-10))]
    assert cache.given(STALE) == (2, "hit")


def test_a_stale_answer_ends(cache: Cache) -> None:
    cache.given(STALE)
    cache.clock.s += 90
    assert cache.given(STALE) == (2, "miss")


@pytest.mark.parametrize("error", [BackendUnavailable("Gone."), BackendTimeout("Late."), DeadlineMissed("Late.")])
def test_if_no_new_answer_can_be_made_the_stale_one_is_given(cache: Cache, error: SluiceError) -> None:
    cache.given(STALE)
    cache.clock.s += 61
    cache.model.error = error
    assert cache.ask(STALE) == (1, CacheStatus("stale", age_s=61, ttl_s=-1))
    assert cache.model.runs == 2
    # Until the lease ends nobody tries again.
    assert cache.given(STALE) == (1, "stale")
    assert cache.model.runs == 2
    cache.clock.s += 2.1
    cache.model.error = None
    assert cache.given(STALE) == (3, "miss")


def test_a_request_that_cannot_be_answered_gets_no_stale_answer(cache: Cache) -> None:
    cache.given(STALE)
    cache.clock.s += 61
    cache.model.error = BadImage("Not one.")
    with pytest.raises(InvalidRequest):
        cache.ask(STALE)


def test_an_answer_that_is_too_old_after_the_failure_is_not_given(cache: Cache) -> None:
    cache.given(STALE)
    cache.clock.s += 89

    def run() -> KeptAnswer:
        cache.clock.s += 1.5
        raise BackendTimeout("Late.")

    with pytest.raises(BackendTimeout):
        cache.keep(STALE, KEY, run, deadline_s=2.0, keep_s=90)


def test_a_failed_renewal_keeps_nobody_waiting_once_the_stale_answer_has_ended(cache: Cache) -> None:
    settings = replace(STALE, store="dynamodb", join=True)
    cache.given(settings)
    cache.clock.s += 85
    cache.model.error = BackendUnavailable("Gone.")
    assert cache.given(settings, deadline_s=25.0) == (1, "stale")
    cache.model.error = None
    cache.clock.s += 6
    assert cache.given(settings, deadline_s=25.0) == (3, "miss")
    assert cache.waited == 0


def test_an_answer_that_is_soon_stale_can_be_made_anew_at_once(cache: Cache) -> None:
    settings = CacheSettings(ttl_s=1, stale_s=100)
    cache.given(settings)
    for run in range(2, 6):
        cache.clock.s += 1.1
        assert cache.given(settings, deadline_s=20.0) == (run, "miss")


# ----------------------------------------------------------------------------------------------------------- joining
def test_equal_requests_in_flight_share_one_run() -> None:
    """In real time, as in several environments that share a table."""
    shared = MemoryAnswers()
    model = Model(time, takes_s=0.3)
    start = Barrier(6)

    def ask(_: int) -> tuple[int, CacheStatus]:
        keep = KeepAnswers(MemoryAnswers(), shared)
        start.wait(10)
        answer, status = keep(JOIN, KEY, model, deadline_s=20.0, keep_s=60)
        return int(answer.outputs["y"][0]), status

    with ThreadPoolExecutor(6) as pool:
        given = list(pool.map(ask, range(6)))
    assert model.runs == 1
    assert {run for run, _ in given} == {1}
    assert sorted(status.hit for _, status in given) == ["joined"] * 5 + ["miss"]


def test_requests_of_one_key_wait_and_of_another_do_not(cache: Cache) -> None:
    cache.shared.lease(KEY, 30)
    assert cache.given(JOIN, "acme/other") == (1, "miss")
    assert cache.waited == 0


def test_a_holder_that_dies_holds_nobody_longer_than_half_the_deadline(cache: Cache) -> None:
    cache.shared.lease(KEY, 30)
    started = cache.clock.s
    assert cache.ask(JOIN, deadline_s=2.0) == (1, CacheStatus("miss", ttl_s=60, forwarded="miss", stored=True))
    assert cache.waited == pytest.approx(1.0)
    assert cache.clock.s - started < 1.01
    assert cache.shared.calls.count("get") < 20


def test_a_lease_that_ends_is_taken_over(cache: Cache) -> None:
    cache.shared.lease(KEY, 0.4)
    assert cache.given(JOIN, deadline_s=20.0) == (1, "miss")
    assert 0.4 <= cache.waited < 1.0


def test_a_holder_that_fails_is_followed_at_once(cache: Cache) -> None:
    cache.shared.lease(KEY, 30)

    def fail() -> None:
        if cache.waited > 0.3:
            cache.shared.release(KEY)

    cache.while_waiting = fail
    assert cache.given(JOIN, deadline_s=20.0) == (1, "miss")
    assert cache.waited < 1.0


@pytest.mark.parametrize("how", ["raises", "too large", "fallback"])
def test_a_holder_without_an_answer_gives_its_lease_back(cache: Cache, how: str) -> None:
    if how == "raises":
        cache.model.error = BackendUnavailable("Gone.")
        with pytest.raises(BackendUnavailable):
            cache.ask(JOIN)
    elif how == "too large":
        cache.shared.refuses = True
        cache.ask(JOIN)
    else:
        cache.ask(JOIN, is_worth_keeping=lambda _: False)
    assert cache.shared.calls[-1] == "release"
    assert cache.shared.lease(KEY, 1)


def test_a_lease_is_given_back_by_nobody_else(cache: Cache) -> None:
    cache.shared.lease(KEY, 30)
    cache.model.error = BackendUnavailable("Gone.")
    with pytest.raises(BackendUnavailable):
        cache.ask(JOIN)
    assert not cache.shared.lease(KEY, 30)


def test_memory_does_not_join(cache: Cache) -> None:
    cache.memory.lease(KEY, 30)
    assert cache.given(replace(JOIN, store="memory")) == (1, "miss")
    assert cache.waited == 0


def test_a_store_that_fails_while_somebody_waits_ends_the_waiting(cache: Cache) -> None:
    cache.shared.lease(KEY, 30)

    def fail() -> None:
        cache.shared.error = BackendUnavailable("Gone.")

    cache.while_waiting = fail
    assert cache.given(JOIN, deadline_s=20.0) == (1, "miss")
    assert cache.waited < 0.1


# ------------------------------------------------------------------------------------------------------ failing stores
@pytest.mark.parametrize("settings", [FRESH, STALE, JOIN])
@pytest.mark.parametrize("error", [BackendUnavailable("Gone."), BackendTimeout("Late."), BackendError("Refused.")])
def test_a_store_that_fails_is_left_alone_for_a_while(
    cache: Cache, settings: CacheSettings, error: BackendError, caplog: pytest.LogCaptureFixture
) -> None:
    store = cache.memory if settings.store == "memory" else cache.shared
    store.error = error
    paused = CacheStatus("bypass", forwarded="bypass", detail=STORE_PAUSED)
    assert [cache.ask(settings) for _ in range(3)] == [(1, paused), (2, paused), (3, paused)]
    assert store.calls == ["get"]
    assert len(caplog.records) == 1
    assert cache.keep.last(settings, KEY, 1000) is None
    store.error = None
    cache.clock.s += 5
    assert cache.given(settings) == (4, "miss")
    assert cache.given(settings) == (4, "hit")


@pytest.mark.parametrize("call", ["put", "lease", "release"])
def test_no_call_of_the_store_fails_a_request(cache: Cache, call: str) -> None:
    settings = replace(STALE, store="dynamodb", join=True)
    cache.shared.failing = {call}
    cache.shared.error = BackendUnavailable("Gone.")
    run, status = cache.ask(settings, is_worth_keeping=lambda _: call != "release")
    assert (run, status.hit, status.stored) == (1, "miss", False)


def test_a_stale_answer_is_given_if_nobody_can_tell_who_makes_the_new_one(cache: Cache) -> None:
    cache.given(STALE)
    cache.clock.s += 61
    cache.memory.failing = {"lease"}
    cache.memory.error = BackendUnavailable("Gone.")
    assert cache.given(STALE) == (1, "stale")


def test_one_store_that_fails_does_not_stop_the_other(cache: Cache) -> None:
    cache.shared.error = BackendUnavailable("Gone.")
    cache.given(JOIN)
    cache.given(FRESH)
    assert cache.given(FRESH) == (2, "hit")


def test_a_silent_table_costs_its_timeout_once(local_aws: LocalAws, aws_session: Session) -> None:
    table = local_aws.stack.resources["AnswersTable"].name
    with FaultProxy(local_aws.url) as proxy:
        short = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=0.3, retries=0)
        keep = KeepAnswers(MemoryAnswers(), DynamoDBAnswers(short, table))
        model = Model(time)
        key = f"acme/{time()}"
        _, status = keep(JOIN, key, model, deadline_s=20.0, keep_s=60)
        assert status.stored
        answer, status = keep(JOIN, key, model, deadline_s=20.0, keep_s=60)
        assert (answer.outputs["y"][0], status.hit) == (1, "hit")
        proxy.fail(SILENT)
        before = sum(proxy.calls.values())
        started = monotonic()
        for run in range(2, 12):
            answer, status = keep(JOIN, key, model, deadline_s=20.0, keep_s=60)
            assert (answer.outputs["y"][0], status.detail) == (run, STORE_PAUSED)
        assert sum(proxy.calls.values()) == before + 1
        assert monotonic() - started < 10


class Dripping(MemoryAnswers):
    """A store in which the named call does not end before it is let go."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.slow = call
        self.gate = Event()
        self.calls: list[str] = []

    def get(self, key: str) -> KeptAnswer | None:
        self._hold("get")
        return super().get(key)

    def put(self, key: str, answer: KeptAnswer, keep_s: float) -> bool:
        self._hold("put")
        return super().put(key, answer, keep_s)

    def lease(self, key: str, seconds: float) -> bool:
        self._hold("lease")
        return super().lease(key, seconds)

    def release(self, key: str) -> None:
        self._hold("release")
        super().release(key)

    def _hold(self, call: str) -> None:
        self.calls.append(call)
        if call == self.slow:
            self.gate.wait(30)


@pytest.fixture
def runner() -> DeadlineRunner:
    return DeadlineRunner()


def kept_within(runner: DeadlineRunner, store: AnswerStore) -> KeepAnswers:
    return KeepAnswers(store, store, within=lambda call, seconds: runner.run("answers", call, seconds))


@pytest.mark.parametrize("settings", [replace(FRESH, store="dynamodb"), JOIN])
@pytest.mark.parametrize("call", ["get", "put", "lease", "release"])
def test_a_store_that_drips_leaves_the_model_half_of_the_time(
    runner: DeadlineRunner, settings: CacheSettings, call: str
) -> None:
    store = Dripping(call)
    keep, model = kept_within(runner, store), Model(time)
    ends = monotonic() + 0.6
    left: list[float] = []

    def run() -> KeptAnswer:
        left.append(ends - monotonic())
        return model()

    answer, status = keep(settings, KEY, run, deadline_s=0.6, keep_s=60, is_worth_keeping=lambda _: call != "release")
    # The store is let go only now: whoever waited for it would not be here.
    assert not store.gate.is_set()
    assert left[0] > 0.1
    assert (answer.outputs["y"][0], status.hit in {"miss", "bypass"}) == (1, True)
    store.gate.set()


def test_a_store_that_drips_is_left_alone_once_it_had_time_to_answer(runner: DeadlineRunner) -> None:
    store = Dripping("get")
    keep, model = kept_within(runner, store), Model(time)
    shared = replace(FRESH, store="dynamodb")
    for _ in range(3):
        _, status = keep(shared, KEY, model, deadline_s=0.1, keep_s=60)
        assert status.detail == STORE_PAUSED
    assert store.calls == ["get"] * 3
    for _ in range(3):
        keep(shared, KEY, model, deadline_s=1.0, keep_s=60)
    assert store.calls == ["get"] * 4
    store.gate.set()


def test_what_gave_itself_no_time_has_no_shared_answer_and_does_no_harm(runner: DeadlineRunner) -> None:
    store = Dripping("")
    keep, model = kept_within(runner, store), Model(time)
    shared = replace(FRESH, store="dynamodb")
    keep(shared, KEY, model, deadline_s=5.0, keep_s=60)
    assert keep(shared, KEY, model, deadline_s=0.0, keep_s=60)[1].detail == STORE_PAUSED
    assert keep(shared, KEY, model, deadline_s=5.0, keep_s=60)[1].hit == "hit"
    assert keep.last(shared, KEY, 60, deadline_s=0.0) is None
    assert keep.last(shared, KEY, 60) is not None


def test_a_holder_that_ran_out_of_time_gives_its_lease_back(runner: DeadlineRunner) -> None:
    store = Dripping("")
    keep = kept_within(runner, store)

    def run() -> KeptAnswer:
        sleep(0.3)
        raise BackendTimeout("Late.")

    with pytest.raises(BackendTimeout):
        keep(JOIN, KEY, run, deadline_s=0.2, keep_s=60)
    for _ in range(500):
        if store.lease(KEY, 1):
            return
        sleep(0.01)
    pytest.fail("the lease was not given back")


def test_the_store_in_memory_is_asked_on_the_thread_of_the_request() -> None:
    threads: set[int] = set()

    class Noted(MemoryAnswers):
        def get(self, key: str) -> KeptAnswer | None:
            threads.add(get_ident())
            return super().get(key)

    keep, model = kept_within(DeadlineRunner(), Noted()), Model(time)
    keep(FRESH, KEY, model, deadline_s=5.0, keep_s=60)
    assert keep(FRESH, KEY, model, deadline_s=0.0, keep_s=60)[1].hit == "hit"
    assert threads == {get_ident()}


def test_environments_join_through_the_table(local_aws: LocalAws, aws_session: Session) -> None:
    table = local_aws.stack.resources["AnswersTable"].name
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=local_aws.url, max_pool=8)
    key = f"acme/join-{time()}"
    running, joined = Event(), Event()
    model = Model(time)

    def slow() -> KeptAnswer:
        running.set()
        joined.wait(1)
        return model()

    def ask(run: Callable[[], KeptAnswer]) -> tuple[int, str]:
        keep = KeepAnswers(MemoryAnswers(), DynamoDBAnswers(dynamodb, table))
        answer, status = keep(JOIN, key, run, deadline_s=20.0, keep_s=60)
        return int(answer.outputs["y"][0]), status.hit

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, slow)
        assert running.wait(10)
        others = [pool.submit(ask, model) for _ in range(3)]
        sleep(0.1)
        joined.set()
        assert first.result(20) == (1, "miss")
        # Whoever came only after the answer was kept finds it like any other.
        assert {future.result(20) for future in others} <= {(1, "joined"), (1, "hit")}
    assert model.runs == 1


# -------------------------------------------------------------------------------------------------- the last answer
def test_the_last_answer_may_be_older_than_the_cache_gives(cache: Cache) -> None:
    config = EndpointConfig(
        "iris",
        cache=STALE,
        fallback=(Fallback("static"), Fallback("cached", max_age_s=600), Fallback("cached", max_age_s=300)),
    )
    assert keep_seconds(config) == 600
    cache.given(STALE, keep_s=keep_seconds(config))
    cache.clock.s += 500
    last = cache.keep.last(STALE, KEY, 600)
    assert last is not None
    assert last.outputs["y"].tolist() == [1]
    assert cache.keep.last(STALE, KEY, 499) is None
    assert cache.keep.last(STALE, "acme/other", 600) is None
    cache.clock.s += 100.1
    assert cache.keep.last(STALE, KEY, 600) is None


def test_answers_are_kept_as_long_as_they_may_be_given() -> None:
    assert keep_seconds(EndpointConfig("iris")) == 0
    assert keep_seconds(EndpointConfig("iris", cache=STALE)) == 90
    short = EndpointConfig("iris", cache=STALE, fallback=(Fallback("cached", max_age_s=10), Fallback("static")))
    assert keep_seconds(short) == 90
