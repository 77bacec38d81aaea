"""Answers kept in this process: each environment of a function has its own."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from time import time
from typing import Final

import numpy as np

from shared.domain.endpoint.target import KeptAnswer
from shared.domain.tensors import Array

# What an entry and an array take besides their bytes; measured with tracemalloc, rounded up.
_ENTRY_BYTES: Final = 1024
_ARRAY_BYTES: Final = 256
_ELEMENT_BYTES: Final = 48  # of a BYTES tensor: the reference and the object's head
_MAX_LEASES: Final = 4096


class _Entry:
    __slots__ = ("answer", "expires_at", "nbytes")

    def __init__(self, answer: KeptAnswer, nbytes: int, expires_at: float) -> None:
        self.answer = answer
        self.nbytes = nbytes
        self.expires_at = expires_at


class MemoryAnswers:
    """Implements `shared.domain.ports.AnswerStore`; safe to use from many threads.

    At most `max_entries` answers of `max_bytes` together, keys included: the least recently used go first, and an
    answer that would take more than a quarter of the bytes is not kept. What is given back has arrays that nobody can
    write to, since several callers get the same ones. `now` is in seconds since 1970.
    """

    def __init__(
        self,
        *,
        max_entries: int = 4096,
        max_bytes: int = 32 * 1024 * 1024,
        now: Callable[[], float] = time,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now = now
        self._lock = Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._leases: dict[str, float] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """What the answers take, by estimate."""
        return self._nbytes

    def get(self, key: str) -> KeptAnswer | None:
        """The answer kept under a key, until the end of the time that it was to be kept."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires_at <= self._now():
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            # The arrays are shared, the mapping is the caller's own.
            return replace(entry.answer, outputs=dict(entry.answer.outputs))

    def put(self, key: str, answer: KeptAnswer, keep_s: float) -> bool:
        """Keep an answer for that many seconds, unless others need the room; its arrays can no longer be written to."""
        outputs = {name: _own(array) for name, array in answer.outputs.items()}
        nbytes = _ENTRY_BYTES + len(key) + sum(_nbytes(array) for array in outputs.values())
        with self._lock:
            self._remove(key)
            if nbytes > self._max_bytes // 4:
                return False
            while self._entries and (
                len(self._entries) >= self._max_entries or self._nbytes + nbytes > self._max_bytes
            ):
                self._remove(next(iter(self._entries)))
            self._entries[key] = _Entry(replace(answer, outputs=outputs), nbytes, self._now() + keep_s)
            self._nbytes += nbytes
            return True

    def lease(self, key: str, seconds: float) -> bool:
        """Whether the caller is the one in this process to make this answer (anew)."""
        now = self._now()
        with self._lock:
            if self._leases.get(key, now) > now:
                return False
            if len(self._leases) >= _MAX_LEASES:
                self._leases = {held: until for held, until in self._leases.items() if until > now}
            # Without room for one more, two may make the same answer, and nobody waits.
            if len(self._leases) < _MAX_LEASES:
                self._leases[key] = now + seconds
            return True

    def release(self, key: str) -> None:
        """Give a lease back before its time."""
        with self._lock:
            self._leases.pop(key, None)

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._nbytes -= entry.nbytes


def _own(array: Array) -> Array:
    """The array, read-only; a copy of a view, which would keep all of what it looks at, and change with it."""
    owned = array if array.base is None else np.array(array)
    owned.flags.writeable = False
    return owned


def _nbytes(array: Array) -> int:
    if array.dtype.kind != "O":
        return _ARRAY_BYTES + array.nbytes
    return _ARRAY_BYTES + sum(_ELEMENT_BYTES + len(value) for value in array.reshape(-1).tolist())
