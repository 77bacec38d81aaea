"""How jobs end, or begin anew: one conditional write each, whoever found out what came of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Final, Literal, Protocol

from shared.domain.errors import (
    AsyncRequired,
    BackendError,
    BackendTimeout,
    DeadlineMissed,
    InvalidRequest,
    NotFound,
    Refused,
    SluiceError,
)
from shared.domain.jobs import (
    MAX_ATTEMPTS,
    MAX_INLINE_RESULT,
    OVERDUE_S,
    Job,
    JobProblem,
    JobResult,
    Outcome,
    Ticket,
    backoff_s,
)
from shared.domain.ports import DeadLetters, JobObjects, JobStore
from shared.usecases.prediction import Prediction

_log = logging.getLogger(__name__)

# SQS's longest delay.
_LONGEST_S: Final = 900.0


class Encode(Protocol):
    """Writes the answer of a prediction as its request asked for it."""

    def encode(self, made: Prediction, /) -> tuple[bytes, str, Sequence[tuple[str, str]]]:
        """The body, its media type, and further headers; raises SluiceError."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended, for its log line; `made` and `error` as far as there is one."""

    job: Job
    outcome: Outcome
    made: Prediction | None = None
    error: SluiceError | None = None
    bytes_in: int = 0


class Meter(Protocol):
    """What a job costs, and the line that says so."""

    def cost(self, made: Prediction | None, instances_nusd: float) -> int | None:
        """The cost of what was done for a job until now in 10⁻⁹ US dollars; None where nobody knows prices."""

    def ended(self, ended: Ended) -> None:
        """Write the line of a job that has ended."""


@dataclass(frozen=True, slots=True)
class Produced:
    """A prediction, the bytes of its request, and what the instances that made it cost."""

    made: Prediction
    bytes_in: int
    instances_nusd: float = 0.0


class JobEndings:
    """Writes what came of jobs; `now` gives seconds since 1970."""

    def __init__(
        self,
        store: JobStore,
        dead_letters: DeadLetters,
        objects: JobObjects,
        meter: Meter,
        now: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._objects = objects
        self._meter = meter
        self._now = now

    def succeeded(self, job: Job, owner: str | None, name: str, produced: Produced, form: Encode) -> bool:
        """Write the answer; False if the job has ended meanwhile, is another's, or waits for another answer.

        A large one is an object of the name `name`. `owner` is None for an answer that came later. Raises SluiceError.
        """
        made = produced.made
        body, media_type, headers = form.encode(made)
        stored = None
        if len(body) > MAX_INLINE_RESULT:
            stored = self._objects.put_result(job.tenant, job.job_id, name, body, media_type)
        result = JobResult(media_type, len(body), tuple(headers), None if stored else body, stored)
        batched = made.version.signature.batched
        outcome = Outcome(
            "succeeded",
            result=result,
            rows_total=made.rows if batched else None,
            rows_done=made.rows if batched else 0,
            version=made.version.version,
            variant=made.variant,
            backend=made.backend,
            cost_nusd=self._cost(job, made, produced.instances_nusd),
        )
        return self._finish(job, owner, outcome, Ended(job, outcome, made, None, produced.bytes_in))

    def failed(self, job: Job, owner: str | None, error: SluiceError) -> bool:
        """Write why nothing will come of a job; False as for `succeeded`. Raises BackendError.

        What is no fault of the caller's leaves a dead letter first: a crash between the two leaves the job to be failed
        once more, with a second letter, where the other order would lose the letter.
        """
        problem = JobProblem.of(error)
        if not isinstance(error, InvalidRequest | NotFound | Refused):
            self._dead_letters.send(job, problem)
        outcome = Outcome("failed", problem=problem, cost_nusd=self._cost(job, None, 0.0))
        return self._finish(job, owner, outcome, Ended(job, outcome, None, error, len(job.request.inline or b"")))

    def put_back(self, job: Job, owner: str | None, error: SluiceError) -> float | None:
        """Queue a job anew; in how many seconds it is to be tried, None where `succeeded` is False.

        Raises BackendError.
        """
        delay_s = min(_LONGEST_S, max(backoff_s(job.attempts), error.retry_after_s or 0.0))
        due_at = self._now() + delay_s + OVERDUE_S
        if not self._store.requeue(job.job_id, owner, JobProblem.of(error), due_at, ticket=_awaited(job, owner)):
            return None
        fields = {"job_id": job.job_id, "attempts": job.attempts, "code": error.code, "reason": error.detail}
        _log.warning("a job is put back", extra={"fields": {**fields, "delay_s": delay_s}})
        return delay_s

    def cost_until_now(self) -> int | None:
        """What was spent on the job that runs, without instances."""
        return self._meter.cost(None, 0.0)

    def _cost(self, job: Job, made: Prediction | None, instances_nusd: float) -> int | None:
        """All that was spent on a job: what handed it in is in it already."""
        cost = self._meter.cost(made, instances_nusd)
        return cost if cost is None or job.cost_nusd is None else job.cost_nusd + cost

    def _finish(self, job: Job, owner: str | None, outcome: Outcome, ended: Ended) -> bool:
        if not self._store.finish(job.job_id, outcome, self._now(), owner=owner, ticket=_awaited(job, owner)):
            return False
        self._meter.ended(ended)
        return True


def _awaited(job: Job, owner: str | None) -> Ticket | None:
    """What nobody holds changes only while it waits for the answer that was looked for: it may have begun anew."""
    return job.ticket if owner is None else None


def may_pass(job: Job, error: SluiceError, *, had_all_time: bool) -> bool:
    """Whether a job that failed so is worth another attempt, and has one left.

    A prediction has no effect but its answer, so one that ran out of time may run again, unless it had all the time
    that a worker has.
    """
    if job.attempts >= MAX_ATTEMPTS:
        return False
    if isinstance(error, BackendTimeout | AsyncRequired | DeadlineMissed):
        return not had_all_time
    return isinstance(error, BackendError) and error.retryable


Looked = Literal["ended", "waiting", "queued", "overtaken"]
"""What became of a job with a ticket: its answer (or that there is none) is written, it is not there, it was put back,
or another look, or who cancelled it, was quicker."""
