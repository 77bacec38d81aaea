"""Circuits and places as the environments share them: their store helps while it answers, and is never in the way."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic, time
from typing import Final

from shared.domain.endpoint.circuit import Change
from shared.domain.endpoint.config import EndpointLimits, Priority
from shared.domain.errors import BackendError, BackendTimeout, Overloaded
from shared.domain.ports import GuardStore, Lease
from shared.usecases.deadline import Call, DeadlineRunner

_log = logging.getLogger(__name__)

# What calls of the store are counted as among those of backends; no backend can be called so.
_STORE: Final = "#guards"
# Longest waits, in seconds. The shortest one is for a request whose time is over: a function is frozen once it has
# answered, and what it was about to tell the others would be told much later.
_ACQUIRE_S: Final = 0.5
# A store that had less than that is not said to fail: the request's own deadline was short.
_FAIR_S: Final = 0.1
_WRITE_S: Final = 0.1
_LEAST_S: Final = 0.02
# A store that fails is left alone for that long.
_PAUSE_S: Final = 1.0
# A call may outlive its deadline by that, in its socket.
_OVERTIME_S: Final = 1.0

_EXPIRES: Final = "a place of %s in %s is free when it expires: %s"


class Place:
    """A place in a pool: free again once the request has left it and the calls that it gave up have ended.

    Safe for threads; `release` gives it back late. Where nothing does, it is free when it expires.
    """

    __slots__ = ("_held", "_left", "_lock", "_release")

    def __init__(self, release: Callable[[], None] | None) -> None:
        self._release = release
        self._lock = Lock()
        self._held = 0
        self._left = False

    def hold(self) -> None:
        """A call was given up, and is still under way."""
        with self._lock:
            self._held += 1

    def let_go(self) -> None:
        """A call that was given up has ended; that may be told before `hold`."""
        with self._lock:
            self._held -= 1
            is_free = self._left and not self._held
        if is_free and self._release is not None:
            self._release()

    def leave(self) -> bool:
        """The request needs the place no more; whether nobody else does."""
        with self._lock:
            self._left = True
            return not self._held


class SharedGuards:
    """The store, with bounded waiting; safe for threads. `now` is in seconds since 1970."""

    def __init__(
        self,
        store: GuardStore,
        runner: DeadlineRunner,
        *,
        now: Callable[[], float] = time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._runner = runner
        self._now = now
        self._ticks = ticks
        self._paused_until = float("-inf")

    def tell(self, endpoint: str, circuit: str, change: Change, left_s: float) -> None:
        """Tell the others what became of a circuit; `left_s` is what is left of the request's time."""

        def write() -> None:
            if change.open_until is None:
                self._store.close(endpoint, circuit)
            else:
                self._store.open(endpoint, circuit, change.open_until)

        state = "closed" if change.open_until is None else "open"
        _log.info("the circuit %s of %s is %s", circuit, endpoint, state)
        try:
            self._runner.run(_STORE, write, _bounded(left_s))
        except BackendError as error:
            _log.warning("the circuit %s of %s is %s; nobody was told: %s", circuit, endpoint, state, error.detail)

    @contextmanager
    def place(
        self, endpoint: str, pool: str, limits: EndpointLimits, tenant: str, left_s: Callable[[], float]
    ) -> Iterator[Place]:
        """A place in the pool while the block runs; raises Overloaded if there is none for this tenant's priority.

        Without a limit, and while the store fails, everybody has one. BackendTimeout for a request that has no time to
        wait for the store.
        """
        lease = self._acquire(endpoint, pool, limits, tenant, left_s()) if limits.concurrency else None
        place = Place(None if lease is None else lambda: self._release_late(lease))
        try:
            yield place
        finally:
            if place.leave() and lease is not None:
                self._release(lease, left_s())

    def _acquire(self, endpoint: str, pool: str, limits: EndpointLimits, tenant: str, left_s: float) -> Lease | None:
        if self._ticks() < self._paused_until:
            return None
        priority = limits.priorities.get(tenant, "normal")
        slots = places_of(limits.concurrency or 0, priority)
        now = self._now()

        def acquire() -> Lease | None:
            return self._store.acquire(endpoint, pool, slots, now + left_s + _OVERTIME_S, now)

        def give_back(call: Call[Lease | None]) -> None:
            if call.error is not None:
                self._paused_until = self._ticks() + _PAUSE_S
            elif call.value is not None:
                self._store.release(call.value)

        wait_s = min(_ACQUIRE_S, left_s / 2)
        is_short = wait_s < _FAIR_S
        try:
            lease = self._runner.run(_STORE, acquire, wait_s, late=give_back, brief=is_short)
        except BackendError as error:
            if is_short and isinstance(error, BackendTimeout | Overloaded):
                # Else any caller could switch the bound off for all with a deadline that no store can keep.
                raise BackendTimeout(f"No time was left to find a place among the calls of {pool}.") from error
            self._paused_until = self._ticks() + _PAUSE_S
            _log.warning("a call of %s by %s has no place, and is let through: %s", pool, endpoint, error.detail)
            return None
        if lease is None:
            raise Overloaded(
                f"As many calls of {pool} are under way as this endpoint may make with the priority {priority}."
            )
        return lease

    def _release_late(self, lease: Lease) -> None:
        try:
            self._store.release(lease)
        except BackendError as error:
            _log.warning(_EXPIRES, lease.endpoint, lease.pool, error.detail)

    def _release(self, lease: Lease, left_s: float) -> None:
        try:
            self._runner.run(_STORE, lambda: self._store.release(lease), _bounded(left_s))
        except BackendError as error:
            _log.warning(_EXPIRES, lease.endpoint, lease.pool, error.detail)


def places_of(concurrency: int, priority: Priority) -> int:
    """How many of the places a priority sees, one at the least: half, 80 % or all of them."""
    seen = {"low": concurrency // 2, "normal": concurrency * 4 // 5, "high": concurrency}[priority]
    return max(1, seen)


def _bounded(left_s: float) -> float:
    return max(_LEAST_S, min(_WRITE_S, left_s))
