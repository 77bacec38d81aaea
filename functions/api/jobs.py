"""Routes of jobs: what has become of them, their results, that they end, that they are tried again."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from functions.api.contract import elsewhere, of_cursor
from functions.api.services import answer, serve, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.jobs import JOB_ID, STATES, Job, JobFilter
from shared.domain.principal import Principal
from shared.schemas.jobs import JobList, Kind, State, job_json
from shared.schemas.manifest import ModelName
from shared.usecases.manage_jobs import ManageJobs
from shared.web.contract import (
    ADMISSION,
    IDEMPOTENCY_KEY,
    ONCE,
    SECURED,
    Responses,
    answers,
    reference,
)
from shared.web.documents import query_parameters, read_query
from shared.web.requests import record_of

_PATH: Final = "/v1/jobs/{job_id}"
_SLOWLY: Final = ("Retry-After", "2")  # seconds between two looks
_PARAMETERS: Final = (errors.UnknownField, errors.WrongDtype, errors.TextTooLong, errors.OutOfRange)
# Whatever a result is taken for, it runs nowhere.
_INERT: Final = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))

Handler = Callable[[Request, str], Awaitable[Response]]
JobPath = Annotated[str, Path(description="Id of a job, as `Location` had it")]
States = Annotated[
    tuple[State, ...],
    BeforeValidator(lambda text: tuple(text.split(",")) if isinstance(text, str) else text),
    Field(max_length=len(STATES)),
]


class JobsQuery(BaseModel):
    """Which jobs are listed, and how many at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Annotated[States, Field(description="States, separated by commas")] = ()
    kind: Kind | None = None
    model: Annotated[ModelName | None, Field(examples=["tumor"])] = None
    since: Annotated[
        AwareDatetime | None, Field(description="Taken on then or later (RFC 3339)", examples=["2026-11-21T10:00:00Z"])
    ] = None
    until: Annotated[
        AwareDatetime | None, Field(description="Taken on then or before (RFC 3339)", examples=["2026-11-21T18:00:00Z"])
    ] = None
    limit: Annotated[int, Field(ge=1, le=100, description="Most jobs of the answer")] = 20
    cursor: Annotated[str | None, of_cursor(JOB_ID, "019a0c2b1f7e4d3c2b1a09f8e7d6c5b4")] = None

    def filter(self) -> JobFilter:
        """What the store is asked for."""
        return JobFilter(frozenset(self.state), self.kind, self.model, _seconds(self.since), _seconds(self.until))


def add_routes(routes: APIRouter) -> None:
    """Add them, with what they say of themselves in the OpenAPI document."""
    routes.add_api_route(
        "/v1/jobs",
        list_jobs,
        methods=["GET"],
        operation_id="listJobs",
        summary="The tenant's jobs",
        tags=["jobs"],
        responses=answers("Jobs, the newest first.", reference("JobList"), *ADMISSION, *_PARAMETERS),
        openapi_extra={**SECURED, "parameters": _list_parameters()},
    )
    of_job: tuple[tuple[str, Handler, str, str, str, tuple[type[errors.SluiceError], ...]], ...] = (
        (_PATH, get_job, "GET", "getJob", "What has become of a job", ()),
        (_PATH, cancel_job, "DELETE", "cancelJob", "Cancel a job", (errors.JobFinished,)),
        (f"{_PATH}/retry", retry_job, "POST", "retryJob", "Run a job again", (errors.Conflict, *ONCE)),
    )
    for path, handler, method, operation, summary, possible in of_job:
        routes.add_api_route(
            path,
            handler,
            methods=[method],
            operation_id=operation,
            summary=summary,
            tags=["jobs"],
            responses=answers("The job.", reference("JobDocument"), *ADMISSION, errors.JobNotFound, *possible),
            openapi_extra={**SECURED, **({"parameters": [IDEMPOTENCY_KEY]} if method == "POST" else {})},
        )
    routes.add_api_route(
        f"{_PATH}/result",
        get_result,
        methods=["GET"],
        operation_id="getJobResult",
        summary="The result of a job",
        tags=["jobs"],
        responses=_of_result(),
        openapi_extra=SECURED,
    )


async def list_jobs(request: Request) -> Response:
    """Jobs of the caller's tenant that its scopes let it see, the newest first.

    A list may lag behind by a moment: a job that was just taken on may be missing, and a state be the one before. The
    job itself, asked for by its id, is always as it is.
    """

    def work(principal: Principal, _: bytes) -> StoredAnswer:
        query = read_query(JobsQuery, request.scope)
        page = _jobs(request).list(principal, query.filter(), limit=query.limit, after=query.cursor)
        return answer(JobList.of(page).model_dump_json().encode())

    return await serve(request, work)


async def get_job(request: Request, job_id: JobPath) -> Response:
    """State, progress, times, and once it has ended the problem or the result."""

    def work(principal: Principal, _: bytes) -> StoredAnswer:
        return _shown(request, _noted(request, _jobs(request).get(principal, job_id)))

    return await serve(request, work)


async def get_result(request: Request, job_id: JobPath) -> Response:
    """The answer as a synchronous request would have got it; a large one is an address (303) that works 15 minutes."""

    def work(principal: Principal, _: bytes) -> StoredAnswer:
        found = _jobs(request).result(principal, job_id)
        _noted(request, found.job)
        if found.url is not None:
            return StoredAnswer(303, (("Location", found.url), ("Cache-Control", "no-store")), b"")
        headers = (("Content-Type", found.result.media_type), *found.result.headers, *_INERT)
        return StoredAnswer(200, headers, found.result.inline or b"")

    return await serve(request, work)


async def cancel_job(request: Request, job_id: JobPath) -> Response:
    """Cancel a job that has not ended; one that runs is stopped within seconds. Asked again, the answer is the same."""

    def work(principal: Principal, _: bytes) -> StoredAnswer:
        return _shown(request, _noted(request, _jobs(request).cancel(principal, job_id)))

    return await serve(request, work)


async def retry_job(request: Request, job_id: JobPath) -> Response:
    """Queue a failed or cancelled job again, with what was sent; a batch goes on with the parts that are not done."""

    def work(principal: Principal, _: bytes) -> StoredAnswer:
        return _shown(request, _noted(request, _jobs(request).retry(principal, job_id)))

    return await serve(request, work)


def _jobs(request: Request) -> ManageJobs:
    return services_of(request).jobs


def _noted(request: Request, job: Job) -> Job:
    record_of(request.scope).log.update(model=job.model, target=f"job:{job.job_id}")
    return job


def _shown(request: Request, job: Job) -> StoredAnswer:
    return answer(job_json(job, _jobs(request).url(job)), *(() if job.finished else (_SLOWLY,)))


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _list_parameters() -> list[dict[str, Any]]:
    parameters = query_parameters(JobsQuery)
    for parameter in parameters:
        if parameter["name"] == "state":
            parameter |= {"style": "form", "explode": False}
    return parameters


def _of_result() -> Responses:
    """The result has the type that the request asked for; a large one is elsewhere."""
    anything = {"type": "string", "format": "binary"}
    responses = answers("The result.", anything, *ADMISSION, errors.JobNotFound, errors.NoResult)
    moved = elsewhere(responses, "The result is an object.")
    return {**responses, 200: {**responses[200], "content": {"*/*": {"schema": anything}}}, 303: moved}
