"""A small cache whose entries end by time."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class TimedCache(Generic[_Key, _Value]):
    """Keeps at most `size` values for `seconds` each; `now` gives seconds. The oldest makes room for a new one.

    For several threads: two that miss the same key at once both make its value.
    """

    def __init__(self, size: int, seconds: float, now: Callable[[], float]) -> None:
        self._size = size
        self._seconds = seconds
        self._now = now
        self._lock = Lock()
        self._entries: dict[_Key, tuple[float, _Value]] = {}

    def get(self, key: _Key, make: Callable[[_Key], _Value]) -> _Value:
        """The value kept for `key`, or what `make(key)` gives, which is then kept; what `make` raises is not."""
        entry = self._entries.get(key)
        if entry is not None and 0 <= self._now() - entry[0] < self._seconds:
            return entry[1]
        made_at = self._now()
        value = make(key)
        with self._lock:
            self._entries.pop(key, None)
            while len(self._entries) >= self._size:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = (made_at, value)
        return value
