"""JSON arrays of numbers, read straight into NumPy: quick, and only where the result is certain.

simdjson writes the numbers of a document into one buffer. It flattens nested arrays while doing so, without a look at
their lengths, so these are checked first. What strict decoding (`shared.codecs.values`) refuses is never read here.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.tensors import NUMPY_DTYPES, Array, fp32_to_bf16

with suppress(ModuleNotFoundError):  # functions do without its 7 MB: their bodies are short, and read strictly
    import simdjson

Reader = Callable[["simdjson.Array"], Array | None]
"""The flat elements of an array of numbers; None, TypeError or ValueError if some are none of its dtype."""

_FLOAT64 = np.dtype(np.float64)
_INT64 = np.dtype(np.int64)
_UINT64 = np.dtype(np.uint64)
_SHORT = 4096
_MAX_ARRAYS = 1 << 16  # each becomes an object
_KEPT = 1 << 18  # bytes: a parser keeps buffers of about ten times its longest document

# An object of simdjson keeps its document alive, and a parser refuses the next document until all are gone. So a second
# thread that meets the parser in use gets a RuntimeError, never another's numbers.
_HAS_PARSER = "simdjson" in globals()
if _HAS_PARSER:
    _PARSER = simdjson.Parser()


def reader_of(dtype: DType) -> Reader | None:
    """What reads the numbers of a dtype; None for BOOL and BYTES, and for all without simdjson."""
    return _READERS.get(dtype) if _HAS_PARSER else None


def read_flat(text: bytes, reader: Reader) -> Array | None:
    """The elements (one axis, a writable array of their own) of a JSON array of numbers; None if not certain.

    `text` starts with `[`. Rounding is that of `values.to_tensor`.
    """
    if text.find(b"[", 1) > 0:
        return None
    try:
        return reader((_PARSER if len(text) <= _KEPT else simdjson.Parser()).parse(text))  # type: ignore[arg-type]
    except (ValueError, TypeError, RuntimeError):
        return None


def read_nested(text: bytes, depth: int, reader: Reader) -> Array | None:
    """As `read_flat`, with the shape that the nesting gives; `text` starts with `depth` brackets without spaces."""
    if len(text) > _KEPT and text.count(b"[") > _MAX_ARRAYS:
        return None
    try:
        parsed = (_PARSER if len(text) <= _KEPT else simdjson.Parser()).parse(text)
        shape = _shape(parsed, text, depth)
        flat = None if shape is None else reader(parsed)  # type: ignore[arg-type]
    except (ValueError, TypeError, RuntimeError):
        return None
    return None if flat is None or shape is None else flat.reshape(shape)


def _shape(parsed: Any, text: bytes, depth: int) -> tuple[int, ...] | None:
    """The shape of arrays nested `depth` deep; None if lengths differ, are 0, or anything lies deeper or less deep."""
    shape = [len(parsed)]
    level = [parsed]
    count = 1
    for _ in range(depth - 1):
        level = [item for array in level for item in array] if shape[-1] > 1 else [array[0] for array in level]
        length = len(level[0]) if type(level[0]) is simdjson.Array else 0
        for item in level:
            if type(item) is not simdjson.Array or len(item) != length:
                return None
        count += len(level)
        shape.append(length)
    # Only what holds no bracket but those that were seen has numbers at its end.
    brackets = depth if count == depth and text.find(b"[", depth) < 0 else text.count(b"[")
    return tuple(shape) if brackets == count and 0 not in shape else None


def _floats(dtype: DType, largest: float) -> Reader:
    numpy_dtype = NUMPY_DTYPES[dtype]
    square = largest * largest

    def read(array: "simdjson.Array") -> Array | None:
        values: Array = np.frombuffer(array.as_buffer(of_type="d"), _FLOAT64)
        # For a short list the sum of squares is quicker than the extremes; a long one would wake the threads of BLAS.
        fits = values.size <= _SHORT and values.dot(values) <= square
        if not fits and values.size and not -largest <= values.min() <= values.max() <= largest:
            return None
        return values.astype(numpy_dtype)

    return read


def _bf16(array: "simdjson.Array") -> Array | None:
    values = _FLOAT_BELOW_BF16(array)
    return None if values is None else fp32_to_bf16(values)


def _fp64(array: "simdjson.Array") -> Array | None:
    return np.frombuffer(array.as_buffer(of_type="d"), _FLOAT64)  # JSON has no infinity, and the parser makes none


def _int64(array: "simdjson.Array") -> Array | None:
    return np.frombuffer(array.as_buffer(of_type="i"), _INT64)


def _uint64(array: "simdjson.Array") -> Array | None:
    return np.frombuffer(array.as_buffer(of_type="u"), _UINT64)


def _integers(dtype: DType) -> Reader:
    numpy_dtype = NUMPY_DTYPES[dtype]
    bounds = np.iinfo(numpy_dtype)  # type: ignore[type-var]  # an integer dtype
    low, high = int(bounds.min), int(bounds.max)

    def read(array: "simdjson.Array") -> Array | None:
        values: Array = np.frombuffer(array.as_buffer(of_type="i"), _INT64)
        if values.size and not low <= values.min() <= values.max() <= high:
            return None
        return values.astype(numpy_dtype)

    return read


# The largest finite values; BF16's own is a little below FP32's, and rounding must not pass it.
_FLOAT_BELOW_BF16 = _floats(DType.FP32, 3.38e38)
_READERS: Mapping[DType, Reader] = {
    DType.FP16: _floats(DType.FP16, 65504.0),
    DType.BF16: _bf16,
    DType.FP32: _floats(DType.FP32, float(np.finfo(np.float32).max)),
    DType.FP64: _fp64,
    DType.INT64: _int64,
    DType.UINT64: _uint64,
    **{
        dtype: _integers(dtype)
        for dtype in (DType.INT8, DType.INT16, DType.INT32, DType.UINT8, DType.UINT16, DType.UINT32)
    },
}
