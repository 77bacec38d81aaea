"""Takes predictions on as jobs: those that ask for it, and those that prefer it to a refusal (`Prefer`)."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from shared.codecs.content.decoded import Decoded
from shared.codecs.content.formats import answer_format
from shared.codecs.content.media import BINARY, CSV, JSON, JSON_LINES, NPY, NPZ, SAGEMAKER_BINARY
from shared.domain.endpoint.config import EndpointConfig, EndpointLimits
from shared.domain.errors import PayloadTooLarge
from shared.domain.idempotency import StoredAnswer
from shared.domain.jobs import MAX_BODY, Job
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.trace import traceparent
from shared.domain.uploads import Source
from shared.usecases.job_requests import MAX_JOB_ROWS
from shared.usecases.prediction import Wanted
from shared.usecases.submit_job import Submission
from shared.web.negotiation import request_format
from shared.web.prediction_bodies import decode as decode_body
from shared.web.requests import record_of, speaks_v2

if TYPE_CHECKING:
    from functions.predict.prediction import Asked
    from functions.predict.services import Services

_PREFERENCE: Final = "respond-async"
_SLOWLY: Final = "2"  # seconds between two looks
_HEADER_LENGTH: Final = "inference-header-content-length"
# What S3 says of an object whose type nobody gave: its name may tell.
_NO_TYPE: Final = frozenset({"application/octet-stream", "binary/octet-stream"})
_BY_NAME: Final[Mapping[str, str]] = {"json": JSON, "jsonl": JSON_LINES, "csv": CSV, "npy": NPY, "npz": NPZ}


def prefers_async(header: str) -> bool:
    """Whether `Prefer` asks for an answer that comes later. Source: RFC 7240, section 4.1."""
    return _PREFERENCE in {part.partition(";")[0].strip().lower() for part in header.split(",")}


def preferred(scope: Scope, services: "Services", asked: "Asked", principal: Principal, body: bytes) -> StoredAnswer:
    """202 for a prediction that prefers a job; raises as `submitted`."""
    accepted = submitted(scope, services, asked, principal, body)
    return StoredAnswer(accepted.status, (*accepted.headers, ("Preference-Applied", _PREFERENCE)), accepted.body)


def submitted(scope: Scope, services: "Services", asked: "Asked", principal: Principal, body: bytes) -> StoredAnswer:
    """202 for a job with the body of a request, which is read and held against the signature as for a prediction.

    Raises what a prediction raises before it runs, and BackendError where no job was stored.
    """

    def decode(signature: Signature, limits: EndpointLimits) -> Decoded:
        return decode_body(asked.request, asked.headers, body, signature, services.limits, limits)

    wanted = Wanted(asked.model, asked.version, asked.headers.get)
    checked = services.predict.check(principal, wanted, decode, MAX_JOB_ROWS)
    batched = checked.target.version.signature.batched
    headers = {**asked.headers, "content-type": _v2_type(asked.headers)} if speaks_v2(scope) else asked.headers
    submission = Submission(
        model=asked.model,
        version=asked.version,
        headers=headers,
        request_id=record_of(scope).request_id,
        traceparent=traceparent(os.environ),
        body=body,
        rows_total=checked.rows if batched else None,
    )
    return _accepted(scope, services.submit(principal, submission, checked.config))


def from_source(
    scope: Scope, services: "Services", asked: "Asked", principal: Principal, found: Source, media_type: str | None
) -> StoredAnswer:
    """202 for a job that reads an object, of the type `media_type` or the object's own.

    Its content is read when the job runs. Raises InsufficientScope, ModelNotFound, VersionNotFound, VersionNotAllowed,
    UnsupportedMediaType, InvalidRequest, NotAcceptable, PayloadTooLarge, BackendError.
    """
    principal.require("predict", f"predict:{asked.model}")
    services.predict.describe(asked.model, asked.version)
    stored = services.endpoints(asked.model).stored
    config = EndpointConfig(asked.model) if stored is None else stored.config
    if found.size > MAX_BODY:
        raise PayloadTooLarge(
            f"The object has {found.size} bytes; a job reads {MAX_BODY} at most. Larger files are for a batch: "
            f"POST /v1/models/{asked.model}/batches."
        )
    kind = media_type or _type_of(found)
    # How the reference came says nothing of what it refers to.
    headers = {name: asked.headers[name] for name in asked.headers if name not in ("content-encoding", _HEADER_LENGTH)}
    headers["content-type"] = kind
    answer_format(headers.get("accept", ""), request_format(kind, headers))
    submission = Submission(
        model=asked.model,
        version=asked.version,
        headers=headers,
        request_id=record_of(scope).request_id,
        traceparent=traceparent(os.environ),
        source=found.ref,
    )
    return _accepted(scope, services.submit(principal, submission, config))


def _accepted(scope: Scope, job: Job) -> StoredAnswer:
    from shared.schemas.jobs import job_json  # what takes no jobs on need not load it

    record_of(scope).log.update(model=job.model, target=f"job:{job.job_id}")
    headers = (("Content-Type", JSON), ("Location", f"/v1/jobs/{job.job_id}"), ("Retry-After", _SLOWLY))
    return StoredAnswer(202, headers, job_json(job))


def _v2_type(headers: Mapping[str, str]) -> str:
    """The content type that says what the routes of V2 take a body for, whatever its own says there."""
    given = headers.get("content-type", "")
    if given.lower().startswith(SAGEMAKER_BINARY):
        return given
    return BINARY if _HEADER_LENGTH in headers else JSON


def _type_of(found: Source) -> str:
    kind = found.media_type.partition(";")[0].strip().lower()
    ending = found.name.rpartition(".")[2].lower()
    return _BY_NAME.get(ending, found.media_type) if kind in _NO_TYPE else found.media_type
