"""The Open Inference Protocol (KServe V2) over HTTP: JSON and the binary tensor extension.

A body is a JSON header, then the raw bytes of those tensors whose parameters hold `binary_data_size`, in the order in
which the header names them. The header's length travels beside the body (`Inference-Header-Content-Length`, or
`json-header-size` in SageMaker's content type). Raw numbers are little-endian and row-major; each BYTES element is its
length as 4 little-endian bytes, then its bytes.
Sources: Open Inference Protocol, "Inference Request/Response JSON Object"; Triton's "Binary Tensor Data Extension",
"Shared-Memory Extension", "Classification Extension" (the last two are refused).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from shared.codecs.json_documents import JsonLimits, dumps, loads
from shared.codecs.values import MAX_RANK, text_of, to_tensor
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, MissingField, UnknownField, WrongDtype, WrongShape
from shared.domain.signature import Signature
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bf16_to_fp32, bytes_tensor
from shared.domain.validation import Inputs

SHARED_MEMORY = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")
NO_SHARED_MEMORY = "is not offered: send tensors in the message"
NO_CLASSIFICATION = "is not offered: the answer holds all classes"


@dataclass(frozen=True, slots=True)
class V2Tensor:
    """A tensor as the wire declares it; `nested` says that its JSON data was nested, which only pointers need."""

    dtype: DType
    array: Array
    nested: bool = False


@dataclass(frozen=True, slots=True)
class V2Request:
    """An inference request; `outputs` maps each requested output to whether it is wanted as binary (empty: all)."""

    inputs: Mapping[str, V2Tensor]
    id: str = ""
    outputs: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_inputs(self, signature: Signature) -> Inputs:
        """The tensors, once their names and declared dtypes are the signature's; UnknownField, WrongDtype otherwise."""
        positions = {name: position for position, name in enumerate(self.inputs)}

        def locate(name: str, index: tuple[int, ...]) -> str:
            if name not in positions:
                return "/inputs"
            place = f"/inputs/{positions[name]}"
            if not index:
                return f"{place}/shape"
            tensor = self.inputs[name]
            at = index if tensor.nested else (int(np.ravel_multi_index(index, tensor.array.shape)),)
            return _element(f"{place}/data", at)

        for name, tensor in self.inputs.items():
            spec = signature.input(name)
            if spec is None:
                known = ", ".join(spec.name for spec in signature.inputs)
                place = f"/inputs/{positions[name]}/name"
                raise UnknownField.at(place, f"is not an input of this model; it takes {known}")
            if tensor.dtype is not spec.dtype and not (spec.takes_images and tensor.dtype is DType.BYTES):
                place = f"/inputs/{positions[name]}/datatype"
                raise WrongDtype.at(place, f"must be {spec.dtype}, not {tensor.dtype}")
        return Inputs({name: tensor.array for name, tensor in self.inputs.items()}, locate)


@dataclass(frozen=True, slots=True)
class V2Response:
    """An inference response."""

    model_name: str
    model_version: str
    outputs: Mapping[str, V2Tensor]
    id: str = ""


def encode_request(
    inputs: Mapping[str, V2Tensor],
    *,
    request_id: str = "",
    outputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    binary: bool = True,
) -> tuple[bytes, int]:
    """A request with all tensors as binary, and all outputs wanted so; returns the body and its header's length.

    With `binary` false the whole body is JSON, and so is what it asks for. NaN and infinity have no place in JSON (they
    become null), nor have bytes that are not UTF-8: whoever calls sees to that.
    """
    sent: dict[str, Any] = {**(parameters or {})}
    if binary and not outputs:
        sent["binary_data_output"] = True
    header: dict[str, Any] = {"id": request_id, "parameters": sent}
    if outputs:
        header["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    return _encode(header, "inputs", inputs, binary=inputs.keys() if binary else ())


def encode_response(response: V2Response, *, binary: Mapping[str, bool] | bool) -> tuple[bytes, int | None]:
    """A response body and, if any output is binary, the length of its JSON header (else None)."""
    wanted = {name for name in response.outputs if (binary if isinstance(binary, bool) else binary.get(name, False))}
    header: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        header["id"] = response.id
    body, length = _encode(header, "outputs", response.outputs, binary=wanted)
    return body, length if wanted else None


def decode_request(body: bytes, header_length: int | None, limits: JsonLimits) -> V2Request:
    """Read a request; `header_length` None says that the whole body is JSON. Raises InvalidRequest."""
    header, tensors = _decode(body, header_length, "inputs", limits)
    parameters = _object(header.get("parameters"), "/parameters")
    default = _flag(parameters, "binary_data_output", "/parameters", default=False)
    wanted: dict[str, bool] = {}
    for position, item in enumerate(_list(header.get("outputs", []), "/outputs")):
        pointer = f"/outputs/{position}"
        output = _object(item, pointer)
        place = f"{pointer}/parameters"
        asked = _object(output.get("parameters"), place)
        _refuse_shared_memory(asked, place)
        if asked.get("classification"):  # 0 asks for no classes
            raise UnknownField.at(f"{place}/classification", NO_CLASSIFICATION)
        wanted[_name(output, pointer)] = _flag(asked, "binary_data", place, default=default)
    return V2Request(tensors, _text(header, "id"), wanted, parameters)


def decode_response(body: bytes, header_length: int | None, limits: JsonLimits) -> V2Response:
    """Read a response. Raises InvalidRequest where the body breaks the protocol."""
    header, tensors = _decode(body, header_length, "outputs", limits)
    return V2Response(
        model_name=_text(header, "model_name"),
        model_version=_text(header, "model_version"),
        outputs=tensors,
        id=_text(header, "id"),
    )


def _encode(header: dict[str, Any], kind: str, tensors: Mapping[str, V2Tensor], binary: Any) -> tuple[bytes, int]:
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, tensor in tensors.items():
        entry: dict[str, Any] = {"name": name, "datatype": tensor.dtype.value, "shape": list(tensor.array.shape)}
        if name in binary:
            blob = to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = _json_data(tensor)
        entries.append(entry)
    head = dumps({**header, kind: entries})
    return b"".join([head, *blobs]), len(head)


def _json_data(tensor: V2Tensor) -> Any:
    flat = np.ascontiguousarray(tensor.array).reshape(-1)
    if tensor.dtype is DType.BYTES:
        return [text_of(value) for value in flat]
    return bf16_to_fp32(flat) if tensor.dtype is DType.BF16 else flat


def to_raw(tensor: V2Tensor) -> bytes:
    """The raw bytes of a tensor."""
    if tensor.dtype is not DType.BYTES:
        return np.ascontiguousarray(tensor.array).tobytes()
    return b"".join(part for value in tensor.array.reshape(-1) for part in (struct.pack("<I", len(value)), value))


def from_raw(raw: memoryview, dtype: DType, shape: tuple[int, ...], pointer: str) -> Array:
    """The tensor (a read-only view for numbers) of raw bytes; WrongShape if the length does not fit."""
    count = prod(shape)
    if dtype is DType.BYTES:
        return bytes_tensor(_split(raw, count, pointer)).reshape(shape)
    numpy_dtype = NUMPY_DTYPES[dtype]
    if len(raw) != count * numpy_dtype.itemsize:
        wanted = count * numpy_dtype.itemsize
        raise WrongShape.at(pointer, f"has {len(raw)} bytes; {dtype} of shape {list(shape)} takes {wanted}")
    if dtype is DType.BOOL and raw and np.frombuffer(raw, dtype=np.uint8).max() > 1:
        raise WrongDtype.at(pointer, "holds a BOOL byte that is neither 0 nor 1")
    return np.frombuffer(raw, dtype=numpy_dtype).reshape(shape)


def _split(raw: memoryview, count: int, pointer: str) -> list[bytes]:
    values: list[bytes] = []
    position = 0
    while position < len(raw) and len(values) < count:
        if position + 4 > len(raw):
            break
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4
        if position + length > len(raw):
            raise WrongShape.at(
                pointer, f"element {len(values)} says {length} bytes and {len(raw) - position} are left"
            )
        values.append(bytes(raw[position : position + length]))
        position += length
    if len(values) != count or position != len(raw):
        raise WrongShape.at(pointer, f"holds {len(values)} whole elements in {len(raw)} bytes; the shape says {count}")
    return values


def _decode(
    body: bytes, header_length: int | None, kind: str, limits: JsonLimits
) -> tuple[dict[str, Any], dict[str, V2Tensor]]:
    if header_length is not None and not 0 < header_length <= len(body):
        raise InvalidRequest(f"The JSON header is said to have {header_length} bytes; the body has {len(body)}.")
    head = body if header_length is None else body[:header_length]
    raw = memoryview(body)[len(head) :]
    document = loads(head, limits)
    header = _object(document, "")
    if kind not in header:
        raise MissingField.at(f"/{kind}", "is missing")
    tensors: dict[str, V2Tensor] = {}
    for position, item in enumerate(_list(header[kind], f"/{kind}")):
        pointer = f"/{kind}/{position}"
        entry = _object(item, pointer)
        name = _name(entry, pointer)
        if name in tensors:
            raise UnknownField.at(f"{pointer}/name", "is given twice")
        tensors[name], raw = _tensor(entry, raw, pointer)
    if len(raw):
        raise WrongShape.at(f"/{kind}", f"leave {len(raw)} bytes of the binary part unused")
    return header, tensors


def _tensor(entry: dict[str, Any], raw: memoryview, pointer: str) -> tuple[V2Tensor, memoryview]:
    dtype, shape = _dtype(entry, pointer), _shape(entry, pointer)
    parameters = _object(entry.get("parameters"), f"{pointer}/parameters")
    _refuse_shared_memory(parameters, f"{pointer}/parameters")
    size = parameters.get("binary_data_size")
    if size is not None:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(raw):
            place = f"{pointer}/parameters/binary_data_size"
            raise WrongShape.at(place, f"must be an integer from 0 to the {len(raw)} bytes that are left")
        if "data" in entry:
            raise UnknownField.at(f"{pointer}/data", "is given beside binary data")
        return V2Tensor(dtype, from_raw(raw[:size], dtype, shape, pointer)), raw[size:]
    if "data" not in entry:
        raise MissingField.at(f"{pointer}/data", "is missing")
    data = _list(entry["data"], f"{pointer}/data")

    def locate(index: tuple[int, ...]) -> str:
        return _element(f"{pointer}/data", index)

    array = to_tensor(data, dtype, locate)
    if array.size != prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise WrongShape.at(f"{pointer}/data", f"has the shape {list(array.shape)}; the tensor says {list(shape)}")
    return V2Tensor(dtype, array.reshape(shape), nested=array.ndim > 1), raw


def _refuse_shared_memory(parameters: Mapping[str, Any], place: str) -> None:
    for name in SHARED_MEMORY:
        if name in parameters:
            raise UnknownField.at(f"{place}/{name}", NO_SHARED_MEMORY)


def _element(base: str, index: tuple[int, ...]) -> str:
    return "/".join([base, *map(str, index)])


def _dtype(entry: dict[str, Any], pointer: str) -> DType:
    try:
        return DType(entry["datatype"])
    except KeyError:
        raise MissingField.at(f"{pointer}/datatype", "is missing") from None
    except ValueError:
        raise WrongDtype.at(f"{pointer}/datatype", f"must be one of {', '.join(DType)}") from None


def _shape(entry: dict[str, Any], pointer: str) -> tuple[int, ...]:
    if "shape" not in entry:
        raise MissingField.at(f"{pointer}/shape", "is missing")
    dims = _list(entry["shape"], f"{pointer}/shape")
    fine = len(dims) <= MAX_RANK and all(type(dim) is int and 0 <= dim < 2**31 for dim in dims)
    # NumPy refuses absurd dimensions even beside a 0, where no data would have to match them.
    if not fine or prod(dim for dim in dims if dim) >= 2**48:
        detail = f"must hold at most {MAX_RANK} integers from 0 to 2^31 - 1, and fewer than 2^48 elements"
        raise WrongShape.at(f"{pointer}/shape", detail)
    return tuple(dims)


def _name(entry: dict[str, Any], pointer: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise MissingField.at(f"{pointer}/name", "must be a string that is not empty")
    return name


def _text(header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    if value is not None and not isinstance(value, str):
        raise WrongDtype.at(f"/{key}", "must be a string")
    return value or ""


def _flag(parameters: dict[str, Any], key: str, pointer: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise WrongDtype.at(f"{pointer}/{key}", "must be true or false")
    return value


def _object(value: Any, pointer: str) -> dict[str, Any]:
    if value is None and pointer:
        return {}
    if not isinstance(value, dict):
        raise WrongDtype.at(pointer, "must be an object")
    return value


def _list(value: Any, pointer: str) -> list[Any]:
    if not isinstance(value, list):
        raise WrongDtype.at(pointer, "must be a list")
    return value


def to_wire(tensors: Tensors, dtypes: Mapping[str, DType]) -> dict[str, V2Tensor]:
    """Tensors with the dtypes that the wire declares; images in place of numbers travel as BYTES."""
    return {
        name: V2Tensor(DType.BYTES if array.dtype == np.object_ else dtypes[name], array)
        for name, array in tensors.items()
    }
