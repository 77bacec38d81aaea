"""Tells what runs for one piece of work that it is wanted no more, wherever in this process that is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Final


class StopSignal:
    """Set once, for good; what is registered by then is told, and what comes later as well. Safe for threads."""

    __slots__ = ("_actions", "_lock", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._actions: list[Callable[[], None]] = []
        self._lock = Lock()

    def set(self) -> None:
        """Stop the work; actions are called on this thread, and must be quick."""
        with self._lock:
            self.is_set = True
            actions = list(self._actions)
        for action in actions:
            action()

    @contextmanager
    def calling(self, action: Callable[[], None]) -> Iterator[None]:
        """Have `action` called when the signal is set within the block, at once if it is set already."""
        with self._lock:
            self._actions.append(action)
            already = self.is_set
        try:
            if already:
                action()
            yield
        finally:
            with self._lock:
                self._actions.remove(action)


_current: Final[ContextVar[StopSignal | None]] = ContextVar("stop_signal", default=None)


def stop_signal() -> StopSignal | None:
    """The signal of the work that this context belongs to; None for work that nobody stops."""
    return _current.get()


@contextmanager
def stoppable(signal: StopSignal) -> Iterator[None]:
    """Let what begins within the block belong to the work of a signal, on threads with a copy of its context too."""
    token = _current.set(signal)
    try:
        yield
    finally:
        _current.reset(token)
