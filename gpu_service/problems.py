"""Errors as RFC 9457 problem documents, with the statuses that callers of the container meet."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.responses import Response

from shared.domain.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BatchTooLarge,
    InvalidRequest,
    NotAcceptable,
    NotFound,
    NotJson,
    PayloadTooLarge,
    SluiceError,
    TooDeep,
    UnsupportedMediaType,
)

MEDIA_TYPE = "application/problem+json"

# The nearest class of an error's ancestors counts. 400: the body could not be read. 422: it does not fit the model.
_STATUSES: Mapping[type[SluiceError], HTTPStatus] = {
    SluiceError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BackendError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BackendTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    BackendUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    NotFound: HTTPStatus.NOT_FOUND,
    NotJson: HTTPStatus.BAD_REQUEST,
    TooDeep: HTTPStatus.BAD_REQUEST,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BatchTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
}
_RETRY_AFTER_S = "1"


def status_of(error: SluiceError) -> HTTPStatus:
    """The HTTP status of an error."""
    if type(error) is InvalidRequest:
        return HTTPStatus.BAD_REQUEST
    ancestors = (kind for kind in type(error).__mro__ if kind in _STATUSES and kind is not SluiceError)
    fallback = HTTPStatus.UNPROCESSABLE_ENTITY if isinstance(error, InvalidRequest) else _STATUSES[SluiceError]
    return next((_STATUSES[kind] for kind in ancestors), fallback)


def problem_of(error: SluiceError, request_id: str) -> Response:
    """The answer for one of our errors."""
    status = status_of(error)
    return problem(
        status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        request_id=request_id,
        errors=[{"pointer": field.pointer, "detail": field.detail} for field in error.fields],
    )


def problem(
    status: HTTPStatus,
    *,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    errors: list[dict[str, str]] | None = None,
) -> Response:
    """One problem document with our members `code`, `request_id` and `errors`."""
    document = {
        "type": f"urn:sluice:problem:{code}",
        "title": title,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": errors or [],
    }
    headers = {"Retry-After": _RETRY_AFTER_S} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(orjson.dumps(document), status_code=status.value, headers=headers, media_type=MEDIA_TYPE)
