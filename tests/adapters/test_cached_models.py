"""What the cache of the registry answers from memory, for how long, and what it does when the store fails."""

import logging
from collections.abc import Iterator
from threading import Event, Semaphore

import pytest

from shared.adapters.cached_models import CachedModels
from shared.domain.errors import BackendTimeout, BackendUnavailable, ModelNotFound, VersionNotFound
from shared.domain.model import ModelVersion
from tests.adapters.samples import version_of
from tests.fakes import InMemoryModels


class _Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def store() -> InMemoryModels:
    return InMemoryModels(version_of("m"))


def test_within_the_ttl_the_store_is_asked_once(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, ttl_s=5, clock=clock)
    for _ in range(100):
        assert cached.latest("m") == version_of("m")
        assert cached.get("m", 1) == version_of("m")
    assert store.calls == 2
    clock.now += 4.9
    cached.latest("m")
    assert store.calls == 2


def test_a_new_version_is_served_after_the_ttl(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, ttl_s=5, clock=clock)
    cached.latest("m")
    store.add(version_of("m", 2))
    assert cached.latest("m").version == 1
    clock.now += 5
    assert cached.latest("m").version == 2


def test_what_is_added_through_the_cache_is_seen_at_once(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, clock=clock)
    with pytest.raises(VersionNotFound):
        cached.get("m", 2)
    cached.latest("m")
    assert cached.add(version_of("m", 2)) is True
    assert cached.latest("m").version == 2
    assert cached.get("m", 2).version == 2
    assert [version.version for version in cached.versions("m")] == [2, 1]
    assert [version.version for version in cached.models()] == [2]


def test_an_unknown_model_is_remembered_shortly(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, ttl_s=5, negative_ttl_s=1, clock=clock)
    for _ in range(10):
        with pytest.raises(ModelNotFound, match="'new'"):
            cached.latest("new")
    assert store.calls == 1
    store.add(version_of("new"))
    clock.now += 1
    assert cached.latest("new") == version_of("new")


def test_made_up_names_neither_grow_the_cache_nor_push_out_models(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, max_entries=10, clock=clock)
    cached.latest("m")
    for n in range(1000):
        with pytest.raises(ModelNotFound):
            cached.latest(f"no-{n}")
    calls = store.calls
    cached.latest("m")
    for n in range(990, 1000):
        with pytest.raises(ModelNotFound):
            cached.latest(f"no-{n}")
    assert store.calls == calls
    with pytest.raises(ModelNotFound):
        cached.latest("no-0")
    assert store.calls == calls + 1


def test_the_least_recently_used_model_goes_first(clock: _Clock) -> None:
    store = InMemoryModels(*(version_of(model) for model in "abc"))
    cached = CachedModels(store, max_entries=2, clock=clock)
    for model in "abac":
        cached.latest(model)
    calls = store.calls
    cached.latest("a")
    cached.latest("c")
    assert store.calls == calls
    cached.latest("b")
    assert store.calls == calls + 1


def test_while_the_store_fails_the_last_good_answer_is_given(
    store: InMemoryModels, clock: _Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cached = CachedModels(store, ttl_s=5, clock=clock)
    cached.latest("m")
    store.error = BackendUnavailable("down")
    clock.now += 5
    with caplog.at_level(logging.WARNING):
        assert cached.latest("m") == version_of("m")
    assert "serving m from memory: down" in caplog.text
    calls = store.calls
    assert cached.latest("m") == version_of("m")
    assert store.calls == calls  # an outage costs one call for each ttl, not one for each request
    store.error = None
    store.add(version_of("m", 2))
    clock.now += 5
    assert cached.latest("m").version == 2


def test_what_was_never_known_fails_with_the_store(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, negative_ttl_s=1, clock=clock)
    with pytest.raises(ModelNotFound):
        cached.latest("new")
    store.error = BackendUnavailable("down")
    clock.now += 1
    with pytest.raises(BackendUnavailable, match="down"):
        cached.latest("new")


def test_a_clock_that_is_set_back_makes_nothing_last_longer(store: InMemoryModels, clock: _Clock) -> None:
    cached = CachedModels(store, ttl_s=5, clock=clock)
    cached.latest("m")
    clock.now -= 3600
    cached.latest("m")
    assert store.calls == 2


class _Hanging(InMemoryModels):
    """A registry that answers when it is let go; `done` counts what it answered."""

    def __init__(self, *versions: ModelVersion) -> None:
        super().__init__(*versions)
        self.gate = Event()
        self.gate.set()
        self.done = Semaphore(0)

    def latest(self, model: str) -> ModelVersion:
        version = super().latest(model)
        self.gate.wait(30)
        self.done.release()
        return version


@pytest.fixture
def hanging() -> Iterator[_Hanging]:
    store = _Hanging(*(version_of(model) for model in ("m", *(f"m{n}" for n in range(20)))))
    yield store
    store.gate.set()


def test_while_the_store_hangs_the_last_answer_is_given_and_a_late_one_is_of_use(
    hanging: _Hanging, clock: _Clock
) -> None:
    cached = CachedModels(hanging, ttl_s=5, wait_s=0.05, clock=clock)
    assert cached.latest("m").version == 1
    hanging.done.acquire()
    hanging.gate.clear()
    hanging.add(version_of("m", 2))
    clock.now += 5
    calls = hanging.calls
    assert [cached.latest("m").version for _ in range(10)] == [1] * 10
    assert hanging.calls == calls + 1
    hanging.gate.set()
    assert hanging.done.acquire(timeout=30)
    for _ in range(500):
        if cached.latest("m").version == 2:
            break
        Event().wait(0.01)
    assert cached.latest("m").version == 2
    assert hanging.calls == calls + 1


def test_who_asks_for_what_was_never_read_waits_its_time_and_is_told(hanging: _Hanging, clock: _Clock) -> None:
    cached = CachedModels(hanging, first_wait_s=0.05, clock=clock)
    hanging.gate.clear()
    with pytest.raises(BackendTimeout, match="registry did not answer in time"):
        cached.latest("m")


def test_one_model_that_hangs_has_the_others_given_from_memory_at_once(hanging: _Hanging, clock: _Clock) -> None:
    cached = CachedModels(hanging, ttl_s=5, wait_s=0.05, clock=clock)
    for n in range(20):
        cached.latest(f"m{n}")
    hanging.gate.clear()
    clock.now += 5
    calls = hanging.calls
    assert [cached.latest(f"m{n}").model for n in range(20)] == [f"m{n}" for n in range(20)]
    assert hanging.calls == calls + 1


def test_a_registry_that_hangs_for_long_is_not_asked_by_ever_more_threads(hanging: _Hanging, clock: _Clock) -> None:
    cached = CachedModels(hanging, wait_s=0.01, first_wait_s=0.01, clock=clock)
    hanging.gate.clear()
    for n in range(20):
        with pytest.raises((BackendTimeout, BackendUnavailable)):
            cached.latest(f"m{n}")
        clock.now += 10
    assert hanging.calls == 4


def test_an_answer_from_before_a_version_was_added_is_dropped(hanging: _Hanging, clock: _Clock) -> None:
    cached = CachedModels(hanging, first_wait_s=0.05, clock=clock)
    hanging.gate.clear()
    with pytest.raises(BackendTimeout):
        cached.latest("m")
    cached.add(version_of("m", 2))
    hanging.gate.set()
    assert hanging.done.acquire(timeout=30)
    assert cached.latest("m").version == 2
