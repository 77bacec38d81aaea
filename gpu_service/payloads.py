"""What `/invocations` reads and writes, chosen by `Content-Type`."""

import re
from dataclasses import dataclass

from gpu_service.dataplane import Codec, Decoded, Result
from shared.adapters.sagemaker_wire import BINARY_JSON, content_type
from shared.codecs.json_documents import JsonLimits, dumps
from shared.codecs.json_tensors import decode_instances, encode_predictions
from shared.codecs.v2 import V2Request, V2Response, decode_request, encode_response, to_wire
from shared.domain.errors import InvalidRequest, UnsupportedMediaType
from shared.domain.signature import Signature

JSON = "application/json"
_HEADER_SIZE = "json-header-size"

# A V2 request names its tensors in a list. The plain format has a single member, `instances` or an object `inputs`.
_V2 = re.compile(rb'\s*\{\s*"(?:(?:id|parameters|outputs)"|inputs"\s*:\s*\[)')


@dataclass(frozen=True, slots=True)
class Reply:
    """An encoded answer."""

    body: bytes
    media_type: str = JSON


def codec_for(media_type: str, body: bytes, limits: JsonLimits) -> Codec[Reply]:
    """The codec of a request; UnsupportedMediaType names those that there are, no type at all means JSON."""
    kind, _, rest = media_type.partition(";")
    kind = kind.strip().lower()
    if kind == BINARY_JSON:
        return _V2Codec(body, _header_size(rest), limits).codec()
    if kind in ("", JSON):
        return _V2Codec(body, None, limits).codec() if _V2.match(body) else _plain(body, limits)
    raise UnsupportedMediaType(f"{kind[:100]!r} is not read here; send {JSON} or {BINARY_JSON};{_HEADER_SIZE}=<bytes>.")


def _header_size(parameters: str) -> int:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == _HEADER_SIZE and re.fullmatch(r"[0-9]{1,9}", value.strip()):
            return int(value)
    raise InvalidRequest(
        f"The content type {BINARY_JSON} needs the parameter {_HEADER_SIZE}, the bytes of the JSON header."
    )


def _plain(body: bytes, limits: JsonLimits) -> Codec[Reply]:
    def decode(signature: Signature) -> Decoded:
        return Decoded(decode_instances(body, signature, limits))

    def encode(result: Result) -> Reply:
        predictions = encode_predictions(result.outputs, result.signature)
        model = {"name": result.key.name, "version": result.key.version}
        return Reply(dumps({"predictions": predictions, "model": model}))

    return Codec(decode, encode)


class _V2Codec:
    """Open Inference: binary outputs only if asked for, and then in SageMaker's content type."""

    def __init__(self, body: bytes, header_size: int | None, limits: JsonLimits) -> None:
        self._body = body
        self._header_size = header_size
        self._limits = limits
        self._request: V2Request | None = None

    def codec(self) -> Codec[Reply]:
        """Both directions; the answer repeats the id of the request."""
        return Codec(self._decode, self._encode)

    def _decode(self, signature: Signature) -> Decoded:
        self._request = decode_request(self._body, self._header_size, self._limits)
        return Decoded(self._request.to_inputs(signature), tuple(self._request.outputs))

    def _encode(self, result: Result) -> Reply:
        if self._request is None:
            raise AssertionError("a request is decoded before its answer is encoded")
        dtypes = {spec.name: spec.dtype for spec in result.signature.outputs}
        tensors = to_wire(result.outputs, dtypes)
        response = V2Response(result.key.name, str(result.key.version), tensors, self._request.id)
        binary = self._request.outputs or self._request.parameters.get("binary_data_output") is True
        body, header_length = encode_response(response, binary=binary)
        return Reply(body, JSON if header_length is None else content_type(header_length))
