"""What environments share of endpoints, kept in memory for some seconds: a change is in force that much later."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import time
from typing import TypeVar

from shared.adapters.patient_reads import PatientReads
from shared.domain.endpoint.config import EndpointConfig, EndpointState
from shared.domain.errors import BackendError, BackendUnavailable
from shared.domain.ports import EndpointReader

_log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Kept:
    """A state, when reading it began, and from when to when the store is not asked for it."""

    state: EndpointState
    read_at: float
    since: float
    until: float


class CachedEndpoints:
    """Gives the state of an endpoint, at most `ttl_s` seconds old while the store works.

    While the store fails or hangs, the last state that was read holds. Without one nothing can be told, not even that
    the defaults hold: what is configured may say whom to refuse, and what not to tell. A request waits `wait_s` seconds
    for the store at most. Then nobody who has a state asks for `pause_s`, an endpoint without one is not asked for
    again for as long, and until the store works again all of them wait but a glance. Holds `max_entries` of what is
    stored and as many of what is not, so that made-up names push out no configuration; the least recently used go
    first. `clock` gives seconds of wall time.
    """

    def __init__(
        self,
        reader: EndpointReader,
        *,
        ttl_s: float = 4.0,
        wait_s: float = 0.9,
        pause_s: float = 1.0,
        max_entries: int = 1000,
        clock: Callable[[], float] = time,
    ) -> None:
        self._reader = reader
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._pause_s = pause_s
        self._max_entries = max_entries
        self._clock = clock
        self._reads = PatientReads("The store of endpoint configurations", clock, pause_s)
        self._lock = Lock()
        self._stored: OrderedDict[str, _Kept] = OrderedDict()
        self._absent: OrderedDict[str, _Kept] = OrderedDict()
        self._unread: OrderedDict[str, float] = OrderedDict()

    def __call__(self, endpoint: str) -> EndpointState:
        """The state of one endpoint; BackendUnavailable if it could not be read, and none is kept."""
        now = self._clock()
        with self._lock:
            kept = self._find(endpoint)
            # Also false when the clock was set back: nothing is kept for ever.
            if kept is not None and (kept.since <= now < kept.until or self._reads.is_paused):
                return kept.state
            if kept is None and 0 <= now - self._unread.get(endpoint, float("-inf")) < self._pause_s:
                raise _unavailable()

        def read() -> EndpointState:
            state = self._reader.read(endpoint)
            self._keep(endpoint, state, now)  # of use even when nobody waits for it any more
            return state

        try:
            return self._reads(read, self._reads.patience(self._wait_s))
        except BackendError as error:
            return self._fail(endpoint, error)

    def config(self, endpoint: str) -> EndpointConfig:
        """The configuration in force, which is the default one where nothing is stored; BackendUnavailable."""
        stored = self(endpoint).stored
        return EndpointConfig(endpoint) if stored is None else stored.config

    def _find(self, endpoint: str) -> _Kept | None:
        for room in (self._stored, self._absent):
            if (kept := room.get(endpoint)) is not None:
                room.move_to_end(endpoint)
                return kept
        return None

    def _keep(self, endpoint: str, state: EndpointState, read_at: float) -> None:
        with self._lock:
            kept = self._find(endpoint)
            if kept is not None and read_at < kept.read_at <= self._clock():
                return  # a read that began later was faster
            room, other = (self._absent, self._stored) if state.stored is None else (self._stored, self._absent)
            other.pop(endpoint, None)
            self._unread.pop(endpoint, None)
            self._put(room, endpoint, _Kept(state, read_at, read_at, read_at + self._ttl_s))

    def _fail(self, endpoint: str, error: BackendError) -> EndpointState:
        _log.warning("endpoint not read", extra={"fields": {"endpoint": endpoint, "reason": error.detail}})
        now = self._clock()
        with self._lock:
            kept = self._find(endpoint)
            if kept is None:
                self._put(self._unread, endpoint, now)
                raise _unavailable() from error
            kept.since, kept.until = now, now + self._pause_s
            return kept.state

    def _put(self, room: OrderedDict[str, _Value], endpoint: str, value: _Value) -> None:
        room[endpoint] = value
        room.move_to_end(endpoint)
        if len(room) > self._max_entries:
            room.popitem(last=False)


def _unavailable() -> BackendUnavailable:
    return BackendUnavailable("The configuration of this endpoint cannot be read now.", retry_after_s=1.0)
