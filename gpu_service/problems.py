"""Errors as RFC 9457 problem documents, with the statuses that callers of the container meet."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import NamedTuple

import orjson

from gpu_service.inference.sessions import SessionBusy
from gpu_service.models.errors import AlreadyLoaded, OutOfMemory
from gpu_service.scheduling.errors import Overloaded, TenantOverloaded
from shared.domain.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BatchTooLarge,
    InvalidPackage,
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
MAX_RETRY_AFTER_S = 60


class Problem(NamedTuple):
    """An answer: status, body and further headers."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]]


# What writes an error as an answer, given the request's id: the answer and its media type.
Report = Callable[[SluiceError, str], tuple[Problem, str]]


class NoSuchRoute(NotFound):
    """Nothing is served under this path."""

    code = "no_such_route"
    title = "Not Found"


class MethodNotAllowed(InvalidRequest):
    """The path takes other methods."""

    code = "method_not_allowed"
    title = "Method Not Allowed"


# The nearest class of an error's ancestors counts. 400: the body could not be read. 422: it does not fit the model.
_STATUSES: Mapping[type[SluiceError], HTTPStatus] = {
    SluiceError: HTTPStatus.INTERNAL_SERVER_ERROR,
    AlreadyLoaded: HTTPStatus.CONFLICT,
    BackendError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BackendTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    BackendUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    BatchTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidPackage: HTTPStatus.BAD_REQUEST,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    NotFound: HTTPStatus.NOT_FOUND,
    NotJson: HTTPStatus.BAD_REQUEST,
    OutOfMemory: HTTPStatus.INSUFFICIENT_STORAGE,
    SessionBusy: HTTPStatus.CONFLICT,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TenantOverloaded: HTTPStatus.TOO_MANY_REQUESTS,
    TooDeep: HTTPStatus.BAD_REQUEST,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}


def status_of(error: SluiceError) -> HTTPStatus:
    """The HTTP status of an error."""
    if type(error) is InvalidRequest:
        return HTTPStatus.BAD_REQUEST
    ancestors = (kind for kind in type(error).__mro__ if kind in _STATUSES and kind is not SluiceError)
    fallback = HTTPStatus.UNPROCESSABLE_ENTITY if isinstance(error, InvalidRequest) else _STATUSES[SluiceError]
    return next((_STATUSES[kind] for kind in ancestors), fallback)


def problem_of(error: SluiceError, request_id: str) -> Problem:
    """The answer for one of our errors; what may succeed later says when to try again."""
    status = status_of(error)
    fields = [{"pointer": field.pointer, "detail": field.detail} for field in error.fields]
    problem = problem_document(status, error.code, error.title, error.detail, request_id, fields)
    if not isinstance(error, BackendUnavailable):
        return problem
    wait = error.retry_after_s if isinstance(error, Overloaded) else 1.0
    seconds = min(max(ceil(wait), 1), MAX_RETRY_AFTER_S)
    return problem._replace(headers=(("Retry-After", str(seconds)),))


def problem_report(error: SluiceError, request_id: str) -> tuple[Problem, str]:
    """An error as a problem document."""
    return problem_of(error, request_id), MEDIA_TYPE


def problem_document(
    status: int, code: str, title: str, detail: str, request_id: str, errors: Sequence[Mapping[str, str]] = ()
) -> Problem:
    """A problem document with our members `code`, `request_id` and `errors`."""
    document = {
        "type": f"urn:sluice:problem:{code}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": list(errors),
    }
    return Problem(int(status), orjson.dumps(document), ())
