"""A quick way to write the common answers of the Open Inference Protocol; `shared.codecs.v2` is the strict one.

All of an answer but its id and its numbers repeats with the model and the shapes, so it is written once and kept.
"""

from collections.abc import Mapping

import numpy as np
import orjson

from shared.codecs.batch_rows import RowOutputs
from shared.codecs.json_documents import dumps
from shared.domain.dtypes import DType
from shared.domain.signature import Signature
from shared.domain.tensors import NUMPY_DTYPES, Array

_MAX_FRAMES = 512

_Entry = tuple[str, DType, Array]


class _Frame:
    """The JSON between the numbers; `head` ends before the id's member, and `gaps` surround the data of each output."""

    __slots__ = ("gaps", "head", "signature")

    def __init__(self, signature: Signature, head: bytes, gaps: tuple[bytes, ...]) -> None:
        self.signature = signature  # keeps its identity, which is part of the key, from being used again
        self.head = head
        self.gaps = gaps


_frames: dict[tuple[object, ...], _Frame] = {}


def quick_v2_answer(
    model_name: str,
    model_version: str,
    request_id: str,
    outputs: Mapping[str, Array],
    signature: Signature,
    *,
    binary: bool,
) -> tuple[bytes, int | None] | None:
    """What `encode_response` would write, all outputs as JSON or all as binary, and the header's length if binary.

    None where an output is neither numbers nor BOOL of the signature's dtype, or is BF16 as JSON.
    """
    key: tuple[object, ...] = (id(signature), model_name, model_version, binary)
    for name, array in outputs.items():
        key += (name, array.shape, array.dtype)
    frame = _frames.get(key)
    if frame is None:
        frame = _learn(key, model_name, model_version, outputs, signature, binary=binary)
        if frame is None:
            return None
    pieces = [frame.head]
    if request_id:
        pieces += (b'"id":', orjson.dumps(request_id), b",")
    gaps = frame.gaps
    if not binary:
        for gap, array in zip(gaps, outputs.values(), strict=False):  # one gap more than there are outputs
            # A part of a larger tensor may lie in strides, which the encoder does not take.
            pieces += (gap, dumps(np.ascontiguousarray(array).reshape(-1)))
        pieces.append(gaps[-1])
        return b"".join(pieces), None
    pieces.append(gaps[0])
    length = sum(map(len, pieces))
    pieces += [array.tobytes() for array in outputs.values()]
    return b"".join(pieces), length


def quick_v2_row(
    model_name: str, model_version: int, request_id: str, row: RowOutputs, signature: Signature
) -> bytes | None:
    """As `quick_v2_answer` with all outputs as JSON, for a row of a batch, which belongs to one model."""
    batch = row.batch
    frame = batch.frame
    if not isinstance(frame, _Frame):
        frame = batch.frame = _row_frame(model_name, str(model_version), row, signature)
        if frame is None:
            return None
    parts = [frame.head]
    if request_id:
        parts += (b'"id":', orjson.dumps(request_id), b",")
    gaps = frame.gaps
    texts = batch.texts()[row.row]
    for gap, text in zip(gaps, texts, strict=False):  # one gap more than there are outputs
        parts += (gap, b"[", text, b"]")
    parts.append(gaps[-1])
    return b"".join(parts)


def _row_frame(model_name: str, model_version: str, row: RowOutputs, signature: Signature) -> _Frame | None:
    key: tuple[object, ...] = (id(signature), model_name, model_version, False)
    for name, array in row.items():
        key += (name, array.shape, array.dtype)
    return _frames.get(key) or _learn(key, model_name, model_version, row, signature, binary=False)


def _learn(
    key: tuple[object, ...],
    model_name: str,
    model_version: str,
    outputs: Mapping[str, Array],
    signature: Signature,
    *,
    binary: bool,
) -> _Frame | None:
    dtypes = {spec.name: spec.dtype for spec in signature.outputs}
    gaps: list[bytes] = []
    before = b'"outputs":['
    for name, array in outputs.items():
        dtype = dtypes[name]
        if array.dtype != NUMPY_DTYPES[dtype] or dtype is DType.BYTES or (dtype is DType.BF16 and not binary):
            return None
        entry = {"name": name, "datatype": dtype.value, "shape": list(array.shape)}
        if binary:
            before += dumps({**entry, "parameters": {"binary_data_size": array.nbytes}}) + b","
        else:
            gaps.append(before + dumps(entry)[:-1] + b',"data":')
            before = b"},"
    # What follows the last entry takes the place of the comma between two.
    gaps.append(before[:-1] + b"]}" if outputs else b'"outputs":[]}')
    head = dumps({"model_name": model_name, "model_version": model_version})[:-1] + b","
    frame = _Frame(signature, head, tuple(gaps))
    if len(_frames) >= _MAX_FRAMES:
        _frames.pop(next(iter(_frames)), None)
    _frames[key] = frame
    return frame
