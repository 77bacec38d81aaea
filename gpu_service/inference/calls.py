"""What the headers of a request say about the call."""

import re
from collections.abc import Mapping

from gpu_service.inference.request import DEFAULT_PRIORITY, LEAST_PRIORITY, Call
from shared.adapters.backends.sagemaker_wire import decode_attributes
from shared.domain.errors import InvalidRequest

ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"
TARGET_MODEL_HEADER = "x-amzn-sagemaker-target-model"
SESSION_HEADER = "x-amzn-sagemaker-session-id"
DEADLINE_HEADER = "x-sluice-deadline-ms"
TENANT_HEADER = "x-sluice-tenant"
PRIORITY_HEADER = "x-sluice-priority"
REQUEST_ID_HEADER = "x-request-id"

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")
_MAX_TENANT = 256


def call_of(headers: Mapping[str, str], model: str | None = None, version: int | None = None) -> Call:
    """The call as its headers describe it; InvalidRequest if one that must be a number is none.

    The custom attributes count before the headers of direct calls, and `model` and `version` (of the path) before both.
    """
    attributes = decode_attributes(headers.get(ATTRIBUTES_HEADER, ""))
    if model is None:
        model = attributes.get("model") or headers.get(TARGET_MODEL_HEADER) or None
    if version is None:
        version = _number(attributes.get("version", ""), "version", least=1)
    priority = _number(attributes.get("priority") or headers.get(PRIORITY_HEADER, ""), "priority", least=0)
    if priority is not None and priority > LEAST_PRIORITY:
        raise InvalidRequest(f"The attribute priority must be at most {LEAST_PRIORITY}.")
    left = _number(attributes.get("deadline-ms") or headers.get(DEADLINE_HEADER, ""), "deadline-ms", least=None)
    return Call(
        model,
        version,
        deadline_ms=left,
        priority=priority or DEFAULT_PRIORITY,
        tenant=(attributes.get("tenant") or headers.get(TENANT_HEADER, ""))[:_MAX_TENANT],
        request_id=_request_id(attributes, headers),
        traceparent=attributes.get("traceparent") or headers.get("traceparent", ""),
        session=headers.get(SESSION_HEADER, ""),
    )


def request_id_of(headers: Mapping[str, str]) -> str:
    """The request's id alone, empty if it brought none that can go back in a header."""
    return _request_id(decode_attributes(headers.get(ATTRIBUTES_HEADER, "")), headers)


def _request_id(attributes: Mapping[str, str], headers: Mapping[str, str]) -> str:
    request_id = attributes.get("request-id") or headers.get(REQUEST_ID_HEADER, "")
    return request_id if _REQUEST_ID.fullmatch(request_id) else ""


def _number(text: str, name: str, *, least: int | None) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,12}", text) or (least is not None and int(text) < least):
        raise InvalidRequest(f"The attribute {name} must be an integer{'' if least is None else f' from {least} on'}.")
    return int(text)
