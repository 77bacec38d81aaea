"""What a server that runs models says of a request it did not answer, as an error of ours.

Our container says it as a problem document (RFC 9457) with a stable `code`; other servers of the Open Inference
Protocol say it as `{"error": "<text>"}`, or not at all.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

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

MAX_DETAIL: Final = 500
_MAX_FIELDS: Final = 16
_BY_STATUS: Final[Mapping[int, type[BackendError]]] = {
    408: BackendTimeout,
    429: BackendUnavailable,
    503: BackendUnavailable,
    504: BackendTimeout,
}
# About the body that we wrote ourselves: no fault of the caller's.
_OURS: Final = (NotJson, TooDeep, UnsupportedMediaType, NotAcceptable)


def refusal_of(
    status: int, body: str, version: ModelVersion, *, who: str = "The container", retry_after_s: float | None = None
) -> SluiceError:
    """The error for an answer with `status` (400 or more) and `body`; `who` names the server for the caller."""
    problem = problem_in(body)
    known = known_problem(problem, version, fault_of_request=status < 500, who=who, retry_after_s=retry_after_s)
    if known is not None:
        return known
    if status in _BY_STATUS:
        return _BY_STATUS[status](f"{who} cannot answer now (status {status}).", retry_after_s=retry_after_s)
    if 400 <= status < 500:
        said = problem.get("error") or problem.get("detail") or body
        return BackendRejected(f"{who} refused the request (status {status}): {str(said)[:MAX_DETAIL]}")
    return BackendError(f"{who} failed (status {status}).")


def known_problem(
    problem: Mapping[str, Any],
    version: ModelVersion,
    *,
    fault_of_request: bool,
    who: str,
    retry_after_s: float | None = None,
) -> SluiceError | None:
    """The error for a problem document of our container; None for one without a `code` that counts here.

    With `fault_of_request` the transport's own status says the same as the codes that blame the request.
    """
    kind = _KINDS.get(str(problem.get("code", "")))
    if kind is None:
        return None
    if issubclass(kind, NotFound):
        # The registry has the version, so the container is what lags behind.
        return BackendUnavailable(
            f"{who} has not loaded {version.model} version {version.version} yet.", retry_after_s=retry_after_s
        )
    if issubclass(kind, BackendError) or (issubclass(kind, InvalidRequest) and fault_of_request):
        return _of_kind(kind, problem, who, retry_after_s)
    return None


def _of_kind(kind: type[SluiceError], problem: Mapping[str, Any], who: str, retry_after_s: float | None) -> SluiceError:
    detail = str(problem.get("detail") or kind.title)[:MAX_DETAIL]
    if issubclass(kind, _OURS):
        return BackendRejected(f"{who} could not read the request ({kind.code}): {detail}")
    return kind(detail, fields=_fields(problem), retry_after_s=retry_after_s)


def problem_in(body: str) -> Mapping[str, Any]:
    """The JSON object in a body, empty if it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
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
    # An adapter may refine an error under its code: the code stands for the class that declared it. Only the tree of
    # the domain counts: what else is loaded in this process must not change what an answer means.
    kind.code: kind
    for kind in _tree(SluiceError)
    if "code" in vars(kind) and kind.__module__ == SluiceError.__module__
}
