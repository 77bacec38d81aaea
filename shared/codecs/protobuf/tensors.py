"""ModelInferRequest and ModelInferResponse ↔ tensors.

A tensor's elements come raw (`raw_input_contents`, one entry for each input, little-endian and row-major, as in the
binary extension of V2) or typed (`contents`); answers are raw always, as Triton's are. Places in errors are pointers
into the message: `/inputs/0/shape`, `/raw_input_contents/0`, `/inputs/0/contents/fp32_contents/3`.
Sources: Open Inference Protocol, "GRPC", "Tensor Data"; Triton Inference Server, "Shared-Memory Extension",
"Classification Extension".
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from shared.codecs.content.decoded import Decoded
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse
from shared.codecs.v2 import NO_CLASSIFICATION, NO_SHARED_MEMORY, SHARED_MEMORY, V2Tensor, from_raw, to_raw
from shared.codecs.values import MAX_RANK
from shared.domain.dtypes import DType
from shared.domain.errors import (
    InvalidRequest,
    MissingField,
    OutOfRange,
    UnknownField,
    WrongDtype,
    WrongShape,
    pointer,
)
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bytes_tensor
from shared.domain.validation import Inputs

if TYPE_CHECKING:
    from shared.codecs.protobuf.inference_pb2 import InferParameter, InferTensorContents

    InputTensor = ModelInferRequest.InferInputTensor

# FP16 and BF16 have no field: they can only be raw.
_CONTENTS: Mapping[DType, str] = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.BYTES: "bytes_contents",
}
_NARROW = frozenset({DType.INT8, DType.INT16, DType.UINT8, DType.UINT16})
_DTYPES = frozenset(dtype.value for dtype in DType)
_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))

# Tags of ModelInferResponse: the field's number, then 2 for "length-delimited".
_RESPONSE_ID = bytes((3 << 3 | 2,))
_RESPONSE_RAW = bytes((6 << 3 | 2,))


class Places:
    """Where an element of one of `tensors` was in the message; they have the order of the message's inputs."""

    __slots__ = ("_raw", "_signature", "_tensors")

    def __init__(self, tensors: Tensors, signature: Signature, *, raw: bool) -> None:
        self._tensors = tensors
        self._signature = signature
        self._raw = raw

    def __call__(self, name: str, index: tuple[int, ...]) -> str:
        """The pointer; without an index that of the shape."""
        array = self._tensors.get(name)
        if array is None:
            return "/inputs"
        position = list(self._tensors).index(name)
        if not index:
            return f"/inputs/{position}/shape"
        element = int(np.ravel_multi_index(index, array.shape))
        if self._raw:
            return f"/raw_input_contents/{position}/{element}"
        spec = self._signature.input(name)
        dtype = DType.BYTES if spec is None or array.dtype == np.object_ else spec.dtype
        return f"/inputs/{position}/contents/{_CONTENTS[dtype]}/{element}"


def read_infer_request(data: bytes) -> ModelInferRequest:
    """The message of its bytes; InvalidRequest if they are none."""
    try:
        return ModelInferRequest.FromString(data)
    except DecodeError:
        raise InvalidRequest("The body is not a whole ModelInferRequest of inference.GRPCInferenceService.") from None


def decode_infer_request(message: ModelInferRequest | bytes, signature: Signature) -> Decoded:
    """The tensors and what else a request says; tensors of raw numbers are read-only views of the message's bytes.

    Raises InvalidRequest if bytes are no message, and UnknownField, MissingField, WrongDtype, WrongShape and OutOfRange
    for what breaks the protocol or has another name or dtype than the signature says. Shapes are not compared with it.
    """
    if isinstance(message, bytes):
        message = read_infer_request(message)
    entries = message.inputs
    raws = message.raw_input_contents
    with_raw = len(raws)
    if with_raw and with_raw != len(entries):
        detail = f"has {with_raw} entries for {len(entries)} inputs: give one for each, or none"
        raise WrongShape.at("/raw_input_contents", detail)
    tensors: dict[str, Array] = {}
    for position, entry in enumerate(entries):
        name = entry.name
        if name in tensors:
            raise UnknownField.at(f"/inputs/{position}/name", "is given twice")
        dtype = _dtype(entry, signature.input(name), signature, position)
        shape = shape_of(entry.shape, f"/inputs/{position}/shape")
        if entry.parameters:
            _refuse_shared_memory(entry.parameters, f"/inputs/{position}/parameters")
        if not with_raw:
            tensors[name] = typed_tensor(entry.contents, dtype, shape, f"/inputs/{position}/contents")
        elif entry.HasField("contents"):
            raise UnknownField.at(f"/inputs/{position}/contents", "is given beside raw_input_contents")
        else:
            tensors[name] = from_raw(memoryview(raws[position]), dtype, shape, f"/raw_input_contents/{position}")
    inputs = Inputs(tensors, Places(tensors, signature, raw=bool(with_raw)))
    outputs = _outputs(message) if message.outputs else ()
    parameters = _parameters(message.parameters) if message.parameters else None
    return Decoded(inputs, outputs, message.id, parameters, binary_outputs=True)


def encode_infer_response(
    model_name: str, model_version: str, request_id: str, outputs: Tensors, signature: Signature
) -> bytes:
    """The serialised ModelInferResponse: the outputs in the order given, raw."""
    described = tuple([(name, _output_dtype(name, signature), array.shape) for name, array in outputs.items()])
    parts = [_response_head(model_name, model_version, described)]
    if request_id:
        encoded = request_id.encode("utf-8")
        parts += (_RESPONSE_ID, varint(len(encoded)), encoded)
    for array in outputs.values():
        raw = array.tobytes() if array.dtype != np.object_ else to_raw(V2Tensor(DType.BYTES, array))
        parts += (_RESPONSE_RAW, varint(len(raw)), raw)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """A length as the wire has it (seven bits a byte, the lowest first)."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


@lru_cache(maxsize=256)
def _response_head(
    model_name: str, model_version: str, described: tuple[tuple[str, DType, tuple[int, ...]], ...]
) -> bytes:
    """What answers have in common that differ only in their id and numbers; fields may come in any order."""
    response = ModelInferResponse(model_name=model_name, model_version=model_version)
    for name, dtype, shape in described:
        response.outputs.add(name=name, datatype=dtype.value, shape=shape)
    return response.SerializeToString()


def _output_dtype(name: str, signature: Signature) -> DType:
    for spec in signature.outputs:
        if spec.name == name:
            return spec.dtype
    raise AssertionError(f"{name} is not an output of the signature")


def _dtype(entry: "InputTensor", spec: TensorSpec | None, signature: Signature, position: int) -> DType:
    text = entry.datatype
    if spec is None:
        known = ", ".join(spec.name for spec in signature.inputs)
        raise UnknownField.at(f"/inputs/{position}/name", f"is not an input of this model; it takes {known}")
    if text == spec.dtype:
        return spec.dtype
    if text == DType.BYTES and spec.takes_images:
        return DType.BYTES
    place = f"/inputs/{position}/datatype"
    if text not in _DTYPES:
        raise WrongDtype.at(place, f"must be one of {', '.join(DType)}")
    raise WrongDtype.at(place, f"must be {spec.dtype}, not {text}")


def shape_of(dims: Iterable[int], place: str) -> tuple[int, ...]:
    """The shape that an entry says, once an array may have it; WrongShape otherwise."""
    shape = tuple(dims)
    fine = len(shape) <= MAX_RANK
    size = 1
    for dim in shape:
        fine = fine and 0 <= dim < 2**31
        size *= dim or 1  # NumPy refuses absurd dimensions even beside a 0
        if not fine or size >= 2**48:
            detail = f"must hold at most {MAX_RANK} integers from 0 to 2^31 - 1, and fewer than 2^48 elements"
            raise WrongShape.at(place, detail)
    return shape


def typed_tensor(contents: "InferTensorContents", dtype: DType, shape: tuple[int, ...], place: str) -> Array:
    """The tensor of typed contents; WrongDtype, WrongShape, MissingField or OutOfRange where they are not one."""
    field = _CONTENTS.get(dtype)
    if field is None:
        raise WrongDtype.at(place, f"cannot hold {dtype}: send it in raw_input_contents")
    for found, _ in contents.ListFields():
        if found.name != field:
            raise WrongDtype.at(f"{place}/{found.name}", f"does not hold {dtype}, {field} does")
    values = getattr(contents, field)
    size = prod(shape)
    if len(values) != size:
        if not len(values):
            detail = f"is missing or empty; the tensor of shape {list(shape)} has {size} elements"
            raise MissingField.at(f"{place}/{field}", detail)
        raise WrongShape.at(f"{place}/{field}", f"has {len(values)} elements; the shape {list(shape)} has {size}")
    if dtype is DType.BYTES:
        return bytes_tensor(list(values)).reshape(shape)
    return _numbers(contents, field, dtype, place).reshape(shape)


def _numbers(contents: "InferTensorContents", field: str, dtype: DType, place: str) -> Array:
    values = getattr(contents, field)
    wanted = NUMPY_DTYPES[dtype]
    if dtype not in _NARROW:
        return np.fromiter(values, dtype=wanted, count=len(values))
    wide = np.fromiter(values, dtype=np.int64, count=len(values))
    narrow = wide.astype(wanted)
    outside = narrow != wide
    if outside.any():
        raise OutOfRange.at(f"{place}/{field}/{int(np.argmax(outside))}", f"does not fit {dtype}")
    return narrow


def _outputs(message: ModelInferRequest) -> tuple[str, ...]:
    names: dict[str, None] = {}  # a look at a list for each of a million outputs would take hours
    for position, entry in enumerate(message.outputs):
        if entry.parameters:
            _refuse_shared_memory(entry.parameters, f"/outputs/{position}/parameters")
            if "classification" in entry.parameters and entry.parameters["classification"].int64_param:
                raise UnknownField.at(f"/outputs/{position}/parameters/classification", NO_CLASSIFICATION)
        if entry.name in names:
            raise UnknownField.at(f"/outputs/{position}/name", "is given twice")
        names[entry.name] = None
    return tuple(names)


def _refuse_shared_memory(parameters: Mapping[str, "InferParameter"], place: str) -> None:
    for name in SHARED_MEMORY:
        if name in parameters:
            raise UnknownField.at(f"{place}/{name}", NO_SHARED_MEMORY)


def _parameters(parameters: "Mapping[str, InferParameter]") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise WrongDtype.at(pointer("/parameters", name), "has no value")
        values[name] = getattr(parameter, choice)
    return values
