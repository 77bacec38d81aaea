"""Answer bodies by media type; formats hold no state of an answer, so one serves any number of them."""

from collections.abc import Sequence
from typing import Protocol

from gpu_service.content.decoded import CsvDecoded, PlainDecoded
from gpu_service.content.media import BINARY, CSV, JSON, JSON_LINES, NPY, NPZ, PROTOBUF
from gpu_service.inference.request import Decoded
from gpu_service.models.served_model import ModelKey
from shared.adapters.sagemaker_wire import content_type
from shared.codecs.batch_rows import RowOutputs
from shared.codecs.csv_tensors import encode_csv
from shared.codecs.json_documents import dumps
from shared.codecs.json_lines import encode_lines
from shared.codecs.json_tensors import encode_predictions
from shared.codecs.npy import encode_npy, encode_npz
from shared.codecs.v2 import V2Response, encode_response, to_wire
from shared.codecs.v2_quick_answer import quick_v2_answer, quick_v2_row
from shared.domain.errors import NotAcceptable
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors

Headers = Sequence[tuple[str, str]]
Answer = tuple[bytes, str, Headers]
"""The body, its content type, and further headers."""

HEADER_LENGTH = "Inference-Header-Content-Length"
_NONE: Headers = ()


class AnswerFormat(Protocol):
    """How answers of one media type are written."""

    def encode(self, key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded, /) -> Answer:
        """The answer to a request; `outputs` holds the outputs that it asked for, all if it named none."""


class JsonAnswer:
    """`predictions` for plain requests, V2 for others; with binary tensors in the type `binary` if asked for."""

    __slots__ = ("binary",)

    def __init__(self, binary: str | None) -> None:
        self.binary = binary

    def encode(self, key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`."""
        if isinstance(decoded, PlainDecoded):
            predictions = encode_predictions(outputs, signature)
            model = {"name": key.name, "version": key.version}
            return dumps({"predictions": predictions, "model": model}), JSON, _NONE
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

    def encode(self, key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`."""
        body, length = encode_v2(key, signature, outputs, decoded, decoded.binary_outputs or True)
        return (body, *_binary_type(self.media_type, len(body) if length is None else length))


def encode_v2(
    key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded, binary: object
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
    return content_type(length), _NONE


class CsvAnswer:
    """CSV, with a header row if `header` says so, or None and the request had one."""

    __slots__ = ("header",)

    def __init__(self, header: bool | None) -> None:
        self.header = header

    def encode(self, _key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`."""
        header = self.header
        if header is None:
            header = isinstance(decoded, CsvDecoded) and decoded.header
        body = encode_csv(_requested(outputs, decoded), signature, header=header)
        return body, f"{CSV}; charset=utf-8; header={'present' if header else 'absent'}", _NONE


class JsonLinesAnswer:
    """JSON Lines."""

    __slots__ = ()

    def encode(self, _key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`."""
        if decoded.outputs:
            specs = tuple(spec for spec in signature.outputs if spec.name in decoded.outputs)
            signature = Signature(signature.inputs, specs, signature.batched, signature.max_batch)
        return encode_lines(outputs, signature), JSON_LINES, _NONE


class NpyAnswer:
    """NPY; several outputs as NPZ where the client takes it."""

    __slots__ = ("takes_npz",)

    def __init__(self, takes_npz: bool) -> None:
        self.takes_npz = takes_npz

    def encode(self, _key: ModelKey, _signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`; raises NotAcceptable for several outputs that may not be NPZ."""
        outputs = _requested(outputs, decoded)
        if len(outputs) == 1:
            return encode_npy(next(iter(outputs.values()))), NPY, _NONE
        if not self.takes_npz:
            raise NotAcceptable(f"This model has {len(outputs)} outputs and {NPY} holds one; accept {NPZ}.")
        return encode_npz(outputs), NPZ, _NONE


class NpzAnswer:
    """NPZ."""

    __slots__ = ()

    def encode(self, _key: ModelKey, _signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`."""
        return encode_npz(_requested(outputs, decoded)), NPZ, _NONE


class ProtobufAnswer:
    """The protocol's ModelInferResponse."""

    __slots__ = ()

    def encode(self, key: ModelKey, signature: Signature, outputs: Tensors, decoded: Decoded) -> Answer:
        """See `AnswerFormat`."""
        from gpu_service.protocol.tensors import encode_infer_response  # what speaks no protobuf need not load it

        requested = _requested(outputs, decoded)
        body = encode_infer_response(key.name, str(key.version), decoded.id, requested, signature)
        return body, PROTOBUF, _NONE


def _requested(outputs: Tensors, decoded: Decoded) -> Tensors:
    return {name: outputs[name] for name in decoded.outputs} if decoded.outputs else outputs
