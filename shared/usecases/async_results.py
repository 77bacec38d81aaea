"""Answers of backends that answer later: found by a notice or by the sweep, written once."""

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import sleep, time
from typing import Any, Final

from shared.domain.errors import BackendError, BackendTimeout, SluiceError
from shared.domain.jobs import JOB_ID, OVERDUE_S, Job
from shared.domain.ports import JobQueue, JobStore
from shared.domain.tensors import Tensors
from shared.usecases.async_jobs import WAIT_S, AsyncJobs
from shared.usecases.job_endings import JobEndings, Looked, Produced, may_pass
from shared.usecases.job_requests import Asked, JobRequests
from shared.usecases.predict import Predict

_log = logging.getLogger(__name__)

_REFERENCE: Final = re.compile(rf"({JOB_ID})-([1-9][0-9]{{0,8}})(?:-[0-9a-f]{{12}})?")
# Between two looks at an answer that is not there: half of what was waited already.
_LONGEST_PAUSE_S: Final = 900.0
# A backend may be done before the worker has written that it handed the job in.
_LOOKS: Final = 8
_PAUSE_S: Final = 0.25
_MOST_REASON: Final = 1000
# What a backend that answers later is asked for, and what it tells of an answer.
_INFERENCE_ID: Final = "inference_id"


class TooEarly(Exception):
    """A notice of a job that its worker has not handed over yet: it is to be delivered again."""


@dataclass(frozen=True, slots=True)
class AsyncNotice:
    """What a backend tells of an invocation that has ended.

    `location` is where it wrote the answer, or the failure; `failure` is the reason, None where it went well.
    """

    reference: str
    location: str | None
    failure: str | None

    @classmethod
    def of(cls, text: str) -> "AsyncNotice":
        """A notice of SageMaker's as SNS brings it; ValueError for anything else.

        Source: Amazon SageMaker AI Developer Guide, "Check prediction results".
        """
        match json.loads(text):
            case {"inferenceId": str() as reference, "invocationStatus": "Completed" | "Failed" as status, **rest}:
                responded = rest.get("responseParameters")
                location = responded.get("outputLocation") if isinstance(responded, dict) else None
                failure = None if status == "Completed" else str(rest.get("failureReason", ""))[:_MOST_REASON]
                return cls(reference, location if isinstance(location, str) else None, failure)
        raise ValueError("not a notice of an asynchronous invocation")


class AsyncResults:
    """Fetches answers and writes what came of their jobs; `now` gives seconds since 1970, `pause` waits for some."""

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        predict: Predict,
        requests: JobRequests,
        asynchronous: AsyncJobs,
        endings: JobEndings,
        *,
        now: Callable[[], float] = time,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._store = store
        self._queue = queue
        self._predict = predict
        self._requests = requests
        self._asynchronous = asynchronous
        self._endings = endings
        self._now = now
        self._pause = pause

    def __call__(self, notice: AsyncNotice) -> Looked | None:
        """Act on a notice; None for one that is nobody's, or comes too late: it changes nothing.

        Raises TooEarly, and BackendError where the answer cannot be fetched or written now: the notice is to be
        delivered again. If it never is, the sweep finds the job.
        """
        named = _REFERENCE.fullmatch(notice.reference)
        if named is None:
            return None  # of an answer that somebody waited for, or not of this stack
        job = self._handed_in(named[1], int(named[2]))
        if job is None or job.ticket is None:
            return None
        ticket = job.ticket
        if ticket.get(_INFERENCE_ID) != notice.reference:
            return None  # of an earlier attempt
        places = {place for name, place in ticket.items() if name.endswith("_location")}
        if notice.location is not None and notice.location not in places:
            fields = {"job_id": job.job_id, "location": notice.location}
            _log.error("a notice names an object that is not the job's", extra={"fields": fields})
            return None
        return self.look(job, notice.failure)

    def look(self, job: Job, failure: str | None = None) -> Looked:
        """Fetch the answer of a job with a ticket; `failure` is what a notice said, for what left no object.

        Raises BackendError where that cannot be told now.
        """
        ticket = job.ticket or {}
        asked, found = self._found(job, ticket)
        if isinstance(found, BackendError) and found.retryable and may_pass(job, found, had_all_time=True):
            delay_s = self._endings.put_back(job, None, found)
            if delay_s is None:
                return "overtaken"
            self._queue.send(job.tenant, job.job_id, delay_s=delay_s)
            return "queued"
        if found is None and failure is not None:
            found = BackendError(f"The backend says: {failure or 'the invocation failed'}")
        if found is None and self._asynchronous.waited_s(ticket) > WAIT_S:
            found = BackendTimeout(f"The backend gave no answer within {WAIT_S} s.")
        if found is None:
            pause_s = min(_LONGEST_PAUSE_S, max(OVERDUE_S, self._asynchronous.waited_s(ticket) / 2))
            self._store.postpone(job, self._now() + pause_s)
            return "waiting"
        return "ended" if self._written(job, asked, found) else "overtaken"

    def _written(self, job: Job, asked: Asked | None, found: Tensors | SluiceError) -> bool:
        """Whether the job ended with what was found; of two looks at once, one writes."""
        if isinstance(found, SluiceError) or asked is None:
            failure = found if isinstance(found, SluiceError) else BackendError("No request.")
            return self._endings.failed(job, None, failure)
        made = self._predict.fetched(asked.checked, job.backend or "", found)
        try:
            return self._endings.succeeded(job, None, secrets.token_hex(16), Produced(made, asked.bytes_in), asked.form)
        except BackendError:
            raise
        except SluiceError as error:  # an answer that cannot be written as it was asked for
            return self._endings.failed(job, None, error)

    def _found(self, job: Job, ticket: Mapping[str, Any]) -> tuple[Asked | None, Tensors | SluiceError | None]:
        """The request and its answer; a request that cannot be read any more is the error itself."""
        try:
            asked = self._requests.read_again(job)
        except BackendError:
            raise
        except SluiceError as error:
            return None, error
        checked = asked.checked
        rows = checked.rows if checked.target.version.signature.batched else None
        return asked, self._asynchronous.fetch(
            checked.target.version, checked.target.backend, checked.config, ticket, rows
        )

    def _handed_in(self, job_id: str, attempt: int) -> Job | None:
        """The job of a notice once it has a ticket; None if it has ended, or goes on without that answer."""
        for look in range(_LOOKS):
            job = self._store.find(job_id)
            if job is None or job.finished or job.ticket is not None:
                return job
            if job.state != "running" or job.attempts != attempt:
                return None
            if look < _LOOKS - 1:
                self._pause(_PAUSE_S)
        raise TooEarly(f"The job {job_id} is not handed over yet.")
