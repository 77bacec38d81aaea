"""A registry whose answers are kept in memory for some seconds: the hot path asks no store."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from time import time

from shared.adapters.patient_reads import PatientReads
from shared.domain.errors import BackendError, NotFound
from shared.domain.model import ModelVersion
from shared.domain.ports import ModelRegistry

_log = logging.getLogger(__name__)

_Key = tuple[str, int | None]


@dataclass(slots=True)
class _Entry:
    """An answer, when reading it began, and since when the store is not asked for it."""

    answer: ModelVersion | NotFound
    read_at: float
    since: float


class CachedModels:
    """Decorates a `ModelRegistry`; `latest` and `get` are cached, listings and `add` go through.

    A version is kept for `ttl_s` seconds, so a new one is served at most that much later. That a model is unknown is
    kept for `negative_ttl_s`, in a room of its own, so made-up names cannot push known models out. Both rooms hold
    `max_entries`, the least recently used go first.

    While the store fails or hangs, the last good answer is given again: a request waits `wait_s` seconds for a newer
    one, and but a glance until the store works again. It waits `first_wait_s` for what was never read, and then gets
    BackendTimeout; those who come within `pause_s` of that wait but a glance too. `clock` gives seconds of wall time: a
    monotonic clock may stand still while a function is frozen.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        ttl_s: float = 5.0,
        negative_ttl_s: float = 1.0,
        wait_s: float = 0.9,
        first_wait_s: float = 3.0,
        pause_s: float = 1.0,
        max_entries: int = 1000,
        clock: Callable[[], float] = time,
    ) -> None:
        self._registry = registry
        self._ttl_s = ttl_s
        self._negative_ttl_s = negative_ttl_s
        self._wait_s = wait_s
        self._first_wait_s = first_wait_s
        self._max_entries = max_entries
        self._clock = clock
        self._reads = PatientReads("The model registry", clock, pause_s)
        self._lock = Lock()
        self._added = 0
        self._found: OrderedDict[_Key, _Entry] = OrderedDict()
        self._missing: OrderedDict[_Key, _Entry] = OrderedDict()

    def latest(self, model: str) -> ModelVersion:
        """The highest version as it was at most `ttl_s` seconds ago."""
        return self._answer((model, None), lambda: self._registry.latest(model))

    def get(self, model: str, version: int) -> ModelVersion:
        """One version."""
        return self._answer((model, version), lambda: self._registry.get(model, version))

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """All versions, not cached."""
        return self._registry.versions(model)

    def models(self) -> Sequence[ModelVersion]:
        """All models, not cached."""
        return self._registry.models()

    def add(self, version: ModelVersion) -> bool:
        """Add a version; what this cache knows of the model is forgotten."""
        added = self._registry.add(version)
        with self._lock:
            self._added += 1
            for room in (self._found, self._missing):
                for key in [key for key in room if key[0] == version.model]:
                    del room[key]
        return added

    def _answer(self, key: _Key, ask: Callable[[], ModelVersion]) -> ModelVersion:
        with self._lock:
            known = self._fresh(self._found, key, self._ttl_s) or self._fresh(self._missing, key, self._negative_ttl_s)
        if known is None:
            # Not under the lock: two threads may ask for the same, which is cheaper than all waiting for one.
            known = self._ask(key, ask)
        if isinstance(known, NotFound):
            # A new one each time: an exception that is raised again and again collects tracebacks.
            raise type(known)(known.detail)
        return known

    def _ask(self, key: _Key, ask: Callable[[], ModelVersion]) -> ModelVersion | NotFound:
        began = self._clock()
        with self._lock:
            added, stale = self._added, self._found.get(key)
            if stale is not None and self._reads.is_paused:
                return stale.answer

        def read() -> ModelVersion | NotFound:
            answer: ModelVersion | NotFound
            try:
                answer = ask()
            except NotFound as error:
                answer = type(error)(error.detail)
            self._keep(key, answer, began, added)  # of use even when nobody waits for it any more
            return answer

        try:
            return self._reads(read, self._patience(stale))
        except BackendError as error:
            with self._lock:
                stale = self._found.get(key)
                if stale is None:
                    raise
                stale.since = self._clock()  # ask again after another ttl, not at every request of an outage
            _log.warning("model registry failed, serving %s from memory: %s", key[0], error)
            return stale.answer

    def _patience(self, stale: _Entry | None) -> float:
        if stale is not None:
            return self._reads.patience(self._wait_s)
        # One request may ask for several versions: it waits in full for the first of them only.
        return self._reads.patience(self._first_wait_s) if self._reads.is_paused else self._first_wait_s

    def _fresh(self, room: OrderedDict[_Key, _Entry], key: _Key, ttl_s: float) -> ModelVersion | NotFound | None:
        entry = room.get(key)
        # A clock that was set back makes the age negative: such an entry is not fresh either.
        if entry is None or not 0 <= self._clock() - entry.since < ttl_s:
            return None
        room.move_to_end(key)
        return entry.answer

    def _keep(self, key: _Key, answer: ModelVersion | NotFound, began: float, added: int) -> None:
        missing = isinstance(answer, NotFound)
        room, other = (self._missing, self._found) if missing else (self._found, self._missing)
        with self._lock:
            known = self._found.get(key) or self._missing.get(key)
            if added != self._added or (known is not None and began < known.read_at <= self._clock()):
                return  # what is known by now is newer
            other.pop(key, None)
            room[key] = _Entry(answer, began, began)
            room.move_to_end(key)
            while len(room) > self._max_entries:
                room.popitem(last=False)
