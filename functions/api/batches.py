"""Routes of batches: a file is predicted row by row, as a job."""

import os
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.api.contract import elsewhere, takes_document
from functions.api.services import answer, serve, services_of
from shared.domain import errors
from shared.domain.batch_formats import FORMATS, FileType, file_type
from shared.domain.batches import BatchState
from shared.domain.errors import NoResult, UnsupportedMediaType
from shared.domain.idempotency import StoredAnswer
from shared.domain.jobs import Job, ObjectRef
from shared.domain.ports import JobObjects
from shared.domain.principal import Principal
from shared.domain.trace import traceparent
from shared.domain.uploads import Source
from shared.schemas.batches import BatchRequest
from shared.schemas.jobs import job_json
from shared.usecases.manage_jobs import URL_S, ManageJobs
from shared.usecases.sources import Sources
from shared.usecases.start_batch import Asked, CheckTarget, StartBatch
from shared.web.contract import ADMISSION, SECURED, Responses, answers, reference
from shared.web.documents import read_document
from shared.web.requests import model_name, record_of

_START: Final = "/v1/models/{model}/batches"
_JOB: Final = "/v1/jobs/{job_id}"
_SLOWLY: Final = ("Retry-After", "2")  # seconds between two looks
_REFUSALS: Final = (
    errors.InvalidRequest,
    errors.ModelNotFound,
    errors.VersionNotFound,
    errors.VersionNotAllowed,
    errors.UploadNotFound,
    errors.SourceNotFound,
)
_KEPT_NAME: Final = 100

Kept = Literal["manifest", "errors"]
ModelPath = Annotated[str, Path(description="Name of a published model")]
JobPath = Annotated[str, Path(description="Id of a batch, as `Location` had it")]


@dataclass(frozen=True, slots=True)
class Batches:
    """What the routes of batches work with; `objects` are those of the data bucket `bucket`."""

    sources: Sources
    check: CheckTarget
    start: StartBatch
    jobs: ManageJobs
    objects: JobObjects
    bucket: str

    def take(self, principal: Principal, model: str, asked: BatchRequest, request_id: str) -> Job:
        """The job of a run; InsufficientScope, UploadNotFound, SourceNotFound, BackendError, and as `CheckTarget`.

        UnsupportedMediaType where neither the request nor the file tells its format.
        """
        principal.require("predict", f"predict:{model}")
        self.check(model, asked.version)
        source = self.sources.resolve(principal.tenant, upload_id=asked.upload_id, s3_uri=asked.s3_uri)
        kind = _kind(asked.format, source)
        return self.start(
            Asked(
                tenant=principal.tenant,
                key_id=principal.key_id,
                model=model,
                source=source.ref,
                size=source.size,
                name=_name(source, kind),
                kind=kind,
                request_id=request_id,
                version=asked.version,
                max_error_share=asked.max_error_share,
                traceparent=traceparent(os.environ),
            )
        )

    def kept(self, principal: Principal, job_id: str, which: Kept) -> tuple[Job, str]:
        """A batch, and where its manifest or its errors can be downloaded; JobNotFound, InsufficientScope, NoResult."""
        job = self.jobs.get(principal, job_id)
        state = None if job.batch is None else BatchState.decode(job.batch)
        key = None if state is None else state.manifest if which == "manifest" else state.errors
        if key is None:
            raise NoResult(_why_none(job, state, which))
        media_type, name = _KINDS[which]
        return job, self.objects.url(ObjectRef(self.bucket, key), URL_S, media_type=media_type, file_name=name)


_NAMES: Final[dict[Kept, str]] = {"manifest": "a manifest", "errors": "a list of errors"}
_NONE: Final[dict[Kept, str]] = {"manifest": "no manifest", "errors": "no list of errors"}
_KINDS: Final[dict[Kept, tuple[str, str]]] = {
    "manifest": ("application/json", "manifest.json"),
    "errors": ("application/jsonl", "errors.jsonl"),
}


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        _START,
        start_batch,
        operation_id="startBatch",
        summary="Predict all rows of a file",
        tags=["batches"],
        **takes_document("BatchRequest", "The batch is taken on.", "JobDocument", *_REFUSALS, status=202),
    )
    for path, handler, operation, summary in (
        (f"{_JOB}/manifest", get_manifest, "getBatchManifest", "The manifest of a batch that has ended"),
        (f"{_JOB}/errors", get_errors, "getBatchErrors", "All wrong rows of a batch, as JSON Lines"),
    ):
        routes.add_api_route(
            path,
            handler,
            methods=["GET"],
            operation_id=operation,
            summary=summary,
            tags=["batches"],
            status_code=303,
            responses=_elsewhere(),
            openapi_extra=SECURED,
        )


async def start_batch(request: Request, model: ModelPath) -> Response:
    """The file is read where it is; the output, a manifest and the wrong rows are found through the job.

    The job shows the progress. A batch that is sent again with the same `Idempotency-Key` is the same batch.
    """

    def work(principal: Principal, body: bytes) -> StoredAnswer:
        asked = read_document(BatchRequest, body, request.scope)
        record = record_of(request.scope)
        job = services_of(request).batches.take(principal, model_name(model), asked, record.request_id)
        record.log.update(model=job.model, target=f"job:{job.job_id}")
        return answer(job_json(job), ("Location", _JOB.format(job_id=job.job_id)), _SLOWLY, status=202)

    return await serve(request, work)


async def get_manifest(request: Request, job_id: JobPath) -> Response:
    """An address that works 15 minutes: counts, the first wrong rows, checksums, versions, cost."""
    return await _get(request, job_id, "manifest")


async def get_errors(request: Request, job_id: JobPath) -> Response:
    """An address that works 15 minutes: a line for each wrong row, in their order."""
    return await _get(request, job_id, "errors")


async def _get(request: Request, job_id: str, which: Kept) -> Response:
    def work(principal: Principal, _body: bytes) -> StoredAnswer:
        job, url = services_of(request).batches.kept(principal, job_id, which)
        record_of(request.scope).log.update(model=job.model, target=f"job:{job.job_id}")
        return StoredAnswer(303, (("Location", url), ("Cache-Control", "no-store")), b"")

    return await serve(request, work)


def _why_none(job: Job, state: BatchState | None, which: Kept) -> str:
    """Why a job has no manifest, or no errors, and what to do about it."""
    of_it = _JOB.format(job_id=job.job_id)
    if state is None:
        return f"The job is no batch, and only batches have {_NAMES[which]}: GET {of_it}/result has what came of it."
    if not job.finished:
        return f"The run is {job.state}: it has {_NAMES[which]} once it has ended. GET {of_it} shows how far it is."
    again = f"POST {of_it}/retry goes on from the parts that are done."
    if job.state == "cancelled":
        return f"The run was cancelled: there is {_NONE[which]} of it. {again}"
    if state.manifest is not None:
        return "No row of the batch is wrong: there is no list of errors. The manifest has the counts."
    if job.state == "failed":
        code = "" if job.problem is None else f" ({job.problem.code})"
        return f"The run failed{code}, and there is {_NONE[which]} of it. GET {of_it} has its problem. {again}"
    return f"There is {_NONE[which]} of the run."


def _kind(asked: str | None, source: Source) -> FileType:
    if asked is None:
        return file_type(source.name, source.media_type)
    name = asked.removesuffix(".gz")
    found = next((form for form in FORMATS if form == name), None)
    if found is None:
        raise UnsupportedMediaType(f"Batches read no {asked!r}.")
    return FileType(found, asked.endswith(".gz"))


def _name(source: Source, kind: FileType) -> str:
    """The name of the output: the input's, with the end that its type has."""
    try:
        if file_type(source.name) == kind and len(source.name) <= _KEPT_NAME:
            return source.name
    except UnsupportedMediaType:
        pass
    return source.name.partition(".")[0][:_KEPT_NAME] + kind.suffix


def _elsewhere() -> Responses:
    responses = answers("", reference("JobDocument"), *ADMISSION, errors.JobNotFound, errors.NoResult)
    return {303: elsewhere(responses, "It is an object."), **{key: responses[key] for key in responses if key != 200}}
