import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shared.adapters.aws import client
from shared.adapters.cached_endpoints import CachedEndpoints
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.domain.endpoint.config import EndpointConfig, EndpointState, StoredEndpoint
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.fakes import InMemoryEndpoints
from tests.faults import BROKEN, CLOSED, SILENT, THROTTLED, Fault, FaultProxy

if TYPE_CHECKING:
    from botocore.session import Session

STORED = StoredEndpoint(EndpointConfig("tumor", timeout_ms=100), 3, 1)
LATER = StoredEndpoint(EndpointConfig("tumor", timeout_ms=200), 4, 2)
NOTHING = EndpointState()


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Hanging:
    """An `EndpointReader` that answers when it is let go; `asked` counts."""

    def __init__(self, state: EndpointState) -> None:
        self.state = state
        self._calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.done = threading.Semaphore(0)

    @property
    def asked(self) -> int:
        return len(self._calls)

    def read(self, endpoint: str) -> EndpointState:
        self._calls.append(endpoint)
        state = self.state
        self.gate.wait(30)
        self.done.release()
        return state


def test_the_store_is_asked_once_in_its_time() -> None:
    store, clock = InMemoryEndpoints(STORED), Clock()
    store.open_until["tumor"] = {"function/main": 1005.0}
    cached = CachedEndpoints(store, clock=clock)
    assert [cached("tumor") for _ in range(3)] == [EndpointState(STORED, {"function/main": 1005.0})] * 3
    assert cached.config("tumor") == STORED.config
    assert store.calls == 1
    store.put(LATER)
    clock.now += 3.99
    assert cached("tumor").stored == STORED
    clock.now += 0.01
    assert cached("tumor").stored == LATER


def test_what_nobody_set_has_the_defaults_and_is_remembered_too() -> None:
    store = InMemoryEndpoints()
    cached = CachedEndpoints(store)
    assert [cached("digits") for _ in range(2)] == [NOTHING] * 2
    assert cached.config("digits") == EndpointConfig("digits")
    assert store.calls == 1


def test_a_clock_that_is_set_back_does_not_keep_settings_for_ever() -> None:
    store, clock = InMemoryEndpoints(STORED), Clock()
    cached = CachedEndpoints(store, clock=clock)
    cached("tumor")
    store.put(LATER)
    clock.now = 500.0
    assert cached("tumor").stored == LATER


def test_while_the_store_fails_the_last_state_holds_and_it_is_asked_once_a_second() -> None:
    store, clock = InMemoryEndpoints(STORED), Clock()
    cached = CachedEndpoints(store, clock=clock)
    cached("tumor")
    store.error = BackendUnavailable("throttled")
    clock.now += 4
    assert [cached("tumor").stored, cached("tumor").stored] == [STORED, STORED]
    assert store.calls == 2
    clock.now += 1
    assert cached("tumor").stored == STORED
    assert store.calls == 3
    store.error = None
    store.put(LATER)
    clock.now += 1
    assert cached("tumor").stored == LATER


@pytest.mark.parametrize("error", [BackendUnavailable("throttled"), BackendTimeout("late"), BackendError("damaged")])
def test_defaults_that_were_never_read_are_not_applied(error: BackendError) -> None:
    store, clock = InMemoryEndpoints(STORED), Clock()
    cached = CachedEndpoints(store, clock=clock)
    store.error = error
    for ask in (cached, cached.config, cached):
        with pytest.raises(BackendUnavailable) as refused:
            ask("tumor")
        assert refused.value.retry_after_s == 1
    assert store.calls == 1
    clock.now += 1
    store.error = None
    assert cached("tumor").stored == STORED


def test_that_nothing_is_stored_holds_too_once_it_was_read() -> None:
    store, clock = InMemoryEndpoints(), Clock()
    cached = CachedEndpoints(store, clock=clock)
    cached("tumor")
    clock.now += 60
    store.error = BackendUnavailable("throttled")
    assert cached("tumor") == NOTHING


@pytest.mark.parametrize("error", [BackendUnavailable("throttled"), BackendTimeout("late"), BackendError("damaged")])
def test_one_endpoint_that_cannot_be_read_does_not_keep_the_others_from_being_read(error: BackendError) -> None:
    class Partly(InMemoryEndpoints):
        def read(self, endpoint: str) -> EndpointState:
            if endpoint == "damaged":
                raise error
            return super().read(endpoint)

    cached = CachedEndpoints(Partly(STORED), clock=Clock())
    with pytest.raises(BackendUnavailable):
        cached("damaged")
    assert cached("tumor").stored == STORED


def test_made_up_names_push_out_no_configuration() -> None:
    store, clock = InMemoryEndpoints(STORED), Clock()
    cached = CachedEndpoints(store, max_entries=3, clock=clock)
    cached("tumor")
    for number in range(10):
        assert cached(f"made-up-{number}") == NOTHING
    store.error = BackendUnavailable("throttled")
    for number in range(10, 20):
        with pytest.raises(BackendUnavailable):
            cached(f"made-up-{number}")
    clock.now += 60
    assert cached("tumor").stored == STORED


def test_what_is_stored_or_no_longer_is_known_once() -> None:
    store, clock = Hanging(NOTHING), Clock()
    cached = CachedEndpoints(store, clock=clock)
    for state in (NOTHING, EndpointState(STORED), NOTHING, EndpointState(LATER)):
        store.state = state
        assert cached("tumor") == state
        clock.now += 4


def test_a_fault_of_the_program_is_not_hidden() -> None:
    store = InMemoryEndpoints(STORED)
    store.error = TypeError("slip")
    with pytest.raises(TypeError, match="slip"):
        CachedEndpoints(store)("tumor")


def test_who_meets_a_hanging_store_waits_once_and_the_late_answer_is_of_use() -> None:
    store, clock = Hanging(EndpointState(STORED)), Clock()
    cached = CachedEndpoints(store, wait_s=0.1, clock=clock)
    cached("tumor")
    store.done.acquire()
    clock.now += 4
    store.gate.clear()
    store.state = EndpointState(LATER)
    assert [cached("tumor").stored, cached("tumor").stored] == [STORED, STORED]
    assert store.asked == 2
    store.gate.set()
    assert store.done.acquire(timeout=30)
    eventually(lambda: cached("tumor").stored == LATER)
    assert store.asked == 2


def test_an_answer_that_comes_after_a_later_one_is_dropped() -> None:
    class Crossing(InMemoryEndpoints):
        gate, left = threading.Event(), threading.Event()

        def read(self, endpoint: str) -> EndpointState:
            if self.calls == 0:
                state = super().read(endpoint)
                self.gate.wait(30)
                self.left.set()
                return state
            return super().read(endpoint)

    store, clock = Crossing(STORED), Clock()
    cached = CachedEndpoints(store, wait_s=0.05, clock=clock)
    with pytest.raises(BackendUnavailable):
        cached("tumor")
    store.put(LATER)
    eventually(lambda: known(cached, clock) == LATER)
    store.gate.set()
    assert store.left.wait(30)
    assert cached("tumor").stored == LATER


def test_a_store_that_hangs_for_long_is_not_asked_by_ever_more_threads() -> None:
    store, clock = Hanging(NOTHING), Clock()
    store.gate.clear()
    cached = CachedEndpoints(store, wait_s=0.01, clock=clock)
    for number in range(20):
        with pytest.raises(BackendUnavailable):
            cached(f"model-{number}")
        clock.now += 1.5
    assert store.asked == 4
    store.gate.set()


def test_many_who_ask_at_once_all_get_what_is_stored() -> None:
    """The bound is on reads that were given up: nobody takes the defaults for what is stored."""
    store = Hanging(EndpointState(STORED))
    store.gate.clear()
    cached = CachedEndpoints(store, wait_s=30)
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(cached, "tumor") for _ in range(12)]
        eventually(lambda: store.asked == 12)
        store.gate.set()
        assert [answer.result(30).stored for answer in answers] == [STORED] * 12


def test_what_is_kept_is_bounded() -> None:
    store = InMemoryEndpoints()
    cached = CachedEndpoints(store, max_entries=2)
    for name in ("a", "b", "c", "a"):
        cached(name)
    assert store.calls == 4


@pytest.mark.parametrize("fault", [THROTTLED, BROKEN, CLOSED, SILENT], ids=["throttled", "broken", "closed", "silent"])
def test_the_last_good_state_holds_while_dynamodb_is_down(
    fault: Fault, local_aws: LocalAws, aws_session: "Session", caplog: pytest.LogCaptureFixture
) -> None:
    name, resources = unique("model"), local_aws.stack.resources
    first = StoredEndpoint(replace(STORED.config, endpoint=name), 1, 1)
    with FaultProxy(local_aws.url) as proxy:
        dynamodb = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=5, retries=0)
        store = DynamoDBEndpoints(dynamodb, resources["EndpointsTable"].name, resources["GuardsTable"].name)
        store.put(first)
        clock = Clock()
        cached = CachedEndpoints(store, clock=clock)
        assert cached(name).stored == first
        store.put(replace(first, revision=2))
        proxy.fail(fault, operation="BatchGetItem")
        clock.now += 4
        with caplog.at_level(logging.WARNING):
            answers = [cached(name).stored for _ in range(50)]
        assert answers == [first] * 50
        assert proxy.calls["BatchGetItem"] == 2
        assert [record.message for record in caplog.records] == ["endpoint not read"]
        proxy.heal()
        clock.now += 1
        eventually(lambda: cached(name).stored == replace(first, revision=2))


def known(cached: CachedEndpoints, clock: Clock) -> StoredEndpoint | None:
    """What is stored, as far as it can be told; the next one who asks finds the pause over."""
    try:
        return cached("tumor").stored
    except BackendUnavailable:
        clock.now += 1
        return None


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        threading.Event().wait(0.01)
    assert holds()
