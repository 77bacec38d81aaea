"""Errors as RFC 9457 problem documents, and the one table that gives each its HTTP status."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from math import ceil
from typing import Any

import orjson
from starlette.responses import Response

from shared.domain import errors

MEDIA_TYPE = "application/problem+json"

# 400: the body could not be read. 413: too much of it. 422: it was read, and does not fit the model.
STATUS: Mapping[type[errors.SluiceError], HTTPStatus] = {
    errors.SluiceError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    errors.NotJson: HTTPStatus.BAD_REQUEST,
    errors.TooDeep: HTTPStatus.BAD_REQUEST,
    errors.UnknownField: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MissingField: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.WrongDtype: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.WrongShape: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.OutOfRange: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotFinite: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.EmptyBatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BatchTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.AnswerTooLarge: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.BadImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageTooLarge: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TextTooLong: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.CredentialExpired: HTTPStatus.UNAUTHORIZED,
    errors.DeadlineMissed: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.AsyncRequired: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FeatureMissing: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PreconditionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    errors.TooManyErrors: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidIdempotencyKey: HTTPStatus.BAD_REQUEST,
    errors.IdempotencyMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Refused: HTTPStatus.FORBIDDEN,
    errors.InsufficientScope: HTTPStatus.FORBIDDEN,
    errors.VersionNotAllowed: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.VersionNotFound: HTTPStatus.NOT_FOUND,
    errors.KeyNotFound: HTTPStatus.NOT_FOUND,
    errors.TenantNotFound: HTTPStatus.NOT_FOUND,
    errors.PlanNotFound: HTTPStatus.NOT_FOUND,
    errors.RevisionNotFound: HTTPStatus.NOT_FOUND,
    errors.JobNotFound: HTTPStatus.NOT_FOUND,
    errors.UploadNotFound: HTTPStatus.NOT_FOUND,
    errors.SourceNotFound: HTTPStatus.NOT_FOUND,
    errors.WebhookNotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.IdempotencyInFlight: HTTPStatus.CONFLICT,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.JobFinished: HTTPStatus.CONFLICT,
    errors.NoResult: HTTPStatus.CONFLICT,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.InvalidPackage: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.DigestMismatch: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.VersionConflict: HTTPStatus.CONFLICT,
    errors.BackendError: HTTPStatus.BAD_GATEWAY,
    errors.BackendUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.LimiterUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.IdempotencyUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.FeaturesUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CircuitOpen: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BackendTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    errors.BackendRejected: HTTPStatus.BAD_GATEWAY,
    errors.JobCrashed: HTTPStatus.BAD_GATEWAY,
    errors.JobExpired: HTTPStatus.GATEWAY_TIMEOUT,
}

_HEADERS: Mapping[HTTPStatus, Mapping[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


def status_of(error: type[errors.SluiceError]) -> HTTPStatus:
    """The status of an error class; one that an adapter derived takes that of its nearest base."""
    return next(STATUS[base] for base in error.__mro__ if base in STATUS)


def problem_of(error: errors.SluiceError, request_id: str, *, v2: bool = False) -> Response:
    """The answer for an error of ours; see `problem`."""
    return problem(
        status_of(type(error)),
        code=error.code,
        title=error.title,
        detail=error.detail,
        request_id=request_id,
        fields=error.fields,
        # Whole seconds (RFC 9110, 10.2.3), rounded up: who comes back too early is refused again.
        headers=None if error.retry_after_s is None else {"Retry-After": str(max(1, ceil(error.retry_after_s)))},
        v2=v2,
    )


def problem(
    status: HTTPStatus,
    *,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    fields: Iterable[errors.FieldError] = (),
    headers: Mapping[str, str] | None = None,
    v2: bool = False,
) -> Response:
    """One problem document: members as RFC 9457 has them, and `code`, `request_id`, `errors` of our own.

    With `v2` also `error`, the only member that clients of the Open Inference Protocol read.
    Source: Open Inference Protocol, "Inference Response JSON Error Object".
    """
    document: dict[str, Any] = {
        "type": f"urn:sluice:problem:{code}",
        "title": title,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": [{"pointer": field.pointer, "detail": field.detail} for field in fields],
    }
    if v2:
        document["error"] = detail
    return Response(
        orjson.dumps(document),
        status_code=status.value,
        headers={**_HEADERS.get(status, {}), **(headers or {})},
        media_type=MEDIA_TYPE,
    )
