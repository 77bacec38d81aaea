"""How a prediction travels through SageMaker Runtime: content type, custom attributes, and the answer's meaning.

SageMaker strips every header of a request but its own, so all that is not tensors goes into the custom attributes:
`model=…;version=…;deadline-ms=…;request-id=…;tenant=…;traceparent=…`, at most 1024 visible ASCII characters. Values are
percent-encoded (RFC 3986), so that none of them can add an attribute.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import quote, unquote

from shared.codecs.content.media import SAGEMAKER_BINARY
from shared.codecs.json_documents import JsonLimits
from shared.codecs.v2 import V2Response, V2Tensor, decode_response
from shared.domain.errors import BackendError, InvalidRequest
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.signature import TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Tensors

_HEADER_SIZE = re.compile(re.escape(SAGEMAKER_BINARY) + r"\s*;\s*json-header-size=([0-9]{1,9})", re.IGNORECASE)
_MAX_VALUE = 160


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
    return encode_attributes(attributes)


def decode_answer(body: bytes, media_type: str, version: ModelVersion, rows: int | None) -> Tensors:
    """The outputs in the signature's order; BackendError unless they are what was asked of this very version.

    `rows` is the number of instances that were sent, None where the signature is not batched.
    """
    binary = _HEADER_SIZE.fullmatch(media_type.strip())
    if binary is None and media_type.partition(";")[0].strip().lower() != "application/json":
        raise BackendError(f"The container answered with the content type {media_type[:100]!r}.")
    size = max(len(body), 1)
    limits = JsonLimits(max_bytes=size, max_values=size, max_string=size)
    try:
        answer = decode_response(body, int(binary[1]) if binary else None, limits)
    except InvalidRequest as error:
        # The caller's request was fine: an answer that breaks the protocol is no fault of theirs.
        raise BackendError(f"The container's answer breaks the inference protocol: {error.detail}") from error
    _check_model(answer, version)
    expected = set(version.signature.output_names)
    if answer.outputs.keys() != expected:
        raise BackendError(f"The container answered {sorted(answer.outputs)}, not the outputs {sorted(expected)}.")
    for spec in version.signature.outputs:
        _check_tensor(spec, answer.outputs[spec.name], rows)
    return {name: answer.outputs[name].array for name in version.signature.output_names}


def _check_model(answer: V2Response, version: ModelVersion) -> None:
    if (answer.model_name, answer.model_version) != (version.model, str(version.version)):
        raise BackendError(
            f"The container answered for {answer.model_name!r} version {answer.model_version!r}, not for "
            f"{version.model!r} version {version.version}."
        )


def _check_tensor(spec: TensorSpec, tensor: V2Tensor, rows: int | None) -> None:
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    given = tensor.array.shape
    if tensor.dtype is not spec.dtype or tensor.array.dtype != NUMPY_DTYPES[spec.dtype]:
        raise BackendError(f"The container answered {spec.name!r} as {tensor.dtype}, not as {spec.dtype}.")
    if len(given) != len(shape) or any(want not in (None, have) for have, want in zip(given, shape, strict=True)):
        wanted = [-1 if dim is None else dim for dim in shape]
        raise BackendError(f"The container answered {spec.name!r} with the shape {list(given)}, not {wanted}.")


def _encode(value: str) -> str:
    encoded = quote(value, safe="-._~:/@", errors="surrogatepass")
    if len(encoded) <= _MAX_VALUE:
        return encoded
    return f"sha256:{sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
