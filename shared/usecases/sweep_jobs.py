"""Looks after jobs that nobody seems to look after: the message was lost, the worker was killed, no notice came.

Every job that has not ended says when it is to be looked at. The sweep does so with one conditional write that says
when it is looked at next, so of two sweeps one goes on; what follows is a message, which has no effect if it is one
too many.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Final

from shared.domain.errors import BackendError, JobCrashed, JobExpired, SluiceError
from shared.domain.jobs import LEASE_S, MAX_ATTEMPTS, OVERDUE_S, Job, JobKind, JobProblem, Outcome
from shared.domain.ports import DeadLetters, JobQueue, JobStore

MAX_JOBS: Final = 500
_AT_ONCE: Final = 100
# A job's next look comes after half its age, within these: what waits for long is not asked about all the time.
_SOONEST_S: Final = OVERDUE_S
_LATEST_S: Final = 900.0
# A message that has not been seen for so long is taken for lost, even where others wait.
_LOST_S: Final = 3600.0
# Whatever a job waits for, it ends before its item goes.
_BEFORE_END_S: Final = 3600.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Swept:
    """What a sweep did: the jobs that it looked at, and what it did with them.

    `sent`: a message was sent. `waiting`: there are messages enough. `held`: somebody runs it. `requeued`: its worker
    was gone. `crashed`, `expired`: it failed. `overtaken`: it changed while it was looked at. `complete` is False where
    the time or the number of jobs was not enough for all, or a store failed: the next sweep goes on.
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


class SweepJobs:
    """Sweeps; `dead_letters` are by the kind of job, `wake_batch` has a batch gone on with.

    `now` gives seconds since 1970.
    """

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        dead_letters: Mapping[JobKind, DeadLetters],
        wake_batch: Callable[[Job], None],
        now: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._queue = queue
        self._dead_letters = dead_letters
        self._wake_batch = wake_batch
        self._now = now

    def __call__(self, seconds: float) -> Swept:
        """Look at the jobs whose time is up, the longest overdue first: `MAX_JOBS` at most, and for so many seconds.

        Raises BackendError if the store of jobs cannot be asked at all.
        """
        began = self._now()
        swept = Swept()
        idle: bool | None = None
        while swept.jobs < MAX_JOBS:
            overdue = self._store.overdue(began, min(_AT_ONCE, MAX_JOBS - swept.jobs))
            if not overdue:
                return swept
            try:
                idle = self._queue.waiting() == 0 if idle is None else idle
                for job in overdue:
                    if self._now() - began > seconds:
                        swept.complete = False
                        return swept
                    swept.jobs += 1
                    self._look(job, swept, idle)
            except BackendError:
                # Those that were not reached are as overdue the next time; the others are looked at again anyway.
                _log.warning("the sweep was cut short", exc_info=True)
                swept.complete = False
                return swept
            if len(overdue) < _AT_ONCE:
                return swept
        swept.complete = False
        return swept

    def _look(self, job: Job, swept: Swept, idle: bool) -> None:
        now = self._now()
        if not self._store.postpone(job, self._next(job, now)):
            swept.overtaken += 1
        elif _is_expired(job, now):
            swept.expired += self._fail(job, JobExpired(_why_expired(job)))
        elif job.kind == "batch":
            self._wake_batch(job)
            swept.sent += 1
        elif job.state == "running" and job.ticket is None:
            self._look_at_run(job, now, swept)
        elif job.state == "queued" and not idle and now - job.created_at < _LOST_S:
            swept.waiting += 1
        else:
            self._queue.send(job.tenant, job.job_id)
            swept.sent += 1

    def _look_at_run(self, job: Job, now: float, swept: Swept) -> None:
        """A job that somebody held at least until now."""
        if job.lease_until is not None and job.lease_until >= now:
            swept.held += 1
            return
        crash = JobCrashed(f"The worker ended in the middle of the job, which was begun {job.attempts} times.")
        if job.attempts >= MAX_ATTEMPTS:
            swept.crashed += self._fail(job, crash)
        elif self._store.requeue(job.job_id, None, JobProblem.of(crash), now + OVERDUE_S):
            self._queue.send(job.tenant, job.job_id)
            swept.requeued += 1
        else:
            swept.overtaken += 1

    def _fail(self, job: Job, error: SluiceError) -> bool:
        """End a job for good, unless it has changed hands; the letter goes first, so that a crash loses none."""
        problem = JobProblem.of(error)
        self._dead_letters[job.kind].send(job, problem)
        return self._store.finish(job.job_id, Outcome("failed", problem=problem), self._now(), owner=job.owner)

    def _next(self, job: Job, now: float) -> float:
        """When a job is looked at next."""
        if job.state == "running" and job.ticket is None and job.lease_until is not None:
            return max(now, job.lease_until) + LEASE_S
        later = now + min(_LATEST_S, max(_SOONEST_S, (now - job.created_at) / 2))
        return min(later, max(now + _SOONEST_S, job.start_by)) if not job.attempts else later


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
