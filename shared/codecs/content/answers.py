"""Answer bodies by media type; formats hold no state of an answer, so one serves any number of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from shared.codecs.batch_rows import RowOutputs
from shared.codecs.content.decoded import Decoded, PlainDecoded
from shared.codecs.content.media import BINARY, JSON, PROTOBUF, sagemaker_binary
from shared.codecs.json_documents import dumps
from shared.codecs.json_tensors import encode_predictions
from shared.codecs.v2 import V2Response, encode_response, to_wire
from shared.codecs.v2_quick_answer import quick_v2_answer, quick_v2_row
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors

Headers = Sequence[tuple[str, str]]
Answer = tuple[bytes, str, Headers]
"""The body, its content type, and further headers."""

HEADER_LENGTH = "Inference-Header-Content-Length"
_NONE: Headers = ()


class Version(Protocol):
    """The version of a model that made the outputs."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> int:
        """Its version."""


class Members:
    """What a plain JSON answer says beside name, version and predictions: members of `model`, and of the answer."""

    __slots__ = ("answer", "model")

    def __init__(self, model: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.model = model
        self.answer = answer


class AnswerFormat(Protocol):
    """How answers of one media type are written."""

    def encode(
        self, key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, more: Members | None = None, /
    ) -> Answer:
        """The answer to a request; `outputs` holds the outputs that it asked for, all if it named none."""


class JsonAnswer:
    """`predictions` for plain requests, V2 for others; with binary tensors in the type `binary` if asked for."""

    __slots__ = ("binary",)

    def __init__(self, binary: str | None) -> None:
        self.binary = binary

    def encode(
        self, key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`."""
        if isinstance(decoded, PlainDecoded):
            predictions = encode_predictions(outputs, signature)
            model: dict[str, Any] = {"name": key.name, "version": key.version}
            if more is None:
                return dumps({"predictions": predictions, "model": model}), JSON, _NONE
            return dumps({"predictions": predictions, "model": {**model, **more.model}, **more.answer}), JSON, _NONE
        wanted = decoded.binary_outputs if self.binary is not None else False
        body, length = encode_v2(key, signature, outputs, decoded, wanted)
        if length is None or self.binary is None:
            return body, JSON, _NONE
        return (body, *_binary_type(self.binary, length))


class BinaryAnswer:
    """V2 with the binary tensors that the request asked for; all of them if it named none."""

    __slots__ = ("media_type",)

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type

    def encode(
        self, key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, _more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`."""
        body, length = encode_v2(key, signature, outputs, decoded, decoded.binary_outputs or True)
        return (body, *_binary_type(self.media_type, len(body) if length is None else length))


def encode_v2(
    key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, binary: object
) -> tuple[bytes, int | None]:
    """A V2 response and, if it holds binary tensors, the length of its JSON header."""
    if binary is False and type(outputs) is RowOutputs:
        body = quick_v2_row(key.name, key.version, decoded.id, outputs, signature)
        if body is not None:
            return body, None
    if decoded.outputs:
        outputs = {name: outputs[name] for name in decoded.outputs}
    if isinstance(binary, bool):
        alike: bool | None = binary
    else:
        wanted = [decoded_flag is True for decoded_flag in binary.values()]  # type: ignore[attr-defined]
        alike = True if all(wanted) else None if any(wanted) else False
    version = str(key.version)
    if alike is not None:
        quick = quick_v2_answer(key.name, version, decoded.id, outputs, signature, binary=alike)
        if quick is not None:
            return quick
    dtypes = {spec.name: spec.dtype for spec in signature.outputs}
    response = V2Response(key.name, version, to_wire(outputs, dtypes), decoded.id)
    return encode_response(response, binary=binary)  # type: ignore[arg-type]


def _binary_type(media_type: str, length: int) -> tuple[str, Headers]:
    if media_type == BINARY:
        return BINARY, ((HEADER_LENGTH, str(length)),)
    return sagemaker_binary(length), _NONE


class ProtobufAnswer:
    """The protocol's ModelInferResponse."""

    __slots__ = ()

    def encode(
        self, key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, _more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`."""
        from shared.codecs.protobuf.tensors import encode_infer_response  # what speaks no protobuf need not load it

        wanted = requested(outputs, decoded)
        body = encode_infer_response(key.name, str(key.version), decoded.id, wanted, signature)
        return body, PROTOBUF, _NONE


def requested(outputs: Tensors, decoded: Decoded) -> Tensors:
    """The outputs that a request named, in its order; all of them if it named none."""
    return {name: outputs[name] for name in decoded.outputs} if decoded.outputs else outputs
