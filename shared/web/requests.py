"""What a function knows of the request that it answers: its id, its caller, and what is to be logged of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.types import Scope

from shared.domain.errors import ModelNotFound, Unauthenticated
from shared.domain.principal import Principal

_STATE_KEY = "sluice"
# As `shared.schemas.manifest.ModelName` has it; told here before any store is asked.
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# What may travel on in headers and in SageMaker's custom attributes, which separate their fields by `;` and `,`.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


@dataclass(slots=True)
class RequestRecord:
    """`log` are members of the request's log line: never inputs, never a credential."""

    request_id: str
    log: dict[str, Any] = field(default_factory=dict)


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


def principal_of(scope: Scope) -> Principal:
    """The caller, as the authorizer named it through API Gateway; Unauthenticated if it did not run."""
    try:
        principal = Principal.from_context(scope["aws.event"]["requestContext"]["authorizer"]["lambda"])
    except (KeyError, TypeError):
        raise Unauthenticated("The request reached the function without passing the authorizer.") from None
    record_of(scope).log.update(tenant=principal.tenant, key_id=principal.key_id)
    return principal


def model_name(text: str) -> str:
    """The name of a model as a path gives it; ModelNotFound for what cannot be one."""
    if not _MODEL_NAME.fullmatch(text):
        raise ModelNotFound("A model's name has lower-case letters, digits and '._-', at most 64 of them.")
    return text


def route_of(scope: Scope) -> str:
    """The route as the template names it, such as `GET /v1/models/{model}`; the bare method outside of API Gateway."""
    event: Mapping[str, Any] = scope.get("aws.event") or {}
    return str(event.get("routeKey") or scope["method"])


def _request_id(scope: Scope) -> str:
    presented = header(scope, b"x-request-id")
    if presented and _REQUEST_ID.fullmatch(presented):
        return presented
    event: Mapping[str, Any] = scope.get("aws.event") or {}
    context = scope.get("aws.context")
    gateway_id = (event.get("requestContext") or {}).get("requestId")
    return str(gateway_id or getattr(context, "aws_request_id", None) or uuid4())
