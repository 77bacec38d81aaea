"""JSON values ↔ one tensor. Nothing is coerced: a bool is no number, a fraction no integer, a string no value.

The types are checked before NumPy sees a value: NumPy would read text as numbers, and widen a whole array to the
longest text in it, which lets a small body take gigabytes.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NoReturn, cast

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.errors import NotFinite, OutOfRange, WrongDtype, WrongShape
from shared.domain.tensors import NUMPY_DTYPES, Array, bf16_to_fp32, fp32_to_bf16

MAX_RANK = 32

Pointer = Callable[[tuple[int, ...]], str]
"""The JSON pointer of the element at an index."""

_PYTHON_TYPES: Mapping[DType, frozenset[type]] = {
    **{dtype: frozenset({int, float} if dtype.is_float else {int}) for dtype in DType},
    DType.BOOL: frozenset({bool}),
    DType.BYTES: frozenset({str, dict}),
}


def to_tensor(value: Any, dtype: DType, pointer: Pointer) -> Array:
    """The tensor of nested lists (or of one scalar) that `json_documents.loads` gave.

    Raises WrongDtype, WrongShape, OutOfRange, NotFinite with the pointer of the first element that is wrong.
    """
    shape, flat, types = _flatten(value, dtype, pointer)

    def place(position: int) -> str:
        return pointer(_index(position, shape))

    if not types <= _PYTHON_TYPES[dtype]:
        position = next(i for i, item in enumerate(flat) if type(item) not in _PYTHON_TYPES[dtype])
        _refuse(flat[position], dtype, place(position))
    convert = _bytes if dtype is DType.BYTES else _floats if dtype.is_float else _integers
    return convert(flat, dtype, place).reshape(shape)


def from_base64(text: Any, pointer: str) -> bytes:
    """The bytes of a base64 string (RFC 4648, padded); WrongDtype if it is none."""
    if not isinstance(text, str):
        raise WrongDtype.at(pointer, "must be a base64 string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WrongDtype.at(pointer, "is not base64") from None


def is_base64_object(value: Any) -> bool:
    """Whether `value` has the form `{"b64": …}`, which stands for bytes in JSON."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def text_of(value: bytes) -> str | dict[str, str]:
    """A BYTES element for JSON: text where it is UTF-8, else `{"b64": …}`."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}


def _flatten(value: Any, dtype: DType, pointer: Pointer) -> tuple[tuple[int, ...], list[Any], set[type]]:
    """The shape of nested lists, their elements in row-major order, and the types of these; refuses ragged lists."""
    shape: tuple[int, ...] = ()
    level = [value]
    while list in (types := set(map(type, level))):
        if len(types) > 1:
            position = next(i for i, item in enumerate(level) if type(item) is not list)
            place = pointer(_index(position, shape))
            if type(level[position]) not in _PYTHON_TYPES[dtype]:
                _refuse(level[position], dtype, place)
            raise WrongShape.at(place, "is a single value where its neighbours are lists")
        if len(shape) == MAX_RANK:
            raise WrongShape.at(pointer(()), f"has more than {MAX_RANK} dimensions")
        length = len(level[0])
        if set(map(len, level)) != {length}:
            position = next(i for i, item in enumerate(level) if len(item) != length)
            detail = f"has {len(level[position])} elements where its neighbours have {length}"
            raise WrongShape.at(pointer(_index(position, shape)), detail)
        shape = (*shape, length)
        level = list(chain.from_iterable(level))
    return shape, level, types


def _index(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(position, shape))


def _floats(flat: list[Any], dtype: DType, place: Callable[[int], str]) -> Array:
    with np.errstate(over="ignore"):
        values: Array = np.array(flat, dtype=np.float32 if dtype is DType.BF16 else NUMPY_DTYPES[dtype])
    array = fp32_to_bf16(values) if dtype is DType.BF16 else values
    # JSON has no infinity: where one is now, the number was too large for the type.
    finite = np.isfinite(bf16_to_fp32(array) if dtype is DType.BF16 else array)
    if not finite.all():
        raise NotFinite.at(place(int(np.argmin(finite))), f"is too large for {dtype}")
    return array


def _integers(flat: list[Any], dtype: DType, place: Callable[[int], str]) -> Array:
    try:
        return np.array(flat, dtype=NUMPY_DTYPES[dtype])
    except OverflowError:
        bounds = np.iinfo(cast("np.dtype[np.int64]", NUMPY_DTYPES[dtype]))
        position = next(i for i, item in enumerate(flat) if not bounds.min <= item <= bounds.max)
        detail = f"does not fit {dtype} ({bounds.min} to {bounds.max})"
        raise OutOfRange.at(place(position), detail) from None


def _bytes(flat: list[Any], dtype: DType, place: Callable[[int], str]) -> Array:
    array = np.empty(len(flat), dtype=np.object_)
    for position, item in enumerate(flat):
        if isinstance(item, str):
            array[position] = item.encode()  # never a lone surrogate: the parser refuses them
        elif is_base64_object(item):
            array[position] = from_base64(item["b64"], place(position) + "/b64")
        else:
            _refuse(item, dtype, place(position))
    return array


def _refuse(value: Any, dtype: DType, place: str) -> NoReturn:
    """Say why `value` is none of `dtype`."""
    if dtype.is_integer and isinstance(value, float) and abs(value) >= 2**63:
        # The parser gives integers beyond 64 bits as floats.
        raise OutOfRange.at(place, f"does not fit {dtype}")
    if dtype is DType.BYTES:
        raise WrongDtype.at(place, f'must be a string or {{"b64": …}}, not {_kind(value)}')
    wanted = "true or false" if dtype is DType.BOOL else "a number" if dtype.is_float else "an integer"
    raise WrongDtype.at(place, f"must be {wanted} ({dtype}), not {_kind(value)}")


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a fraction", str: "a string", dict: "an object"}
    return "null" if value is None else names.get(type(value), "a list")
