"""What one model takes and gives, from its signature: its operation in OpenAPI 3.1, and JSON Schemas."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from functions.api.examples import Examples, examples
from shared.codecs.content.media import JSON
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.outputs import OutputPlan
from shared.domain.model import ModelVersion
from shared.domain.signature import Content, Dim, Signature, TensorSpec

Schema = dict[str, Any]

_ENCODED: Schema = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def operation(version: ModelVersion, config: EndpointConfig, general: Mapping[str, Any]) -> dict[str, Any]:
    """The operation of `POST /v1/models/<name>/predict`, by the configuration of its endpoint.

    `general` is the operation of `{model}`, whose errors it shares.
    """
    signature = OutputPlan.of(config, version.caller_signature).signature
    responses = dict(general["responses"])
    answer = responses["200"]
    served: Schema = {"$ref": "#/components/schemas/ServedBy"}
    forms = [_response(signature, served), {"$ref": "#/components/schemas/InferResponse"}]
    responses["200"] = {**answer, "content": _content(answer["content"], {"anyOf": forms}, {})}
    shown: Examples = {}
    if version.caller_example is not None:
        shown = examples(signature, version.caller_example)
    forms = [_by_row(signature), _by_tensor(signature), {"$ref": "#/components/schemas/InferRequest"}]
    request = _content(general["requestBody"]["content"], {"anyOf": forms}, shown)
    return {
        "operationId": f"predict_{version.model}",
        "summary": f"Predict with {version.model}",
        "description": f"{version.metadata.get('description', '')}\n\nVersion {version.version}.".strip(),
        "tags": ["models"],
        "security": general["security"],
        "requestBody": {"required": True, "content": request},
        "responses": responses,
    }


def schemas(version: ModelVersion, config: EndpointConfig) -> dict[str, Any]:
    """JSON Schemas of the plain request and its answer, each a document of its own (draft 2020-12)."""
    signature = OutputPlan.of(config, version.caller_signature).signature
    name, number = version.model, version.version
    served = _object(
        {
            "name": {"const": name},
            "version": {"const": number},
            "variant": {"type": "string"},
            "backend": {"type": "string"},
        }
    )
    request: Schema = {"anyOf": [_by_row(signature), _by_tensor(signature)]}
    return {
        "model": name,
        "version": number,
        "request": {"$schema": _DIALECT, "title": f"Request to {name}, version {number}", **request},
        "response": {
            "$schema": _DIALECT,
            "title": f"Answer of {name}, version {number}",
            **_response(signature, served),
        },
    }


def _content(general: Mapping[str, Any], schema: Schema, shown: Examples) -> dict[str, Any]:
    """The media types of the general operation; JSON as this model has it, examples where there are some."""
    content: dict[str, Any] = {}
    for kind, media in general.items():
        content[kind] = {**media, "schema": schema} if kind == JSON else dict(media)
        if kind in shown:
            content[kind]["examples"] = shown[kind]
    return content


def _by_row(signature: Signature) -> Schema:
    by_name = _object(
        {spec.name: _instance(spec, signature.batched) for spec in signature.inputs if _goes_by_row(spec, signature)},
        optional=[spec.name for spec in signature.inputs if spec.optional],
    )
    if len(signature.inputs) == 1:
        instance = _instance(signature.inputs[0], signature.batched)
    elif len(signature.required) == 1:
        instance = {"anyOf": [_instance(signature.required[0], signature.batched), by_name]}
    else:
        instance = by_name
    rows = signature.max_batch if signature.batched else 1
    return _object({"instances": {"type": "array", "items": instance, "minItems": 1, "maxItems": rows}})


def _by_tensor(signature: Signature) -> Schema:
    tensors = {}
    for spec in signature.inputs:
        value = _instance(spec, signature.has_rows(spec))
        if signature.has_rows(spec):
            value = {"type": "array", "items": value, "minItems": 1, "maxItems": signature.max_batch}
        tensors[spec.name] = value
    optional = [spec.name for spec in signature.inputs if spec.optional]
    return _object({"inputs": _object(tensors, optional)})


def _goes_by_row(spec: TensorSpec, signature: Signature) -> bool:
    """Whether an instance holds a value of this input: not if one value holds for all rows of a request."""
    return signature.has_rows(spec) or not signature.batched


def _response(signature: Signature, served: Schema) -> Schema:
    outputs = {spec.name: _prediction(spec, signature.batched) for spec in signature.outputs}
    prediction = next(iter(outputs.values())) if len(outputs) == 1 else _object(outputs)
    return _object(
        {
            "predictions": {"type": "array", "items": prediction},
            "model": served,
            "prediction_id": {"type": "string"},
        }
    )


def _instance(spec: TensorSpec, batched: bool) -> Schema:
    forms = list(_forms(spec, batched))
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _forms(spec: TensorSpec, batched: bool) -> Iterator[Schema]:
    """The forms that one instance may have."""
    shape = spec.shape[1:] if batched else spec.shape
    element = _input_element(spec)
    yield _array(shape, element)
    if spec.features and len(shape) == 1:
        yield _object(dict.fromkeys(spec.features, element))
    for layout in spec.layouts:
        yield _array(layout, element)
    if spec.takes_images:
        yield {**_ENCODED, "description": "A PNG or JPEG image"}


def _prediction(spec: TensorSpec, batched: bool) -> Schema:
    shape = spec.shape[1:] if batched else spec.shape
    # JSON has no NaN and no infinity: where a model gives one, the answer holds null.
    element = {"type": ["number", "null"]} if spec.dtype.is_float else _element(spec)
    if spec.classes and spec.dtype is DType.BYTES:
        return _array(shape, {"type": "string", "enum": list(spec.classes)})
    if spec.classes and len(shape) == 1:
        return _object(dict.fromkeys(spec.classes, element))
    return _array(shape, element)


def _input_element(spec: TensorSpec) -> Schema:
    element = _element(spec)
    if spec.dtype is DType.BYTES:
        return element
    bounds = {"minimum": spec.minimum, "maximum": spec.maximum}
    return {**element, **{name: bound for name, bound in bounds.items() if bound is not None}}


def _element(spec: TensorSpec) -> Schema:
    if spec.dtype is DType.BYTES:
        text: Schema = {"type": "string"}
        if spec.max_length is not None:
            text["maxLength"] = spec.max_length
        return text if spec.content is Content.TEXT else {"anyOf": [text, _ENCODED]}
    if spec.dtype is DType.BOOL:
        return {"type": "boolean"}
    if spec.dtype.is_integer:
        return {"type": "integer"}
    return {"type": "number"}


def _array(shape: tuple[Dim, ...], element: Schema) -> Schema:
    schema = element
    for size in reversed(shape):
        schema = {"type": "array", "items": schema}
        if size is not None:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _object(properties: dict[str, Schema], optional: Sequence[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
