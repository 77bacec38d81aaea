"""Documents of jobs: what `/v1/jobs` answers, and what is sent to take one on."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from shared.domain.batches import public
from shared.domain.jobs import JOB_ID, Job, JobPage, JobResult, JobSummary
from shared.schemas.api import ProblemField

JobId = Annotated[str, Field(pattern=f"^{JOB_ID}$", examples=["019a0c2b1f7e4d3c2b1a09f8e7d6c5b4"])]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["prediction", "batch"]
# What a dropped file's key had in that place is shown as it was, also where no model can be called so.
AskedModel = Annotated[str, Field(max_length=64, examples=["tumor"])]
Time = Annotated[str, Field(description="RFC 3339, in UTC", examples=["2026-11-21T09:30:00.250Z"])]

_JSON = "application/json"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class JobModel(_Document):
    """What a job is for; version, variant and backend are those that ran it, once they are chosen."""

    name: AskedModel
    version: int | None = None
    variant: str | None = None
    backend: str | None = None


class JobProgress(_Document):
    """How many instances are done; `rows_total` is null until it is known."""

    rows_done: Annotated[int, Field(ge=0)]
    rows_total: int | None


class JobProblemDocument(_Document):
    """Why a job failed; of a queued one, why it is tried again."""

    code: str
    title: str
    detail: str
    errors: tuple[ProblemField, ...] = ()


class JobResultDocument(_Document):
    """Where the result is: at `href` with the caller's credential, for a large one also at `url` for 15 minutes.

    `document` is the answer itself, if it is small and JSON.
    """

    media_type: str
    size: Annotated[int, Field(ge=0, description="Bytes")]
    href: str
    url: str | None = None
    document: JsonValue = None


class JobDocument(_Document):
    """A job. What is not known, or does not apply, is left out; what came of it is kept until `expires_at`."""

    job_id: JobId
    kind: Kind
    model: JobModel
    state: State
    progress: JobProgress | None
    attempts: Annotated[int, Field(ge=0, description="How often it was begun")]
    created_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None
    start_by: Annotated[Time, Field(description="It fails if it has not begun by then (RFC 3339, in UTC)")]
    expires_at: Time
    problem: JobProblemDocument | None = None
    result: JobResultDocument | None = None
    cost_usd: float | None = None
    batch: dict[str, JsonValue] | None = None

    @classmethod
    def of(cls, job: Job, url: str | None = None) -> Self:
        """The document of a job, without the answer itself; `url` is where a result that is an object can be had."""
        return cls(
            job_id=job.job_id,
            kind=job.kind,
            model=JobModel(name=job.model, version=job.version, variant=job.variant, backend=job.backend),
            state=job.state,
            progress=_progress(job),
            attempts=job.attempts,
            created_at=time_of(job.created_at),
            started_at=_time_of(job.started_at),
            finished_at=_time_of(job.finished_at),
            start_by=time_of(job.start_by),
            expires_at=time_of(job.expires_at),
            problem=_problem(job),
            result=_result(job, url),
            cost_usd=None if job.cost_nusd is None else job.cost_nusd / 1e9,
            batch=None if job.batch is None else public(job.batch),
        )


class JobSummaryDocument(_Document):
    """A job in a list; `code` is why it failed."""

    job_id: JobId
    kind: Kind
    model: AskedModel
    state: State
    progress: JobProgress | None
    created_at: Time
    finished_at: Time | None
    code: str | None

    @classmethod
    def of(cls, job: JobSummary) -> Self:
        """The document of a job in a list."""
        return cls(
            job_id=job.job_id,
            kind=job.kind,
            model=job.model,
            state=job.state,
            progress=_progress(job),
            created_at=time_of(job.created_at),
            finished_at=_time_of(job.finished_at),
            code=job.code,
        )


class JobList(_Document):
    """Jobs, the newest first. A page may be short, even empty, and yet have a `next`: the search for it is bounded."""

    jobs: tuple[JobSummaryDocument, ...]
    next: Annotated[JobId | None, Field(description="`cursor` of the next page; null at the end")]

    @classmethod
    def of(cls, page: JobPage) -> Self:
        """The document of a page."""
        return cls(jobs=tuple(JobSummaryDocument.of(job) for job in page.jobs), next=page.cursor)


class JobSource(_Document):
    """A body that is stored already: exactly one of `upload_id` and `s3_uri`; its type where the object's is wrong."""

    upload_id: Annotated[str, Field(pattern=f"^{JOB_ID}$", description="An upload of `POST /v1/uploads`")] | None = None
    s3_uri: Annotated[str, Field(max_length=1100, examples=["s3://bucket/inputs/acme/rows.csv"])] | None = None
    content_type: Annotated[str, Field(min_length=1, max_length=200)] | None = None


def job_json(job: Job, url: str | None = None) -> bytes:
    """The document of a job as JSON, its answer in it if that is small and JSON; what says nothing is left out."""
    document = JobDocument.of(job, url)
    shown: dict[str, Any] = {"progress": None, **document.model_dump(exclude_none=True)}
    if document.progress is not None:
        shown["progress"] = document.progress.model_dump()
    if job.result is not None and job.result.inline is not None and _is_text(job.result):
        shown["result"]["document"] = orjson.Fragment(job.result.inline)  # as the worker encoded it
    return orjson.dumps(shown)


def time_of(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339 has it, in UTC, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time_of(seconds: float | None) -> str | None:
    return None if seconds is None else time_of(seconds)


def _progress(job: Job | JobSummary) -> JobProgress | None:
    if job.rows_total is None and not job.rows_done:
        return None
    return JobProgress(rows_done=job.rows_done, rows_total=job.rows_total)


def _problem(job: Job) -> JobProblemDocument | None:
    problem = job.problem
    if problem is None:
        return None
    places = tuple(ProblemField(pointer=place.pointer, detail=place.detail) for place in problem.fields)
    return JobProblemDocument(code=problem.code, title=problem.title, detail=problem.detail, errors=places)


def _result(job: Job, url: str | None) -> JobResultDocument | None:
    result = job.result
    if result is None:
        return None
    href = f"/v1/jobs/{job.job_id}/result"
    return JobResultDocument(media_type=result.media_type, size=result.size, href=href, url=url)


def _is_text(result: JobResult) -> bool:
    """Whether the bytes are JSON as they are."""
    coded = any(name.lower() in {"content-encoding", "inference-header-content-length"} for name, _ in result.headers)
    return result.media_type == _JSON and not coded
