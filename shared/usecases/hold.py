"""A worker's hold of the job that it runs: renewed while it runs, and told when the job is no longer its own."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Lock
from time import time
from typing import Any, Final, TypeVar

from shared.domain.errors import BackendError, BackendTimeout
from shared.domain.jobs import LEASE_S
from shared.domain.ports import JobStore
from shared.domain.stop_signal import StopSignal, stoppable
from shared.usecases.deadline import Call, DeadlineRunner

_log = logging.getLogger(__name__)

T = TypeVar("T")

RENEW_S: Final = 5.0
# Below the visibility of messages, which is `LEASE_S`, by more than one renewal: a killed worker's message never comes
# back before its job is free.
JOB_LEASE_S: Final = LEASE_S - 2 * RENEW_S


class JobLost(Exception):
    """The job is no longer this worker's: it was cancelled, or another has taken it."""


class Hold:
    """Holds one job at a time; `beat` is called every `RENEW_S` seconds on another thread than the job's."""

    def __init__(
        self,
        store: JobStore,
        *,
        now: Callable[[], float] = time,
        lease_s: float = JOB_LEASE_S,
    ) -> None:
        self._store = store
        self._now = now
        self.lease_s = lease_s
        self._lock = Lock()
        self._held: Held | None = None

    @contextmanager
    def of(self, job_id: str, owner: str) -> Iterator["Held"]:
        """Hold a job that was claimed by `owner`, until the end of the block."""
        held = Held(job_id, owner)
        with self._lock:
            self._held = held
        try:
            yield held
        finally:
            with self._lock:
                self._held = None

    def beat(self) -> None:
        """Renew the hold, if there is one; a store that fails is tried again the next time."""
        held = self._held
        if held is None or held.lost:
            return
        try:
            kept = self._store.renew(held.job_id, held.owner, self._now() + self.lease_s, held.rows_done)
        except BackendError as error:
            _log.warning(
                "a job's hold is not renewed", extra={"fields": {"job_id": held.job_id, "reason": error.detail}}
            )
            return
        if kept:
            return
        with self._lock:
            if self._held is held:  # else it has ended meanwhile
                held.lose()


class Held:
    """One job that is held; `rows_done` is its progress, which the next renewal tells."""

    __slots__ = ("_done", "_signal", "job_id", "owner", "rows_done")

    def __init__(self, job_id: str, owner: str) -> None:
        self.job_id = job_id
        self.owner = owner
        self.rows_done = 0
        self._signal = StopSignal()
        self._done: SimpleQueue[Call[Any] | None] = SimpleQueue()

    @property
    def lost(self) -> bool:
        """Whether the job is no longer this worker's."""
        return self._signal.is_set

    def check(self) -> None:
        """Raise JobLost once the job is lost."""
        if self.lost:
            raise JobLost

    def lose(self) -> None:
        """Say that the job is lost, to who waits in `run` and to what runs in this process for it."""
        self._signal.set()
        self._done.put(None)

    def run(self, runner: DeadlineRunner, call: Callable[[], T], seconds: float) -> T:
        """What the call gives on another thread; JobLost as soon as the job is lost, BackendTimeout at the end."""
        self.check()
        if seconds <= 0:
            raise BackendTimeout("No time was left to run the job.")
        with stoppable(self._signal):
            started: Call[T] = runner.start("jobs", call, self._done)  # type: ignore[arg-type]  # None is ours
        try:
            if self._done.get(timeout=seconds) is None and runner.abandon(started):
                raise JobLost
        except Empty:
            if runner.abandon(started):
                raise BackendTimeout(f"The job did not end within {seconds:.0f} s.") from None
        return started.result()
