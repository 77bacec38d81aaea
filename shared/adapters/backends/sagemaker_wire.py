"""How a prediction travels through SageMaker Runtime: content type, custom attributes, and the answer's meaning.

SageMaker strips every header of a request but its own, so all that is not tensors goes into the custom attributes:
`model=…;version=…;deadline-ms=…;request-id=…;tenant=…;traceparent=…;priority=…`, at most 1024 visible ASCII characters.
Values are percent-encoded (RFC 3986), so that none of them can add an attribute.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, unquote

from shared.adapters.backends.answers import outputs_of, read_answer, rows_of
from shared.codecs.content.media import SAGEMAKER_BINARY, sagemaker_binary
from shared.codecs.v2 import encode_request, to_wire
from shared.domain.errors import BackendError, PayloadTooLarge
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors

_HEADER_SIZE = re.compile(re.escape(SAGEMAKER_BINARY) + r"\s*;\s*json-header-size=([0-9]{1,9})", re.IGNORECASE)
_MAX_VALUE = 160
# The service model's shape InferenceId has 1 to 64 characters.
_INFERENCE_ID = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True, slots=True)
class Sent:
    """A prediction as a request body; `rows` is the number of instances, None where the signature is not batched."""

    body: bytes
    content_type: str
    rows: int | None


def encode(version: ModelVersion, inputs: Tensors, context: InferenceContext, max_bytes: int) -> Sent:
    """The tensors as binary V2; PayloadTooLarge over `max_bytes`."""
    dtypes = {spec.name: spec.dtype for spec in version.signature.inputs}
    body, header_length = encode_request(to_wire(inputs, dtypes), request_id=context.request_id)
    if len(body) > max_bytes:
        raise PayloadTooLarge(f"The tensors have {len(body)} bytes; the endpoint takes {max_bytes}.")
    return Sent(body, sagemaker_binary(header_length), rows_of(version, inputs))


def inference_id(request_id: str) -> str:
    """The request's id in SageMaker's captured data and logs; the SHA-256 of one that does not fit there."""
    if _INFERENCE_ID.fullmatch(request_id):
        return request_id
    return sha256(request_id.encode("utf-8", "surrogatepass")).hexdigest()


def encode_attributes(attributes: Mapping[str, str]) -> str:
    """The custom attributes; a value over 160 encoded characters is replaced by `sha256:<hex>` of it.

    Cutting it instead could make two tenants one. Names and values of a prediction thus stay below 1024 characters.
    """
    return ";".join(f"{name}={_encode(value)}" for name, value in attributes.items())


def decode_attributes(text: str) -> dict[str, str]:
    """What `encode_attributes` wrote; parts without `=` are left out, of a name given twice the first counts."""
    attributes: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            attributes.setdefault(name.strip().lower(), unquote(value.strip()))
    return attributes


def attributes_of(version: ModelVersion, context: InferenceContext) -> str:
    """The custom attributes of one prediction."""
    attributes = {
        "model": version.model,
        "version": str(version.version),
        "deadline-ms": str(context.deadline_ms),
        "request-id": context.request_id,
        "tenant": context.tenant,
    }
    if context.traceparent:
        attributes["traceparent"] = context.traceparent
    if context.priority:
        attributes["priority"] = str(context.priority)
    return encode_attributes(attributes)


def decode_answer(
    body: bytes, media_type: str, version: ModelVersion, rows: int | None, request_id: str = ""
) -> Tensors:
    """The outputs in the signature's order; BackendError unless they are what was asked of this very version.

    `rows` is the number of instances that were sent, None where the signature is not batched. An answer that names a
    request names this one, if `request_id` is given.
    """
    binary = _HEADER_SIZE.fullmatch(media_type.strip())
    if binary is None and media_type.partition(";")[0].strip().lower() != "application/json":
        raise BackendError(f"The container answered with the content type {media_type[:100]!r}.")
    answer = read_answer(body, int(binary[1]) if binary else None)
    return outputs_of(answer, version, rows, request_id=request_id)


def _encode(value: str) -> str:
    encoded = quote(value, safe="-._~:/@", errors="surrogatepass")
    if len(encoded) <= _MAX_VALUE:
        return encoded
    return f"sha256:{sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
