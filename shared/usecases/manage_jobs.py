"""What callers ask of jobs that were taken on: what has become of them, their results, that they end or begin anew."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import time
from typing import Final

from shared.domain.errors import BackendError, InsufficientScope, JobFinished, NoResult
from shared.domain.jobs import Job, JobFilter, JobPage, JobResult, JobSummary, ObjectRef, Outcome
from shared.domain.ports import JobObjects, JobQueue, JobStore
from shared.domain.principal import Principal

_PREDICT: Final = "predict"
_OF_MODEL: Final = "predict:"
_JOBS: Final = "jobs"
# How long the address of a result works for whoever has it.
URL_S: Final = 900
# One page of a list asks the store so often at most, and each time for a bounded search of its own.
_MOST_QUERIES: Final = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a job: `result.inline`, or for one that is an object `url`, which works for `URL_S` seconds."""

    job: Job
    result: JobResult
    url: str | None


class ManageJobs:
    """Shows, ends and renews the jobs of a caller's tenant; `wake_batch` has a batch gone on with.

    A caller with the scope `predict` or `jobs` may do so with all of them, one with `predict:<model>` with that
    model's.
    """

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        objects: JobObjects,
        wake_batch: Callable[[Job], None],
        now: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._queue = queue
        self._objects = objects
        self._wake_batch = wake_batch
        self._now = now

    def get(self, principal: Principal, job_id: str) -> Job:
        """A job; JobNotFound, InsufficientScope, BackendError."""
        _models(principal)  # who has none of the scopes is not told which jobs there are
        job = self._store.get(principal.tenant, job_id)
        principal.require(_PREDICT, f"{_OF_MODEL}{job.model}", _JOBS)
        return job

    def list(self, principal: Principal, which: JobFilter, *, limit: int, after: str | None = None) -> JobPage:
        """At most `limit` jobs that the caller may see, the newest first, older than the id `after`.

        A page may be short, or empty, and have a cursor all the same: it is as much as was found in a bounded search.
        Raises InsufficientScope, BackendError.
        """
        models = _models(principal)
        if models is None or which.model in models:
            return self._store.list(principal.tenant, which, limit=limit, after=after)
        if which.model is not None:
            raise InsufficientScope(f"This credential may not see the jobs of {which.model}.")
        if len(models) == 1:
            (model,) = models
            return self._store.list(principal.tenant, replace(which, model=model), limit=limit, after=after)
        return self._seen_by(models, principal.tenant, which, limit, after)

    def cancel(self, principal: Principal, job_id: str) -> Job:
        """End a job, also a running one: the run stops within seconds, and what comes of it is dropped.

        The job as it is then, cancelled; again and again if asked so. Raises JobNotFound, InsufficientScope,
        JobFinished, BackendError.
        """
        job = self.get(principal, job_id)
        at = self._now()
        if not job.finished:
            if self._store.finish(job_id, Outcome("cancelled"), at):
                return replace(job, state="cancelled", finished_at=at, due_at=None, owner=None, lease_until=None)
            job = self._store.get(principal.tenant, job_id)  # it ended since it was read
        if job.state != "cancelled":
            raise JobFinished(f"The job has ended: it {job.state}.")
        return job

    def result(self, principal: Principal, job_id: str) -> Found:
        """What came of a job that succeeded; JobNotFound, InsufficientScope, NoResult, BackendError."""
        job = self.get(principal, job_id)
        if job.state != "succeeded" or job.result is None:
            raise NoResult(f"The job is {job.state}: only one that has succeeded has a result.")
        return Found(job, job.result, self.url(job))

    def url(self, job: Job) -> str | None:
        """Where the result of a job can be downloaded for `URL_S` seconds; None if it is in the job itself, or none."""
        if job.result is None or job.result.stored is None:
            return None
        stored = job.result.stored
        return self._objects.url(stored, URL_S, media_type=job.result.media_type, file_name=_file_name(job, stored))

    def retry(self, principal: Principal, job_id: str) -> Job:
        """Queue a failed or cancelled job anew; JobNotFound, InsufficientScope, Conflict, BackendError."""
        self.get(principal, job_id)
        job = self._store.restart(principal.tenant, job_id, self._now())
        try:
            if job.kind == "batch":
                self._wake_batch(job)
            else:
                self._queue.send(job.tenant, job.job_id)
        except BackendError:
            fields = {"fields": {"job_id": job.job_id}}
            _log.warning("a job has no message yet: the sweep sends it", extra=fields, exc_info=True)
        return job

    def _seen_by(self, models: frozenset[str], tenant: str, which: JobFilter, limit: int, after: str | None) -> JobPage:
        """A page of the jobs of several models, which the store cannot tell apart from the others."""
        found: list[JobSummary] = []
        for _ in range(_MOST_QUERIES):
            page = self._store.list(tenant, which, limit=limit - len(found), after=after)
            found += [job for job in page.jobs if job.model in models]
            after = page.cursor
            if after is None or len(found) == limit:
                break
        return JobPage(found, after)


def _models(principal: Principal) -> frozenset[str] | None:
    """The models whose jobs a caller may see, None for all; InsufficientScope where it is none."""
    if {_PREDICT, _JOBS} & principal.scopes:
        return None
    models = frozenset(scope.removeprefix(_OF_MODEL) for scope in principal.scopes if scope.startswith(_OF_MODEL))
    if not models:
        principal.require(_PREDICT, _JOBS)
    return models


def _file_name(job: Job, stored: ObjectRef) -> str:
    """The name that a download gets: that of the object where it has one of its own, as the outputs of batches have."""
    return stored.key.rpartition("/")[2] if job.kind == "batch" else f"{job.model}-{job.job_id}"
