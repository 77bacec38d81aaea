"""Inputs against a signature: what does not fit is refused with the place that is wrong, never bent into shape."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.errors import (
    BatchTooLarge,
    EmptyBatch,
    MissingField,
    NotFinite,
    OutOfRange,
    TextTooLong,
    UnknownField,
    WrongDtype,
    WrongShape,
    pointer,
)
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bf16_to_fp32

Locate = Callable[[str, tuple[int, ...]], str]


def locate_by_name(name: str, index: tuple[int, ...]) -> str:
    """JSON pointer of an element where tensors are given by name: `/inputs/<name>/<i>/<j>`."""
    return pointer("/inputs", name, *index)


@dataclass(slots=True)  # not frozen: made for every request, and that takes three times as long
class Inputs:
    """Decoded tensors; `locate` turns a tensor's name and an element's index into the pointer the caller knows."""

    tensors: Tensors
    locate: Locate = locate_by_name


def conform(inputs: Inputs, signature: Signature) -> Tensors:
    """The tensors in the signature's order and canonical shapes: `check_structure` and `check_values` in one.

    The only reshaping is from a layout that the manifest declares; `locate` is asked for places in the tensor as it was
    given. Raises UnknownField, MissingField, WrongDtype, WrongShape, EmptyBatch, BatchTooLarge, NotFinite, OutOfRange,
    TextTooLong.
    """
    tensors = check_structure(inputs, signature)
    check_values(tensors, signature, inputs.locate)
    return tensors


def check_structure(inputs: Inputs, signature: Signature) -> dict[str, Array]:
    """The tensors in the signature's order and canonical shapes, once names, dtypes, shapes and rows are right.

    Values are left to `check_values`, except those of a tensor that comes in another layout: only here are the places
    known that its caller gave. Raises as `conform`.
    """
    _check_names(inputs, signature)
    tensors: dict[str, Array] = {}
    rows: int | None = None
    for spec in signature.inputs:
        if spec.name not in inputs.tensors:
            continue
        given = inputs.tensors[spec.name]
        array = _canonical(given, spec, inputs.locate, signature)
        if signature.has_rows(spec):
            if rows is not None and array.shape[0] != rows:
                place = inputs.locate(spec.name, ())
                raise WrongShape.at(place, f"has {array.shape[0]} rows where another input has {rows}")
            rows = array.shape[0]
        if array is not given:
            _check_tensor(given, spec, inputs.locate)
        tensors[spec.name] = array
    return tensors


def check_values(tensors: Tensors, signature: Signature, locate: Locate) -> None:
    """Raise NotFinite, OutOfRange, TextTooLong or WrongDtype for the first value that the signature does not allow."""
    for spec in signature.inputs:
        array = tensors.get(spec.name)
        if array is not None:
            _check_tensor(array, spec, locate)


def values_fit(tensors: Tensors, signature: Signature) -> bool:
    """Whether `check_values` would pass: the quick answer for a merged batch, which knows no places."""
    for spec in signature.inputs:
        array = tensors.get(spec.name)
        if array is not None and not tensor_fits(array, spec):
            return False
    return True


def check_rows(rows: int, signature: Signature, place: str) -> None:
    """Raise EmptyBatch or BatchTooLarge unless the model takes `rows` instances in one request."""
    limit = signature.max_batch if signature.batched else 1
    if rows == 0:
        raise EmptyBatch.at(place, "holds no instance; give at least one")
    if rows > limit:
        raise BatchTooLarge.at(place, f"holds {rows} instances; the limit of this model is {limit}")


def _check_names(inputs: Inputs, signature: Signature) -> None:
    known = [spec.name for spec in signature.inputs]
    for name in inputs.tensors:
        if name not in known:
            raise UnknownField.at(
                inputs.locate(name, ()), f"is not an input of this model; it takes {', '.join(known)}"
            )
    for spec in signature.inputs:
        if spec.name not in inputs.tensors and not spec.optional:
            raise MissingField.at(inputs.locate(spec.name, ()), f"the input {spec.name} of this model is not given")


def _canonical(array: Array, spec: TensorSpec, locate: Locate, signature: Signature) -> Array:
    expected = NUMPY_DTYPES[spec.dtype]
    encoded_images = spec.takes_images and array.dtype == np.object_ != expected
    if array.dtype != expected and not encoded_images:
        raise WrongDtype.at(locate(spec.name, ()), f"must be {spec.dtype}")
    lead = 1 if signature.has_rows(spec) else 0
    if array.shape[:lead] == (0,):
        check_rows(0, signature, locate(spec.name, ()))
    fitting = fits_shape(array.shape, spec.shape[:lead] if encoded_images else spec.shape)
    if not fitting and (encoded_images or not _fits_layout(array.shape, spec, lead)):
        raise WrongShape.at(locate(spec.name, ()), _shape_message(array.shape, spec, lead))
    if lead:
        check_rows(array.shape[0], signature, locate(spec.name, ()))
    if fitting:
        return array
    return array.reshape(*array.shape[:lead], *(-1 if dim is None else dim for dim in spec.shape[lead:]))


def fits_shape(shape: tuple[int, ...], spec: tuple[int | None, ...]) -> bool:
    """Whether a tensor's shape is one that the spec allows; None in it is any size."""
    return len(shape) == len(spec) and all(want in (None, have) for have, want in zip(shape, spec, strict=True))


def _fits_layout(shape: tuple[int, ...], spec: TensorSpec, lead: int) -> bool:
    return fits_shape(shape[:lead], spec.shape[:lead]) and shape[lead:] in spec.layouts


def _shape_message(shape: tuple[int, ...], spec: TensorSpec, lead: int) -> str:
    canonical = [-1 if dim is None else dim for dim in spec.shape]
    wanted = [canonical, *([*canonical[:lead], *layout] for layout in spec.layouts)]
    return f"has the shape {list(shape)}; expected {' or '.join(map(str, wanted))} (-1 stands for any size)"


def tensor_fits(array: Array, spec: TensorSpec) -> bool:
    """Whether every value of a tensor is allowed."""
    if array.dtype == np.object_:
        return all(map(_BYTES_RULES[spec.content is Content.TEXT], array.ravel().tolist())) and (
            spec.max_length is None or not any(_is_too_long(value, spec.max_length) for value in array.flat)
        )
    values = bf16_to_fp32(array) if spec.dtype is DType.BF16 else array
    if spec.dtype.is_float and not spec.allow_non_finite and not np.isfinite(values).all():
        return False
    if spec.minimum is None and spec.maximum is None:
        return True
    with np.errstate(over="ignore"):
        return not (
            (spec.minimum is not None and (values < spec.minimum).any())
            or (spec.maximum is not None and (values > spec.maximum).any())
        )


def _check_tensor(array: Array, spec: TensorSpec, locate: Locate) -> None:
    if tensor_fits(array, spec):
        return
    if array.dtype == np.object_:
        _refuse_bytes(array, spec, locate)
    else:
        _refuse_numbers(array, spec, locate)


def _refuse_numbers(array: Array, spec: TensorSpec, locate: Locate) -> None:
    values = bf16_to_fp32(array) if spec.dtype is DType.BF16 else array
    if spec.dtype.is_float and not spec.allow_non_finite:
        finite = np.isfinite(values)
        if not finite.all():
            raise NotFinite.at(_first(~finite, spec, locate), "is not a finite number")
    with np.errstate(over="ignore"):  # a bound beyond the dtype's range is infinite there, which is right
        if spec.minimum is not None and (low := values < spec.minimum).any():
            raise OutOfRange.at(_first(low, spec, locate), f"is below the minimum {spec.minimum:g}")
        if spec.maximum is not None and (high := values > spec.maximum).any():
            raise OutOfRange.at(_first(high, spec, locate), f"is above the maximum {spec.maximum:g}")


def _refuse_bytes(array: Array, spec: TensorSpec, locate: Locate) -> None:
    for index, value in np.ndenumerate(array):
        if not isinstance(value, bytes):
            raise WrongDtype.at(locate(spec.name, index), "must be a string")
        if spec.max_length is not None and _is_too_long(value, spec.max_length):
            detail = f"has {_characters(value)} characters; the limit is {spec.max_length}"
            raise TextTooLong.at(locate(spec.name, index), detail)
        if spec.content is Content.TEXT and not _is_utf8(value):
            raise WrongDtype.at(locate(spec.name, index), "is not text in UTF-8")


def _is_too_long(value: bytes, limit: int) -> bool:
    # A character has at least one byte: only what may be too long is decoded to count characters.
    return len(value) > limit and _characters(value) > limit


def _characters(value: bytes) -> int:
    return len(value.decode("utf-8", errors="replace"))


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes)


def _is_utf8(value: object) -> bool:
    if not isinstance(value, bytes):
        return False
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


_BYTES_RULES = {False: _is_bytes, True: _is_utf8}


def _first(mask: Array, spec: TensorSpec, locate: Locate) -> str:
    """The pointer of the first element that `mask` marks."""
    index = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return locate(spec.name, tuple(int(i) for i in index))
