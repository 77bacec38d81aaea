"""Routes that take predictions on as jobs; what becomes of a job is told by the routes of `/v1/jobs`."""

from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from functions.predict.prediction import read_head
from functions.predict.services import Services
from functions.predict.submission import from_source, submitted
from functions.predict.v1 import PREDICT_ERRORS, ModelPath, VersionPath
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.web.contract import (
    IDEMPOTENCY_KEY,
    OF_JOBS,
    SECURED,
    Responses,
    answers,
    media_types,
    reference,
)
from shared.web.negotiation import READ

# A reference to an object is far smaller; what is larger is no JSON object of that kind.
_MOST_REFERENCE: Final = 4096
_MEMBERS: Final = frozenset({"upload_id", "s3_uri"})
_ERRORS: Final = (*PREDICT_ERRORS, errors.UploadNotFound, errors.SourceNotFound)


def add_routes(routes: APIRouter) -> None:
    """Add them, with what they say of themselves in the OpenAPI document."""
    of_version = (*_ERRORS, errors.VersionNotFound, errors.VersionNotAllowed)
    for path, handler, operation, summary, possible in (
        ("/v1/models/{model}/jobs", submit, "submitJob", "Predict later with any model", _ERRORS),
        (
            "/v1/models/{model}/versions/{version}/jobs",
            submit_version,
            "submitVersionJob",
            "Predict later with one version of a model",
            of_version,
        ),
    ):
        routes.add_api_route(
            path,
            handler,
            methods=["POST"],
            operation_id=operation,
            summary=summary,
            tags=["jobs"],
            status_code=202,
            responses=_responses(*possible),
            openapi_extra=_extra(),
        )


async def submit(request: Request, model: ModelPath) -> Response:
    """Take a prediction on and answer at once; the job is found at `Location`.

    The body is that of a prediction, and is checked like one; `Accept` says what the result is to be. Or it names what
    is stored already: an upload, or an object that the tenant may read.
    """
    return await _submit(request, model, None)


async def submit_version(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Take a prediction on with the version that the path names; all else is as without one."""
    return await _submit(request, model, version)


async def _submit(request: Request, model: str, version: str | None) -> Response:
    services: Services = request.app.state.services
    scope = request.scope

    def work(principal: Principal, body: bytes) -> StoredAnswer:
        asked = read_head(scope, model, version)
        if not _is_reference(asked.headers.get("content-type", ""), body):
            return submitted(scope, services, asked, principal, body)
        from shared.schemas.jobs import JobSource
        from shared.web.documents import read_document

        named = read_document(JobSource, body, scope)
        found = services.sources.resolve(principal.tenant, upload_id=named.upload_id, s3_uri=named.s3_uri)
        return from_source(scope, services, asked, principal, found, named.content_type)

    return await services.door.serve(request, work, scopes=("predict", f"predict:{model}"), model=model)


def _is_reference(content_type: str, body: bytes) -> bool:
    """Whether a body names what is stored: a small JSON object with a member that no prediction's has."""
    if len(body) > _MOST_REFERENCE or (content_type and "json" not in content_type.lower()):
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False  # the decoder says what is wrong with it
    return isinstance(document, dict) and not _MEMBERS.isdisjoint(document)


def _extra() -> dict[str, Any]:
    forms = ("PredictByRow", "PredictByTensor", "InferRequest", "JobSource")
    body = {"oneOf": [reference(form) for form in forms]}
    return {
        **SECURED,
        "parameters": [IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": media_types(READ, body)},
    }


def _responses(*possible: type[errors.SluiceError]) -> Responses:
    made = answers("The job.", reference("JobDocument"), *possible)
    taken = made.pop(200)
    return {202: {**taken, "headers": {**taken["headers"], "Location": OF_JOBS["Location"]}}, **made}
