"""What a function knows of the request that it answers: its id, its caller, and what is to be logged of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.types import Scope

from shared.domain.endpoint.config import LABEL
from shared.domain.errors import ModelNotFound, VersionNotFound

_STATE_KEY = "sluice"
# As `shared.schemas.manifest.ModelName` has it; told here before any store is asked.
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
# What may travel on in headers and in SageMaker's custom attributes, which separate their fields by `;` and `,`.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


@dataclass(slots=True)
class RequestRecord:
    """What is gathered while a request is answered.

    `log` are members of its log line: never a credential, inputs only where the endpoint's settings ask for them.
    `headers` go into its answer, whatever that is; `steps` are the times of its steps in milliseconds. `started` is
    when it came, by `time.perf_counter`.
    """

    request_id: str
    log: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    instance_share_nusd: float = 0.0
    started: float = field(default_factory=perf_counter)


def begin(scope: Scope) -> RequestRecord:
    """The record of a request, kept in its scope.

    The id is the caller's `X-Request-Id` if it is well-formed, else API Gateway's, else Lambda's.
    """
    record = RequestRecord(_request_id(scope))
    scope.setdefault("state", {})[_STATE_KEY] = record
    return record


def record_of(scope: Scope) -> RequestRecord:
    """The record that `begin` made."""
    record: RequestRecord = scope["state"][_STATE_KEY]
    return record


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request header; `name` in lower case."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def speaks_v2(scope: Scope) -> bool:
    """Whether the path is below that of the Open Inference Protocol, whose clients read errors in their own way."""
    path: str = scope["path"]
    return path == "/v2" or path.startswith("/v2/")


def model_name(text: str) -> str:
    """The name of a model as a path gives it; ModelNotFound for what cannot be one."""
    if not _MODEL_NAME.fullmatch(text):
        raise ModelNotFound("A model's name has lower-case letters, digits and '._-', at most 64 of them.")
    return text


def model_version(text: str) -> int:
    """A version as a path gives it; VersionNotFound for what cannot be one."""
    if not _VERSION.fullmatch(text):
        raise VersionNotFound("A version is an integer from 1.")
    return int(text)


def version_or_label(text: str) -> int | str:
    """A version or a label as a path gives it; VersionNotFound for what can be neither."""
    if _VERSION.fullmatch(text):
        return int(text)
    if not re.fullmatch(LABEL, text):
        raise VersionNotFound("A version is an integer from 1, or a label: lower-case letters, digits and '._-'.")
    return text


def route_of(scope: Scope) -> str:
    """The route of a request, such as `GET /v1/models/{model}`; the bare method where there is none.

    The template's, unless that is a wildcard: then the one that the function found.
    """
    event: Mapping[str, Any] = scope.get("aws.event") or {}
    key = str(event.get("routeKey") or "")
    found = scope.get("route")
    if (not key or key.startswith("ANY ")) and found is not None:
        return f"{scope['method']} {found.path}"
    return key or str(scope["method"])


def _request_id(scope: Scope) -> str:
    presented = header(scope, b"x-request-id")
    if presented and _REQUEST_ID.fullmatch(presented):
        return presented
    event: Mapping[str, Any] = scope.get("aws.event") or {}
    context = scope.get("aws.context")
    gateway_id = (event.get("requestContext") or {}).get("requestId")
    return str(gateway_id or getattr(context, "aws_request_id", None) or uuid4())
