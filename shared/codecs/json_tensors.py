"""The plain JSON format of `/v1`: `{"instances": […]}` by row or `{"inputs": {name: …}}` by tensor.

An instance is the value of the only input, an object by input name, an object by feature name, or `{"b64": …}` for
bytes and encoded images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.codecs.json_documents import JsonLimits, loads, refuse_repeats
from shared.codecs.values import from_base64, is_base64_object, text_of, to_tensor
from shared.domain.dtypes import DType
from shared.domain.errors import MissingField, UnknownField, WrongDtype, pointer
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32, bytes_tensor
from shared.domain.validation import Inputs, check_rows


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in the body: the element `[i, j]` is at `<base>/i<suffix>/j`, or `…/<features[j]>`."""

    base: str
    suffix: str = ""
    features: tuple[str, ...] = ()

    def __call__(self, index: tuple[int, ...]) -> str:
        """The pointer of an element, or of the whole tensor."""
        if not index:
            return self.base
        row, *rest = index
        named = [self.features[rest[0]], *rest[1:]] if self.features and rest else rest
        return pointer(pointer(self.base, row) + self.suffix, *named)


def decode_instances(body: bytes, signature: Signature, limits: JsonLimits) -> Inputs:
    """Tensors of a request body; raises the errors of `shared.domain.errors.InvalidRequest` with JSON pointers.

    "instances", "inputs" and the tensors of "inputs" may not be given twice; of other repeated names the last counts.
    """
    document = loads(body, limits)
    if not isinstance(document, dict):
        raise WrongDtype.at("", 'the body must be an object with "instances" or "inputs"')
    for key in document:
        if key not in ("instances", "inputs"):
            raise UnknownField.at(pointer("", key), 'is not known; the body takes "instances" or "inputs"')
    if len(document) != 1:
        raise MissingField.at("", 'the body must hold either "instances" or "inputs"')
    if "instances" in document:
        refuse_repeats(body, ["instances"])
        return by_row(document["instances"], signature)
    refuse_repeats(body, ["inputs", *(spec.name for spec in signature.inputs)])
    return _by_tensor(document["inputs"], signature)


def _by_tensor(tensors: Any, signature: Signature) -> Inputs:
    if not isinstance(tensors, dict):
        raise WrongDtype.at("/inputs", "must be an object of tensors by input name")
    arrays: dict[str, Array] = {}
    places: dict[str, Place] = {}
    for name, value in tensors.items():
        spec = signature.input(name)
        if spec is None:
            known = ", ".join(spec.name for spec in signature.inputs)
            raise UnknownField.at(pointer("/inputs", name), f"is not an input of this model; it takes {known}")
        arrays[name], places[name] = decode_tensor(value, spec, Place(pointer("/inputs", name)))

    def locate(name: str, index: tuple[int, ...]) -> str:
        return places[name](index) if name in places else pointer("/inputs", name)

    return Inputs(arrays, locate)


def by_row(instances: Any, signature: Signature) -> Inputs:
    """The tensors of the list of instances that `json_documents.loads` gave; raises as `decode_instances`."""
    if not isinstance(instances, list):
        raise WrongDtype.at("/instances", "must be a list of instances")
    check_rows(len(instances), signature, "/instances")
    arrays: dict[str, Array] = {}
    places: dict[str, Place] = {}
    by_name = _is_by_name(instances[0], signature)
    specs = _given(instances[0], signature) if by_name else signature.required
    if by_name:
        _check_fields(instances, [spec.name for spec in specs], Place("/instances"), "input")
    for spec in specs:
        column = [row[spec.name] for row in instances] if by_name else instances
        place = Place("/instances", pointer("", spec.name) if by_name else "")
        array, places[spec.name] = decode_tensor(column, spec, place)
        arrays[spec.name] = array if signature.batched else array[0, ...]

    def locate(name: str, index: tuple[int, ...]) -> str:
        if not signature.batched:
            index = (0, *index)
        elif not index and by_name:
            index = (0,)  # what is wrong with a whole tensor shows in its first row
        return places[name](index)

    return Inputs(arrays, locate)


def _is_by_name(instance: Any, signature: Signature) -> bool:
    """Whether an instance is an object by input name, which it must be where there are several inputs."""
    if len(signature.required) != 1:
        return True
    spec = signature.required[0]
    names = {other.name for other in signature.inputs}
    return isinstance(instance, dict) and {spec.name} <= instance.keys() <= names and spec.features != (spec.name,)


def _given(instance: Any, signature: Signature) -> Sequence[TensorSpec]:
    """The inputs that the first instance gives, which all others must give then, and those that must be there."""
    names = instance if isinstance(instance, dict) else {}
    return [
        spec
        for spec in signature.inputs
        if not spec.optional or (spec.name in names and (signature.has_rows(spec) or not signature.batched))
    ]


def decode_tensor(value: Any, spec: TensorSpec, place: Place) -> tuple[Array, Place]:
    """The tensor of `value`, a list of rows, and where its elements lie: now it is known whether they go by name."""
    rows = value if isinstance(value, list) else []
    first = rows[0] if rows else None
    if spec.takes_images and is_base64_object(first):
        return _images(rows, place), place
    if spec.features and isinstance(first, dict):
        _check_fields(rows, spec.features, place, "feature")
        place = replace(place, features=spec.features)
        value = [[row[name] for name in spec.features] for row in rows]
    return to_tensor(value, spec.dtype, place), place


def _check_fields(rows: Sequence[Any], names: Sequence[str], place: Place, kind: str) -> None:
    """Every row must be an object that holds exactly the names."""
    wanted = dict.fromkeys(names).keys()
    for position, row in enumerate(rows):
        if isinstance(row, dict) and row.keys() == wanted:
            continue
        here = place((position,))
        if not isinstance(row, dict):
            raise WrongDtype.at(here, f"must be an object by {kind} name")
        missing = next((name for name in names if name not in row), None)
        if missing is not None:
            raise MissingField.at(pointer(here, missing), f"is missing; an instance needs {len(names)} fields")
        unknown = next(key for key in row if key not in wanted)
        raise UnknownField.at(pointer(here, unknown), "is not a field of this model")


def _images(rows: Sequence[Any], place: Place) -> Array:
    images: list[bytes] = []
    for position, row in enumerate(rows):
        here = place((position,))
        if not is_base64_object(row):
            raise WrongDtype.at(here, 'must be {"b64": …}, as the first instance is')
        images.append(from_base64(row["b64"], f"{here}/b64"))
    return bytes_tensor(images)


def encode_predictions(outputs: Tensors, signature: Signature) -> list[Any]:
    """One prediction for each row, for `json_documents.dumps`.

    With one output a prediction is its value, with several an object by output name. A value whose last axis has class
    names is an object by class. Arrays stay NumPy arrays (C-contiguous), which the encoder writes natively.
    """
    columns = [_rows(outputs[spec.name], spec, signature.batched) for spec in signature.outputs]
    if len(columns) == 1:
        return columns[0]
    return [dict(zip(signature.output_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _rows(array: Array, spec: TensorSpec, batched: bool) -> list[Any]:
    if not batched:
        array = array[np.newaxis]
    if spec.dtype is DType.BYTES:
        return [_texts(row) for row in array]
    if spec.dtype is DType.BF16:
        array = bf16_to_fp32(array)
    rows = list(np.ascontiguousarray(array))
    if spec.classes and array.ndim == 2:
        return [dict(zip(spec.classes, row, strict=True)) for row in rows]
    return rows


def _texts(value: Any) -> Any:
    return [_texts(item) for item in value] if isinstance(value, np.ndarray) else text_of(value)
