"""Stops runs of ONNX Runtime at their deadline: one thread for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.adapters.onnx.runtime import RunOptions


class RunDeadlines:
    """Sets `terminate` of run options when their time is over; safe for threads.

    The thread starts with the first run. It sleeps until the earliest deadline that it knows of, and is woken only for
    an earlier one: a run that ends in time costs a few microseconds.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._ends: dict[RunOptions, float] = {}
        self._wakes_at = float("inf")
        self._thread: Thread | None = None

    @contextmanager
    def until(self, ends: float) -> "Iterator[RunOptions]":
        """Options for a run that is stopped at `ends` (`time.monotonic`), between two operators of its graph."""
        # ONNX Runtime is heavy, and has been imported by whoever loaded a package.
        from shared.adapters.onnx.runtime import RunOptions

        options = RunOptions()
        options.log_severity_level = 4  # a run that is stopped writes to stderr otherwise
        with self._changed:
            self._ends[options] = ends
            if ends < self._wakes_at:
                self._wake(ends)
        try:
            yield options
        finally:
            with self._changed:
                self._ends.pop(options, None)

    def _wake(self, ends: float) -> None:
        self._wakes_at = ends
        if self._thread is None:
            self._thread = Thread(target=self._watch, name="run deadlines", daemon=True)
            self._thread.start()
        else:
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = monotonic()
                for options in [options for options, ends in self._ends.items() if ends <= now]:
                    del self._ends[options]
                    options.terminate = True
                self._wakes_at = min(self._ends.values(), default=float("inf"))
                self._changed.wait(None if self._wakes_at == float("inf") else self._wakes_at - now)
