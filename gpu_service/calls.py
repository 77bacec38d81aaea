"""What the headers of a request say about the call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

from gpu_service.dataplane import Call
from shared.adapters.sagemaker_wire import decode_attributes
from shared.domain.errors import InvalidRequest

ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"
TARGET_MODEL_HEADER = "x-amzn-sagemaker-target-model"
DEADLINE_HEADER = "x-sluice-deadline-ms"
REQUEST_ID_HEADER = "x-request-id"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for the log: never used to decide anything."""

    request_id: str
    tenant: str = ""
    traceparent: str = ""


def caller_of(headers: Mapping[str, str]) -> Caller:
    """The caller by the custom attributes; the request id may also come as a header, else it is made up."""
    attributes = decode_attributes(headers.get(ATTRIBUTES_HEADER, ""))
    request_id = attributes.get("request-id") or headers.get(REQUEST_ID_HEADER, "")
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", request_id):  # goes back in a header
        request_id = uuid4().hex
    return Caller(request_id, attributes.get("tenant", ""), attributes.get("traceparent", ""))


def call_of(headers: Mapping[str, str]) -> Call:
    """The model, version and deadline that a request asks for; InvalidRequest if one is not a number."""
    attributes = decode_attributes(headers.get(ATTRIBUTES_HEADER, ""))
    model = attributes.get("model") or headers.get(TARGET_MODEL_HEADER) or None
    version = _number(attributes.get("version", ""), "version", least=1)
    left_ms = _number(attributes.get("deadline-ms") or headers.get(DEADLINE_HEADER, ""), "deadline-ms", least=None)
    return Call(model, version, None if left_ms is None else monotonic() + left_ms / 1000)


def _number(text: str, name: str, *, least: int | None) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,12}", text) or (least is not None and int(text) < least):
        raise InvalidRequest(f"The attribute {name} must be an integer{'' if least is None else f' from {least} on'}.")
    return int(text)
