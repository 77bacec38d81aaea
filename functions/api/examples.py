"""Examples of a model's requests in the types that can be pasted, from the one instance that its manifest gives.

No NumPy here: the catalogue has none.
"""

import csv
import io
import json
from collections.abc import Mapping
from itertools import chain
from math import prod
from typing import Any

from shared.codecs.content.media import CSV, JSON, JSON_LINES, MULTIPART
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec

# A long instance is shown once, as it stands in the manifest: the document holds those of all models.
_MAX_DERIVED = 4096

Examples = dict[str, dict[str, Any]]
"""By media type, then by the name of the example."""


def examples(signature: Signature, instance: Any) -> Examples:
    """What `examples` of OpenAPI's media types take: `{"value": …}` by name."""
    found: Examples = {JSON: {"rows": {"summary": "By row", "value": {"instances": [instance]}}}}
    if len(json.dumps(instance)) > _MAX_DERIVED:
        return found
    values = _values(signature, instance)
    if any(spec.name not in values for spec in signature.required):  # no instance of this model: shown as it stands
        return found
    tensors = {spec.name: _tensor(spec, values[spec.name], signature) for spec in signature.required}
    found[JSON]["v2"] = {"summary": "Open Inference Protocol", "value": {"inputs": list(tensors.values())}}
    found[JSON_LINES] = {"lines": {"value": json.dumps(instance) + "\n"}}
    if not any(_is_image(values[spec.name]) for spec in signature.required):
        found[CSV] = {"row": {"value": _csv(tensors, signature)}}
        found[MULTIPART] = {"parts": {"value": {spec.name: values[spec.name] for spec in signature.required}}}
    return found


def _values(signature: Signature, instance: Any) -> Mapping[str, Any]:
    """The instance's value of each input, by name; see `shared.codecs.json_tensors`."""
    required = signature.required
    if len(required) != 1:
        return dict(instance) if isinstance(instance, dict) else {}
    spec = required[0]
    names = {other.name for other in signature.inputs}
    by_name = isinstance(instance, dict) and {spec.name} <= instance.keys() <= names and spec.features != (spec.name,)
    return dict(instance) if by_name else {spec.name: instance}


def _is_image(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _tensor(spec: TensorSpec, value: Any, signature: Signature) -> dict[str, Any]:
    """The value as a V2 tensor of one instance, its data flat."""
    rows = [1] if signature.has_rows(spec) else []
    if _is_image(value):
        return {"name": spec.name, "datatype": DType.BYTES.value, "shape": rows, "data": [value]}
    if isinstance(value, dict):
        value = [value[name] for name in spec.features]
    shape, flat = _flatten(value)
    own = spec.shape[1:] if rows else spec.shape
    if None not in own and prod(dim or 0 for dim in own) == len(flat):
        shape = [dim or 0 for dim in own]  # a layout of the manifest holds the same elements in the same order
    return {"name": spec.name, "datatype": spec.dtype.value, "shape": [*rows, *shape], "data": flat}


def _flatten(value: Any) -> tuple[list[int], list[Any]]:
    shape: list[int] = []
    flat = [value]
    while flat and isinstance(flat[0], list):
        shape.append(len(flat[0]))
        flat = list(chain.from_iterable(flat))
    return shape, flat


def _csv(tensors: Mapping[str, dict[str, Any]], signature: Signature) -> str:
    """A header row and a row; see `shared.codecs.csv_tensors`."""
    names: list[str] = []
    cells: list[Any] = []
    for spec in signature.required:
        data = tensors[spec.name]["data"]
        parts = spec.features or range(len(data))
        if spec.features and len(signature.inputs) == 1:
            names += spec.features
        elif len(tensors[spec.name]["shape"]) == (1 if signature.has_rows(spec) else 0):
            names.append(spec.name)
        else:
            names += [f"{spec.name}.{part}" for part in parts]
        cells += [json.dumps(cell) if isinstance(cell, bool) else cell for cell in data]
    text = io.StringIO()
    csv.writer(text).writerows([names, cells])
    return text.getvalue()
