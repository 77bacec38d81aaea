"""Reads of a store that may hang: on threads of their own, and waited for no longer than they are worth."""

import logging
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final, Generic, TypeVar

from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Reads that nobody waits for any more go on until their own time is up: a store that hangs gets no more of them.
_MAX_ABANDONED: Final = 4
# How long those wait who ask a store that hung the last time, in seconds.
GLANCE_S: Final = 0.05


class _Read(Generic[T]):
    """A read on a thread of its own. Who waits for it may give it up; whoever is first, under the lock, decides."""

    __slots__ = ("abandoned", "answers", "done")

    def __init__(self) -> None:
        self.answers: SimpleQueue[tuple[T] | Exception] = SimpleQueue()
        self.done = False
        self.abandoned = False


class PatientReads:
    """Runs reads of one store, and remembers whether it works; safe for threads.

    The bounds of a client are for each step of a call, and not for the whole: a store that drips, or has no socket to
    give, would hold a request far longer. After a read that failed or was late the store is paused for `pause_s`, and
    it counts as hanging from a late read to the next one that goes well. `what` names it in errors; `clock` gives
    seconds of wall time.
    """

    def __init__(self, what: str, clock: Callable[[], float], pause_s: float) -> None:
        self._what = what
        self._clock = clock
        self._pause_s = pause_s
        self._lock = Lock()
        self._paused: tuple[float, float] = (0.0, 0.0)
        self._hangs = False
        self._abandoned = 0

    @property
    def is_paused(self) -> bool:
        """Whether it failed a moment ago, so that who has an older answer need not ask."""
        since, until = self._paused
        # Also false when the clock was set back.
        return since <= self._clock() < until

    @property
    def hangs(self) -> bool:
        """Whether the last that was heard of it is that it did not answer in time."""
        return self._hangs

    def patience(self, wait_s: float) -> float:
        """How long to wait for a read that may take `wait_s` seconds: a glance once the store hangs."""
        return min(wait_s, GLANCE_S) if self._hangs else wait_s

    def __call__(self, read: Callable[[], T], wait_s: float) -> T:
        """What `read` gives or raises within `wait_s` seconds.

        `read` goes on when it is given up: what it gives is of use if it keeps that itself. BackendTimeout if it is not
        done, BackendUnavailable if too many reads that were given up still go on.
        """
        if self._abandoned >= _MAX_ABANDONED:
            raise BackendUnavailable(f"{self._what} hangs.")
        try:
            return self._wait(self._start(read), wait_s)
        except (BackendUnavailable, BackendTimeout) as error:
            now = self._clock()
            self._paused = (now, now + self._pause_s)
            self._hangs = isinstance(error, BackendTimeout)
            raise
        except BackendError:
            self._hangs = False
            raise

    def _start(self, read: Callable[[], T]) -> _Read[T]:
        reading: _Read[T] = _Read()

        def run() -> None:
            answer: tuple[T] | Exception
            try:
                answer = (read(),)
                self._hangs = False
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                answer = error
            reading.answers.put(answer)
            with self._lock:
                reading.done = True
                self._abandoned -= reading.abandoned
            if reading.abandoned and isinstance(answer, Exception) and not isinstance(answer, BackendError):
                _log.error("a read that nobody waits for any more failed", exc_info=answer)

        try:
            # In the context of who asks: the calls that it makes are that request's.
            Thread(target=copy_context().run, args=(run,), name="patient-read", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            raise BackendUnavailable(f"{self._what} cannot be asked now.") from error
        return reading

    def _wait(self, reading: _Read[T], wait_s: float) -> T:
        try:
            answer = reading.answers.get(timeout=wait_s)
        except Empty:
            with self._lock:
                reading.abandoned = not reading.done
                self._abandoned += reading.abandoned
            raise BackendTimeout(f"{self._what} did not answer in time.") from None
        if isinstance(answer, Exception):
            raise answer
        return answer[0]
