"""What was asked of a job, read again by whoever runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from shared.codecs.content.decoded import Decoded
from shared.domain.endpoint.config import EndpointLimits
from shared.domain.errors import InvalidRequest
from shared.domain.jobs import MAX_BODY, Job
from shared.domain.ports import InferenceContext, JobObjects
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.usecases.job_endings import Encode
from shared.usecases.predict import Predict
from shared.usecases.prediction import Checked, Wanted

# More than that is a batch: one answer has to be held in memory as a whole.
MAX_JOB_ROWS: Final = 1_000_000


class Form(Encode, Protocol):
    """How the body of a request and its answer are written."""

    no_cache: bool
    no_store: bool

    def decode(self, body: bytes, signature: Signature, limits: EndpointLimits, /) -> Decoded:
        """The request; raises InvalidRequest."""


ReadForm = Callable[[Mapping[str, str]], Form]
"""The form that the headers of a request tell (names in lower case); raises InvalidRequest."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A job's request: its form, and what it says once it is held against the model's signature."""

    form: Form
    checked: Checked
    bytes_in: int


class JobRequests:
    """Reads the requests of jobs as the function did that took them on."""

    def __init__(self, objects: JobObjects, predict: Predict, forms: ReadForm) -> None:
        self._objects = objects
        self._predict = predict
        self._forms = forms

    def read(self, job: Job, routed: Callable[..., None], deadline_ms: int) -> Asked:
        """A job that is to run: it is routed now. `routed` as in `Wanted`. Raises what a prediction does."""
        form, wanted, body = self._head(job, routed, deadline_ms)
        # What the caller may was settled when the job was taken on.
        trusted = Principal(job.tenant, job.key_id, frozenset({"predict"}), "")
        checked = self._predict.check(
            trusted, wanted, lambda signature, limits: form.decode(body, signature, limits), MAX_JOB_ROWS
        )
        return Asked(form, checked, len(body))

    def read_again(self, job: Job) -> Asked:
        """A job that has run elsewhere, with the version, variant and backend that it ran on."""
        form, wanted, body = self._head(job, lambda *_: None, 0)
        if job.version is None or job.backend is None:
            raise InvalidRequest("The job does not say what it ran on.")
        checked = self._predict.again(
            wanted,
            job.tenant,
            (job.version, job.variant or "", job.backend),
            lambda signature, limits: form.decode(body, signature, limits),
        )
        return Asked(form, checked, len(body))

    def _head(self, job: Job, routed: Callable[..., None], deadline_ms: int) -> tuple[Form, Wanted, bytes]:
        request = job.request
        form = self._forms(request.headers)
        if request.inline is not None:
            body = request.inline
        elif request.source is not None:
            body = self._objects.read(request.source, MAX_BODY)
        else:
            raise InvalidRequest("The job has no body.")
        wanted = Wanted(
            job.model,
            request.version,
            request.headers.get,
            deadline_ms,
            no_cache=form.no_cache,
            no_store=form.no_store,
            routed=routed,
        )
        return form, wanted, body


def context_of(job: Job, deadline_ms: int) -> InferenceContext:
    """What travels with a job's prediction to the backend."""
    return InferenceContext(job.request_id, job.tenant, deadline_ms, job.traceparent)
