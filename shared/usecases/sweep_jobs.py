"""Looks after jobs that nobody seems to look after: the message was lost, the worker was killed, no notice came.

Every job that has not ended says when it is to be looked at. The sweep does so with one conditional write that says
when it is looked at next, so of two sweeps one goes on; what follows is a message, which has no effect if it is one
too many.

Where next to nothing waits, a job that is queued has no message: it gets one at each sweep. Where many wait, most have
theirs, and a look only costs: so it comes when those that wait now may have been worked off, and another message is
sent to those that have waited for an hour, then to those that have waited for twice as long.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from time import time
from typing import Final, Literal

from shared.domain.errors import BackendError, JobCrashed, JobExpired, SluiceError
from shared.domain.jobs import LEASE_S, MAX_ATTEMPTS, OVERDUE_S, Job, JobKind, JobProblem, Outcome
from shared.domain.ports import DeadLetters, JobQueue, JobStore

# Looks mostly wait for AWS.
_AT_ONCE: Final = 8
# What is looked at in one sweep is overdue in the next, a minute later.
_SOONEST_S: Final = 45.0
_LATEST_S: Final = 900.0
# A queue with no more messages than one worker takes at once is as good as empty.
_FEW: Final = 10
# As long as one of those that wait is expected to take: 3,000 a minute, about as many as a sweep can look at.
_EACH_S: Final = 0.02
# Where many wait, a message that has not been seen for so long is taken for lost.
_LOST_S: Final = 3600.0
# In an empty queue a job that does not begin is looked at more and more seldom: after a sixtieth of what it waited.
_SHARE: Final = 1 / 60
# Whatever a job waits for, it ends before its item goes.
_BEFORE_END_S: Final = 3600.0

Look = Literal["sent", "waiting", "held", "requeued", "crashed", "expired", "overtaken"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Swept:
    """What a sweep did: the jobs that it looked at, and what it did with them.

    `sent`: a message was sent. `waiting`: there are messages enough. `held`: somebody runs it. `requeued`: its worker
    was gone. `crashed`, `expired`: it failed. `overtaken`: it changed while it was looked at. `complete` is False where
    the time was not enough for all, or a store failed: the next sweep goes on.
    """

    jobs: int = 0
    sent: int = 0
    waiting: int = 0
    held: int = 0
    requeued: int = 0
    crashed: int = 0
    expired: int = 0
    overtaken: int = 0
    complete: bool = True

    def count(self, look: Look) -> None:
        """One job more, and what was done with it."""
        self.jobs += 1
        setattr(self, look, getattr(self, look) + 1)


class SweepJobs:
    """Sweeps; `dead_letters` are by the kind of job, `wake_batch` has a batch gone on with.

    `now` gives seconds since 1970; `at_once` jobs are looked at at a time.
    """

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        dead_letters: Mapping[JobKind, DeadLetters],
        wake_batch: Callable[[Job], None],
        now: Callable[[], float] = time,
        at_once: int = _AT_ONCE,
    ) -> None:
        self._store = store
        self._queue = queue
        self._dead_letters = dead_letters
        self._wake_batch = wake_batch
        self._now = now
        self._at_once = at_once

    def __call__(self, seconds: float) -> Swept:
        """Look at the jobs whose time is up, the longest overdue first, for so many seconds.

        Raises BackendError if the store of jobs cannot be asked at all.
        """
        began = self._now()
        swept = Swept()
        pages = self._store.overdue(began)
        first = next(pages, None)
        if first is None:
            return swept
        try:
            self._sweep(chain([first], pages), began + seconds, swept)
        except BackendError:
            # Those that were not reached are as overdue the next time; the others are looked at again anyway.
            _log.warning("the sweep was cut short", exc_info=True)
            swept.complete = False
        return swept

    def _sweep(self, pages: Iterator[Sequence[Job]], ends: float, swept: Swept) -> None:
        waiting = self._queue.waiting()

        def look(job: Job) -> Look | None:
            return self._look(job, waiting) if self._now() < ends else None

        with ThreadPoolExecutor(self._at_once, "sweep") as pool:
            for jobs in pages:
                swept.complete = self._now() < ends
                for done in pool.map(look, jobs if swept.complete else ()):
                    if done is None:
                        swept.complete = False
                    else:
                        swept.count(done)
                if not swept.complete:
                    return

    def _look(self, job: Job, waiting: int) -> Look:
        now = self._now()
        if not self._store.postpone(job, _next(job, now, waiting)):
            return "overtaken"
        if _is_expired(job, now):
            return "expired" if self._fail(job, JobExpired(_why_expired(job))) else "overtaken"
        if job.kind == "batch":
            self._wake_batch(job)
            return "sent"
        if job.state == "running" and job.ticket is None:
            return self._look_at_run(job, now)
        if job.state == "queued" and waiting > _FEW and now - job.waits_since < _LOST_S:
            return "waiting"
        self._queue.send(job.tenant, job.job_id)
        return "sent"

    def _look_at_run(self, job: Job, now: float) -> Look:
        """A job that somebody held at least until now."""
        if job.lease_until is not None and job.lease_until >= now:
            return "held"
        crash = JobCrashed(f"The worker ended in the middle of the job, which was begun {job.attempts} times.")
        if job.attempts >= MAX_ATTEMPTS:
            return "crashed" if self._fail(job, crash) else "overtaken"
        if not self._store.requeue(job.job_id, None, JobProblem.of(crash), now + OVERDUE_S):
            return "overtaken"
        self._queue.send(job.tenant, job.job_id)
        return "requeued"

    def _fail(self, job: Job, error: SluiceError) -> bool:
        """End a job for good, unless it has changed hands; the letter goes first, so that a crash loses none."""
        problem = JobProblem.of(error)
        self._dead_letters[job.kind].send(job, problem)
        return self._store.finish(job.job_id, Outcome("failed", problem=problem), self._now(), owner=job.owner)


def _next(job: Job, now: float, waiting: int) -> float:
    """When a job is looked at next, where so many messages wait."""
    if job.state == "running" and job.ticket is None and job.lease_until is not None:
        return max(now, job.lease_until) + LEASE_S
    waited_s = now - job.waits_since
    if job.kind == "batch" or job.state == "running":
        # After half of what it took until now: what takes long is not asked about all the time.
        pause_s = min(_LATEST_S, max(OVERDUE_S, waited_s / 2))
    elif waiting <= _FEW:
        pause_s = min(_LATEST_S, max(_SOONEST_S, waited_s * _SHARE))
    else:
        pause_s = max(_SOONEST_S, waiting * _EACH_S, waited_s if waited_s >= _LOST_S else 0.0)
    over_at = job.expires_at - _BEFORE_END_S if job.attempts else job.start_by
    return min(now + pause_s, max(now + _SOONEST_S, over_at))


def _is_expired(job: Job, now: float) -> bool:
    """Whether a job's time is over: that to begin, or for what nobody holds that of its item."""
    if job.state == "queued" and job.attempts == 0 and now >= job.start_by:
        return True
    held = job.lease_until is not None and job.lease_until >= now
    return not held and now >= job.expires_at - _BEFORE_END_S


def _why_expired(job: Job) -> str:
    if job.attempts == 0:
        return "The job had not begun when its time to begin was over."
    return "The job had not ended when its time was over."
