"""Parts of a form ↔ tensors: each part is the value of one instance, parts of one name are the rows of a batch.

A part is named as an input of the model, or `file` where the model needs only one. A file for an image input is the
image itself, for a BYTES input the bytes; whatever else is JSON: a number, nested lists, an object by feature name.
Places in errors are `/<input>/<row>/…`.
"""

from collections.abc import Sequence
from typing import Any

from shared.codecs.content.decoded import PlainDecoded
from shared.codecs.content.media import JSON
from shared.codecs.json_documents import JsonLimits, check_limits, loads
from shared.codecs.json_tensors import Place, decode_tensor
from shared.domain.dtypes import DType
from shared.domain.errors import EmptyBatch, InvalidRequest, TextTooLong, UnknownField, WrongDtype, WrongShape, pointer
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import Array, bytes_tensor
from shared.domain.validation import Inputs, check_rows

ONLY_INPUT = "file"
_IMAGES = (b"\x89PNG", b"\xff\xd8")  # no JSON begins so


class Part:
    """A part of a form; `media_type` is in lower case without parameters, empty where the part names none."""

    __slots__ = ("data", "is_file", "media_type", "name")

    def __init__(self, name: str, data: bytes, *, media_type: str = "", is_file: bool = False) -> None:
        self.name = name
        self.data = data
        self.media_type = media_type
        self.is_file = is_file


def decode_parts(parts: Sequence[Part], signature: Signature, limits: JsonLimits) -> PlainDecoded:
    """The tensors of a form; raises InvalidRequest and its subclasses."""
    columns: dict[str, list[Part]] = {}
    for part in parts:
        columns.setdefault(_input(part.name, signature).name, []).append(part)
    if not columns:
        raise EmptyBatch("The form has no part; give one for each instance.")
    arrays: dict[str, Array] = {}
    places: dict[str, Place] = {}
    for spec in signature.inputs:
        if spec.name not in columns:
            continue
        base = pointer("", spec.name)
        column = columns[spec.name]
        _check_count(len(column), spec, signature, base)
        array, places[spec.name] = _column(column, spec, limits, Place(base))
        arrays[spec.name] = array if signature.has_rows(spec) else array[0, ...]

    def locate(name: str, index: tuple[int, ...]) -> str:
        if name not in places:
            return pointer("", name)
        spec = signature.input(name)
        return places[name](index if spec is None or signature.has_rows(spec) else (0, *index))

    return PlainDecoded(Inputs(arrays, locate))


def _input(name: str, signature: Signature) -> TensorSpec:
    spec = signature.input(name)
    if spec is None and name == ONLY_INPUT and len(signature.required) == 1:
        spec = signature.required[0]
    if spec is None:
        known = ", ".join(spec.name for spec in signature.inputs)
        raise UnknownField.at(pointer("", name), f"is not an input of this model; it takes {known}")
    return spec


def _check_count(count: int, spec: TensorSpec, signature: Signature, place: str) -> None:
    if signature.has_rows(spec):
        check_rows(count, signature, place)
    elif count > 1:
        raise WrongShape.at(place, f"is given {count} times; one value of it holds for the whole request")


def _column(parts: Sequence[Part], spec: TensorSpec, limits: JsonLimits, place: Place) -> tuple[Array, Place]:
    """The values of one input with the rows as the first axis, and where they lie."""
    is_raw = _is_raw(parts[0], spec)
    for row, part in enumerate(parts):
        if _is_raw(part, spec) != is_raw:
            wanted = "the bytes themselves" if is_raw else "JSON"
            raise WrongDtype.at(place((row,)), f"must be {wanted}, as the first one is")
        if spec.content is Content.TEXT and len(part.data) > limits.max_string:
            detail = f"has {len(part.data)} bytes; the limit is {limits.max_string}"
            raise TextTooLong.at(place((row,)), detail)
    if is_raw:
        return bytes_tensor([part.data for part in parts]), place
    check_limits(b",".join(part.data for part in parts), limits)
    values = [_value(part.data, limits, place((row,))) for row, part in enumerate(parts)]
    return decode_tensor(values, spec, place)


def _is_raw(part: Part, spec: TensorSpec) -> bool:
    if part.media_type == JSON:
        return False
    if spec.dtype is DType.BYTES:
        return True
    return spec.takes_images and (part.is_file or part.media_type.startswith("image/") or part.data.startswith(_IMAGES))


def _value(text: bytes, limits: JsonLimits, place: str) -> Any:
    try:
        return loads(text, limits)
    except InvalidRequest as error:
        raise type(error).at(place, error.detail) from None
