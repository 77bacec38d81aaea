"""An answer that is always the same: tensors for any number of instances from the JSON values of one.

NumPy is imported where tensors are built: who only checks a configuration does not need it.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from shared.domain.dtypes import DType
from shared.domain.errors import (
    BackendError,
    FieldError,
    InvalidRequest,
    MissingField,
    OutOfRange,
    UnknownField,
    WrongDtype,
    WrongShape,
    pointer,
)
from shared.domain.signature import Dim, Signature, TensorSpec

if TYPE_CHECKING:
    from shared.domain.tensors import Array, Tensors

# The largest finite values (IEEE 754; BF16 has FP32's exponent and 7 bits of fraction).
_LARGEST: Final[Mapping[DType, float]] = {
    DType.FP16: 65_504.0,
    DType.BF16: (2 - 2**-7) * 2.0**127,
    DType.FP32: (2 - 2**-23) * 2.0**127,
    DType.FP64: (2 - 2**-52) * 2.0**1023,
}


def problems(outputs: Mapping[str, Any], signature: Signature, base: str = "") -> list[FieldError]:
    """What of an answer does not fit the signature, the first place of each output; empty if it can be given.

    `base` is the JSON pointer of `outputs` in the document that it is part of.
    """
    found = [
        FieldError(pointer(base, name), f"is not an output; there are {', '.join(signature.output_names)}")
        for name in outputs
        if name not in signature.output_names
    ]
    for spec in signature.outputs:
        try:
            _one(outputs, spec, signature, base)
        except InvalidRequest as error:
            found += error.fields
    return found


def static_outputs(outputs: Mapping[str, Any], signature: Signature, rows: int) -> "Tensors":
    """The answer for `rows` instances: every output with its dtype, and the shape of one instance repeated.

    Raises BackendError if the signature has other outputs than the answer was written for.
    """
    wrong = problems(outputs, signature)
    if wrong:
        places = "; ".join(f"{problem.pointer} {problem.detail}" for problem in wrong[:3])
        raise BackendError(f"The static answer does not fit this version: {places}.")
    return {
        spec.name: _tensor(*_one(outputs, spec, signature, ""), spec, signature, rows) for spec in signature.outputs
    }


def _one(
    outputs: Mapping[str, Any], spec: TensorSpec, signature: Signature, base: str
) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of one instance's value in row-major order, and its shape; raises InvalidRequest."""
    place = pointer(base, spec.name)
    if spec.name not in outputs:
        raise MissingField.at(place, "is missing: the answer has to have every output")
    value = outputs[spec.name]
    dims = spec.shape[1:] if signature.batched else spec.shape
    if spec.classes and isinstance(value, Mapping) and len(dims) == 1:
        return _elements([place], [_by_class(value, spec, place)], dims, spec.dtype)
    return _elements([place], [value], dims, spec.dtype)


def _by_class(value: Mapping[str, Any], spec: TensorSpec, place: str) -> list[Any]:
    for name in value:
        if name not in spec.classes:
            raise UnknownField.at(pointer(place, name), "is not a class of this output")
    for name in spec.classes:
        if name not in value:
            raise MissingField.at(pointer(place, name), "is missing: the answer has to have every class")
    return [value[name] for name in spec.classes]


def _elements(
    places: Sequence[str], level: list[Any], dims: Sequence[Dim], dtype: DType
) -> tuple[list[Any], tuple[int, ...]]:
    shape: tuple[int, ...] = ()
    for dim in dims:
        size = dim
        for place, item in zip(places, level, strict=True):
            if not isinstance(item, (list, tuple)):
                raise WrongShape.at(place, f"must be a list: one instance has the shape {_shown(dims)}")
            size = len(item) if size is None else size
            if len(item) != size:
                raise WrongShape.at(place, f"has {len(item)} elements; expected {size}")
        places = [pointer(place, i) for place, item in zip(places, level, strict=True) for i in range(len(item))]
        level = [element for item in level for element in item]
        shape = (*shape, size or 0)
    return [_element(item, dtype, place) for place, item in zip(places, level, strict=True)], shape


def _shown(dims: Sequence[Dim]) -> list[int]:
    return [-1 if dim is None else dim for dim in dims]


def _element(value: Any, dtype: DType, place: str) -> Any:
    """The value as Python has it; nothing is coerced: a boolean is no number, a fraction no integer."""
    if dtype is DType.BYTES:
        return _bytes(value, place)
    if dtype is DType.BOOL:
        if not isinstance(value, bool):
            raise WrongDtype.at(place, "must be true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongDtype.at(place, f"must be a number ({dtype})")
    if dtype.is_float:
        if not isfinite(value) or abs(value) > _LARGEST[dtype]:
            raise OutOfRange.at(place, f"does not fit {dtype}")
        return value
    if not isinstance(value, int):
        raise WrongDtype.at(place, f"must be an integer ({dtype})")
    lowest, highest = _bounds(dtype)
    if not lowest <= value <= highest:
        raise OutOfRange.at(place, f"does not fit {dtype} ({lowest} to {highest})")
    return value


def _bounds(dtype: DType) -> tuple[int, int]:
    signed = dtype.value.startswith("INT")
    bits = int(dtype.value.removeprefix("U").removeprefix("INT"))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _bytes(value: Any, place: str) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise WrongDtype.at(place, "is not text in UTF-8") from None
    if isinstance(value, Mapping) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise WrongDtype.at(f"{place}/b64", "is not base64") from None
    raise WrongDtype.at(place, 'must be a string or {"b64": …}')


def _tensor(elements: list[Any], shape: tuple[int, ...], spec: TensorSpec, signature: Signature, rows: int) -> "Array":
    import numpy as np

    from shared.domain.tensors import NUMPY_DTYPES, bytes_tensor, fp32_to_bf16

    if spec.dtype is DType.BYTES:
        one = bytes_tensor(elements).reshape(shape)
    elif spec.dtype is DType.BF16:
        one = fp32_to_bf16(np.array(elements, dtype=np.float32)).reshape(shape)
    else:
        one = np.array(elements, dtype=NUMPY_DTYPES[spec.dtype]).reshape(shape)
    return np.repeat(one[np.newaxis], rows, axis=0) if signature.batched else one
