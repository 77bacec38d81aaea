"""Run one job: claim it, read it, predict, write what came of it. Every way out leaves the job to somebody.

A message only says which job is to be looked at. What is done by then is in the job's item, so it does not matter how
often a message comes, or to how many workers.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Final

from shared.domain.call_prices import CallPrices
from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Exposure
from shared.domain.errors import AsyncRequired, BackendError, DeadlineMissed, JobCrashed, JobExpired, SluiceError
from shared.domain.jobs import MAX_ATTEMPTS, OVERDUE_S, Job, Outcome
from shared.domain.ports import JobStore
from shared.usecases.async_jobs import AsyncJobs
from shared.usecases.async_results import AsyncResults
from shared.usecases.deadline import DeadlineRunner
from shared.usecases.hold import Held, Hold, JobLost
from shared.usecases.job_endings import JobEndings, Produced, may_pass
from shared.usecases.job_requests import Asked, JobRequests, context_of
from shared.usecases.predict import Predict
from shared.usecases.prediction_parts import instances_nusd, joined, parts_of

_log = logging.getLogger(__name__)

Routed = Callable[[Target, Exposure | None], None]

# At the end of its time a run that timed out had all of it.
_END_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Done:
    """The message is needed no more."""


@dataclass(frozen=True, slots=True)
class Later:
    """The message is to come again in so many seconds."""

    visibility_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """Until when a job may run, by `time.monotonic`; `whole` if that is all the time that a worker ever has."""

    ends: float
    whole: bool

    def left_s(self) -> float:
        """Seconds until then."""
        return self.ends - monotonic()


@dataclass(frozen=True, slots=True)
class Running:
    """What runs jobs, beside their store.

    `routed` gives what is told where the job that begins now goes, and the exposure of an experiment: what was given up
    may tell it late, and not to the next job.
    """

    predict: Predict
    requests: JobRequests
    asynchronous: AsyncJobs
    results: AsyncResults
    endings: JobEndings
    runner: DeadlineRunner
    prices: CallPrices
    routed: Callable[[], Routed]


class RunJob:
    """Runs jobs by their ids; `now` gives seconds since 1970."""

    def __init__(self, store: JobStore, running: Running, now: Callable[[], float] = time) -> None:
        self._store = store
        self._with = running
        self._now = now

    def __call__(self, job_id: str, hold: Hold, span: Span) -> Done | Later:
        """Run a job if it is to be run; what is to become of its message. Raises nothing that can be foreseen.

        A store that cannot be reached leaves the message: the job is looked at again.
        """
        try:
            return self._claimed(job_id, hold, span)
        except BackendError as error:
            _log.warning("a job cannot be looked at", extra={"fields": {"job_id": job_id, "reason": error.detail}})
            return Later(hold.lease_s + 1)  # by then nobody holds it

    def _claimed(self, job_id: str, hold: Hold, span: Span) -> Done | Later:
        owner = secrets.token_hex(16)
        claim = self._store.claim(job_id, owner, self._now(), hold.lease_s)
        job = claim.job
        if claim.outcome == "waiting" and job is not None:
            self._with.results.look(job)
            return Done()  # if there is no answer yet, the notice or the sweep has it looked for again
        if claim.outcome != "claimed" or job is None:
            # Somebody's already: the holder's own message stays until it is done, and the sweep finds what is left.
            return Done()
        if job.kind != "prediction":
            _log.error("a job of another kind is in the queue of predictions", extra={"fields": {"job_id": job_id}})
            self._store.requeue(job_id, owner, None, self._now() + OVERDUE_S)
            return Done()
        if job.attempts > MAX_ATTEMPTS:
            return self._failed(job, owner, JobCrashed(f"The worker ended in the middle of {MAX_ATTEMPTS} attempts."))
        if job.attempts == 1 and self._now() > job.start_by:
            return self._failed(job, owner, JobExpired("No worker came to the job before its time was over."))
        with hold.of(job_id, owner) as held:
            return self._held(job, owner, held, span)

    def _held(self, job: Job, owner: str, held: Held, span: Span) -> Done | Later:
        try:
            return self._run(job, owner, held, span)
        except JobLost:
            _log.info("a job was taken away", extra={"fields": {"job_id": job.job_id, "attempts": job.attempts}})
            return Done()
        except SluiceError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # tried again, and then failed with a dead letter
            _log.exception("a job failed in an unexpected way", extra={"fields": {"job_id": job.job_id}})
            failure = BackendError("The job failed in an unexpected way.", retryable=True)
            failure.__cause__ = error
        if held.lost:
            return Done()
        # What a model is known to take is known before it runs.
        at_end = span.left_s() < _END_S or isinstance(failure, AsyncRequired | DeadlineMissed)
        had_all_time = span.whole and at_end
        if may_pass(job, failure, had_all_time=had_all_time):
            delay_s = self._with.endings.put_back(job, owner, failure)
            return Done() if delay_s is None else Later(delay_s)
        return self._failed(job, owner, failure)

    def _failed(self, job: Job, owner: str, error: SluiceError) -> Done:
        self._with.endings.failed(job, owner, error)
        return Done()

    def _run(self, job: Job, owner: str, held: Held, span: Span) -> Done:
        running, routed = self._with, self._with.routed()
        asked = held.run(running.runner, lambda: running.requests.read(job, routed, _ms(span)), span.left_s())
        name = running.asynchronous.backend_of(asked.checked)
        if name is not None:
            return self._hand_in(job, owner, held, span, asked, name)
        produced = held.run(running.runner, lambda: self._predicted(job, held, span, asked), span.left_s())
        held.check()
        running.endings.succeeded(job, owner, owner, produced, asked.form)
        return Done()

    def _hand_in(self, job: Job, owner: str, held: Held, span: Span, asked: Asked, name: str) -> Done:
        running, checked = self._with, asked.checked
        context, reference = context_of(job, _ms(span)), reference_of(job, owner)
        ticket: Any = held.run(
            running.runner,
            lambda: running.asynchronous.hand_in(checked, name, context, reference),
            span.left_s(),
        )
        version = checked.target.version
        ran = Outcome(
            "succeeded",
            rows_total=checked.rows if version.signature.batched else None,
            version=version.version,
            variant=checked.target.variant,
            backend=name,
            cost_nusd=running.endings.cost_until_now(),
        )
        # A job that was cancelled meanwhile is not handed over; what was handed in for it is answered to nobody.
        self._store.hand_over(job.job_id, owner, ticket, ran, self._now() + OVERDUE_S)
        return Done()

    def _predicted(self, job: Job, held: Held, span: Span, asked: Asked) -> Produced:
        running, checked = self._with, asked.checked
        made = []
        for first, last in parts_of(checked, running.predict.signature_of(checked)):
            held.check()
            made.append(running.predict.run(checked, context_of(job, _ms(span)), first, last))
            held.rows_done = last
        return Produced(joined(made), asked.bytes_in, sum(instances_nusd(part, running.prices) for part in made))


def reference_of(job: Job, owner: str) -> str:
    """What an asynchronous backend calls this attempt at a job: `<job_id>-<attempts>-<the beginning of its owner>`.

    A job that is run again counts its attempts from the beginning, and its first run may be told of late.
    """
    return f"{job.job_id}-{job.attempts}-{owner[:12]}"


def _ms(span: Span) -> int:
    return max(1, int(span.left_s() * 1e3))
