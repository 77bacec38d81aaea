"""Predictions that are answered later: the answer that says so, and the route that tells what came of one."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.predict.services import Services
from shared.codecs.content.media import JSON
from shared.codecs.json_documents import dumps
from shared.codecs.json_tensors import encode_predictions
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.jobs import Job
from shared.domain.principal import Principal
from shared.usecases.prediction import JobAnswer
from shared.web.answer_size import MAX_EVENT_BYTES
from shared.web.contract import ADMISSION, SECURED, answers, reference
from shared.web.requests import record_of

PATH: Final = "/v1/jobs/{job_id}"
_PREFERENCE: Final = "respond-async"
_SLOWLY: Final = "2"  # seconds between two looks

JobPath = Annotated[str, Path(description="Id of a job, as `Location` had it")]


def prefers_async(header: str) -> bool:
    """Whether `Prefer` asks for an answer that comes later. Source: RFC 7240, section 4.1."""
    return _PREFERENCE in {part.partition(";")[0].strip().lower() for part in header.split(",")}


def accepted(job: Job) -> StoredAnswer:
    """202 with the job."""
    headers = (
        ("Content-Type", JSON),
        ("Location", PATH.format(job_id=job.job_id)),
        ("Preference-Applied", _PREFERENCE),
        ("Retry-After", _SLOWLY),
    )
    return StoredAnswer(202, headers, dumps({**_document(job), "status": "running"}))


def add_routes(routes: APIRouter) -> None:
    """Add the route, with what it says of itself in the OpenAPI document."""
    routes.add_api_route(
        PATH,
        get_job,
        methods=["GET"],
        operation_id="getJob",
        summary="What came of a prediction that is answered later",
        tags=["jobs"],
        responses=answers(
            "The job: `running`, `succeeded` with its predictions, or `failed` with the problem.",
            reference("JobDocument"),
            *ADMISSION,
            errors.JobNotFound,
            errors.ModelNotFound,
            errors.VersionNotFound,
            errors.AnswerTooLarge,
        ),
        openapi_extra=SECURED,
    )


async def get_job(request: Request, job_id: JobPath) -> Response:
    """The state of a job, and its predictions once it has succeeded."""
    services: Services = request.app.state.services

    def work(principal: Principal, _: bytes) -> StoredAnswer:
        answer = services.predict.answer_to(principal, job_id, services.full_ms(request.scope))
        record_of(request.scope).log.update(model=answer.job.model, target=f"job:{answer.job.job_id}")
        return _answer(answer)

    return await services.door.serve(request, work)


def _answer(answer: JobAnswer) -> StoredAnswer:
    document = _document(answer.job)
    headers: list[tuple[str, str]] = [("Content-Type", JSON), ("Cache-Control", "no-store")]
    if answer.error is not None:
        error = answer.error
        document |= {"status": "failed", "error": {"code": error.code, "title": error.title, "detail": error.detail}}
    elif answer.outputs is None:
        document["status"] = "running"
        headers.append(("Retry-After", _SLOWLY))
    else:
        document |= {"status": "succeeded", "predictions": encode_predictions(answer.outputs, answer.signature)}
    body = dumps(document)
    if len(body) > MAX_EVENT_BYTES:
        raise errors.AnswerTooLarge(f"The predictions take {len(body)} bytes; the limit is {MAX_EVENT_BYTES}.")
    return StoredAnswer(200, tuple(headers), body)


def _document(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "model": {
            "name": job.model,
            "version": job.version,
            "variant": job.variant,
            "backend": job.backend,
        },
        "created_at": _time(job.created_at),
        "expires_at": _time(job.expires_at),
    }


def _time(seconds: int) -> str:
    """A time in seconds since 1970 as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
