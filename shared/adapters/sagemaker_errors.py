"""Errors of SageMaker Runtime and of the container behind it, as ours.

Source: Amazon SageMaker Runtime API, InvokeEndpoint, "Errors". What the container itself answers comes as a
`ModelError` with its status and its body, which is a problem document (RFC 9457) for everything our container says.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import error_code, is_overload
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    FieldError,
    InvalidRequest,
    NotAcceptable,
    NotFound,
    NotJson,
    SluiceError,
    TooDeep,
    UnsupportedMediaType,
)
from shared.domain.model import ModelVersion

_BY_CODE: Final[Mapping[str, type[BackendError]]] = {
    "ModelNotReadyException": BackendUnavailable,
    "ServiceUnavailable": BackendUnavailable,
    "ServiceUnavailableException": BackendUnavailable,
    "InternalDependencyException": BackendError,
    "InternalFailure": BackendError,
    "ValidationError": BackendError,
}
_BY_STATUS: Final[Mapping[int, type[BackendError]]] = {
    408: BackendTimeout,
    429: BackendUnavailable,
    503: BackendUnavailable,
    504: BackendTimeout,
}
# About the body that we wrote ourselves: no fault of the caller's.
_OURS: Final = (NotJson, TooDeep, UnsupportedMediaType, NotAcceptable)
_MAX_DETAIL = 500
_MAX_FIELDS = 16


def from_client_error(error: ClientError, version: ModelVersion) -> SluiceError:
    """The error to raise in place of what `invoke_endpoint` raised."""
    code = error_code(error)
    if code == "ModelError":
        return _from_container(error.response, version)
    kind = _BY_CODE.get(code) or (BackendUnavailable if is_overload(error) else BackendError)
    if kind is BackendUnavailable:
        return kind(f"The endpoint cannot take the request now ({code}).")
    return kind(f"The endpoint refused or failed the call ({code}).")


def _from_container(response: Mapping[str, Any], version: ModelVersion) -> SluiceError:
    status = int(response.get("OriginalStatusCode") or 0)
    body = str(response.get("OriginalMessage") or "")
    problem = _problem(body)
    kind = _KINDS.get(str(problem.get("code", "")))
    if kind is not None and issubclass(kind, NotFound):
        # The registry has the version, so the container is what lags behind.
        return BackendUnavailable(f"The container has not loaded {version.model} version {version.version} yet.")
    if kind is not None and (issubclass(kind, BackendError) or (issubclass(kind, InvalidRequest) and status < 500)):
        return _of_kind(kind, problem)
    if status == 0 and "timed out" in body + str(response.get("Error", {}).get("Message", "")):
        # SageMaker gave up on the container: it has 60 seconds.
        return BackendTimeout("The container did not answer SageMaker in time.")
    if status in _BY_STATUS:
        return _BY_STATUS[status](f"The container cannot answer now (status {status}).")
    if 400 <= status < 500:
        return BackendRejected(f"The container refused the request (status {status}): {body[:_MAX_DETAIL]}")
    return BackendError(f"The container failed (status {status}).")


def _of_kind(kind: type[SluiceError], problem: Mapping[str, Any]) -> SluiceError:
    detail = str(problem.get("detail") or kind.title)[:_MAX_DETAIL]
    if issubclass(kind, _OURS):
        return BackendRejected(f"The container could not read the request ({kind.code}): {detail}")
    return kind(detail, fields=_fields(problem))


def _problem(body: str) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _fields(problem: Mapping[str, Any]) -> list[FieldError]:
    listed = problem.get("errors")
    fields = [
        FieldError(field["pointer"], field["detail"])
        for field in (listed if isinstance(listed, list) else [])
        if isinstance(field, dict) and isinstance(field.get("pointer"), str) and isinstance(field.get("detail"), str)
    ]
    return fields[:_MAX_FIELDS]


def _tree(kind: type[SluiceError]) -> Iterator[type[SluiceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


_KINDS: Final[Mapping[str, type[SluiceError]]] = {
    # An adapter may refine an error under its code: the code stands for the class that declared it.
    kind.code: kind
    for kind in _tree(SluiceError)
    if "code" in vars(kind)
}
