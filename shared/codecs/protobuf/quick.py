"""A quick way for ModelInferRequests that differ in their numbers only; `protocol.tensors` is the strict one.

Clients repeat all of a message but its raw numbers, which come last. What stands before them is decoded once and kept
as a frame. Protobuf reads two messages written one after the other as their merger, so a message that begins with a
frame's bytes and goes on with raw tensors of the frame's sizes is that frame with other numbers, and nothing else.
Source: Protocol Buffers, "Encoding", "Last One Wins".
"""

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from shared.codecs.content.decoded import Decoded
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest
from shared.codecs.protobuf.tensors import Places, varint
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array
from shared.domain.validation import Inputs

_MAX_FRAME_BYTES = 1024
_MAX_INPUTS = 16
_MAX_SIZES = 256
_MAX_OF_SIZE = 4
_MAX_SEEN = 4096
_RAW = bytes((7 << 3 | 2,))  # field 7, length-delimited
# Numbers of which any bytes are right.
_QUICK = frozenset(dtype for dtype in DType if dtype not in (DType.BOOL, DType.BYTES))

# Where the tag and length of a raw tensor stand, what they are, where the tensor ends, and what it is.
_Part = tuple[int, int, bytes, int, str, "np.dtype[Any]", tuple[int, ...]]


class Frame:
    """What messages have in common that differ in their numbers; of one signature."""

    __slots__ = ("_outputs", "_parameters", "_parts", "_places", "_prefix", "model", "signature", "version")

    def __init__(
        self,
        message: ModelInferRequest,
        prefix: bytes,
        parts: tuple[_Part, ...],
        decoded: Decoded,
        signature: Signature,
    ) -> None:
        self.model = message.model_name
        self.version = message.model_version
        self.signature = signature
        self._prefix = prefix
        self._parts = parts
        self._outputs = decoded.outputs
        self._parameters = decoded.parameters
        # Only their shapes are looked at: no number of a caller is kept.
        shapes = {name: np.broadcast_to(np.zeros((), dtype), shape) for *_, name, dtype, shape in parts}
        self._places = Places(shapes, signature, raw=True)

    def fits(self, data: bytes) -> bool:
        """Whether a message of this frame's length has this frame."""
        if not data.startswith(self._prefix):
            return False
        return all(data[part[0] : part[1]] == part[2] for part in self._parts)

    def decode(self, data: bytes) -> Decoded:
        """What `decode_infer_request` would give for a message that fits."""
        tensors: dict[str, Array] = {}
        for _, begin, _, end, name, dtype, shape in self._parts:
            # A slice of its own starts where its numbers may: a place in the message might not be aligned.
            tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
        return Decoded(Inputs(tensors, self._places), self._outputs, "", self._parameters, binary_outputs=True)


class Frames:
    """The frames that were learned, by the length of their messages; bounded, emptied when full."""

    def __init__(self) -> None:
        self._frames: dict[int, list[Frame]] = {}
        self._seen: set[int] = set()

    def find(self, data: bytes) -> Frame | None:
        """The frame of a message, if it is known."""
        frames = self._frames.get(len(data))
        if frames is not None:
            for frame in frames:
                if frame.fits(data):
                    return frame
        return None

    def forget(self, data: bytes) -> None:
        """Forget the frames of messages as long as this one: theirs is out of date."""
        self._frames.pop(len(data), None)

    def learn(self, data: bytes, decoded: Decoded, signature: Signature) -> None:
        """Remember the frame of a message that was decoded strictly, from the second of its length on."""
        size = len(data)
        if decoded.id or size not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(size)
            return
        frame = _frame(data, decoded, signature)
        if frame is None:
            return
        if len(self._frames) >= _MAX_SIZES:
            self._frames.clear()
        frames = self._frames.setdefault(size, [])
        if len(frames) >= _MAX_OF_SIZE:
            frames.clear()
        frames.append(frame)


def _frame(data: bytes, decoded: Decoded, signature: Signature) -> Frame | None:
    """The frame of a message; None if it is not one for the quick way."""
    tensors = decoded.inputs.tensors
    start = len(data) - sum(1 + len(varint(array.nbytes)) + array.nbytes for array in tensors.values())
    if not 0 < start <= _MAX_FRAME_BYTES or len(tensors) > _MAX_INPUTS:
        return None
    prefix = data[:start]
    try:
        message = ModelInferRequest.FromString(prefix)
    except DecodeError:
        return None
    if message.id or message.raw_input_contents or len(message.inputs) != len(tensors) or not tensors:
        return None
    parts: list[_Part] = []
    for entry in message.inputs:
        spec = signature.input(entry.name)
        array = tensors.get(entry.name)
        if spec is None or array is None or not _is_quick(entry, spec):
            return None
        head = _RAW + varint(array.nbytes)
        begin = start + len(head)
        parts.append((start, begin, head, begin + array.nbytes, entry.name, NUMPY_DTYPES[spec.dtype], array.shape))
        start = begin + array.nbytes
    frame = Frame(message, prefix, tuple(parts), decoded, signature)
    return frame if frame.fits(data) else None


def _is_quick(entry: "ModelInferRequest.InferInputTensor", spec: TensorSpec) -> bool:
    return spec.dtype in _QUICK and entry.datatype == spec.dtype and not entry.HasField("contents")
