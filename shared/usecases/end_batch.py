"""Ends a run over a file that cannot succeed: with its reason, and with a manifest of what was found until then."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from shared.domain.batch_plan import MAX_BYTES, BatchPlan, read_plan
from shared.domain.batch_ports import BatchObjects, BatchStore
from shared.domain.batches import BatchState, Progress, plan_key
from shared.domain.errors import InvalidRequest, NotFound, Refused, SluiceError
from shared.domain.jobs import Job, JobProblem, Outcome
from shared.domain.ports import DeadLetters, JobStore
from shared.usecases.batch_results import write_manifest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndBatch:
    """Fails runs; one for each environment."""

    jobs: JobStore
    store: BatchStore
    objects: BatchObjects
    dead_letters: DeadLetters
    now: Callable[[], float] = time

    def __call__(self, job: Job, error: SluiceError, *, owner: str | None = None) -> bool:
        """Fail a job; False if it has ended already. What is our fault leaves a message among the dead letters.

        Raises BackendError where the job could not be ended: then it is as it was.
        """
        problem = JobProblem.of(error)
        at = self.now()
        progress = self.store.progress(job.job_id)
        if progress is None or progress.state not in ("queued", "running"):
            return False
        state = self._told(job, progress, problem, at)
        if not isinstance(error, InvalidRequest | NotFound | Refused):
            # Before the end: a crash between the two has the job failed once more, and no letter lost.
            self.dead_letters.send(job, problem)
        # The counts stay as they are stored: parts that ended since the job was read are among them.
        outcome = Outcome("failed", problem=problem, batch=None if state is None else state.encode())
        return self.jobs.finish(job.job_id, outcome, at, owner=owner)

    def _told(self, job: Job, progress: Progress, problem: JobProblem, at: float) -> BatchState | None:
        """The batch's state with its manifest; a job ends all the same where none can be written."""
        try:
            state = BatchState.decode(job.batch)
            plan = self._plan(job)
            return write_manifest(
                self.objects,
                job,
                state,
                plan=plan,
                progress=progress,
                output=None,
                problem=problem,
                at=at,
                cost_nusd=progress.cost_nusd,
            )
        except SluiceError as error:
            fields = {"job_id": job.job_id, "error": error.detail}
            _log.warning("a failed batch has no manifest", extra={"fields": fields}, exc_info=True)
            return None

    def _plan(self, job: Job) -> BatchPlan | None:
        stored = self.objects.get(plan_key(job.job_id), MAX_BYTES)
        return None if stored is None else read_plan(stored)
