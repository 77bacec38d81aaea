"""Answers of the Open Inference Protocol, changed: independent of the codecs under test."""

import json
import struct
from typing import Any

import numpy as np

from shared.codecs.protobuf.inference_pb2 import ModelInferResponse

NUMBERS = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT32": "<i4", "BOOL": "?", "FP16": "<f2"}
# Of the same size, so that the raw bytes still fit.
OTHER = {"FP32": "INT32", "FP64": "INT64", "INT64": "FP64", "INT32": "FP32", "BF16": "FP16", "FP16": "BF16"}
TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}

Part = tuple[dict[str, Any], bytes | None]


def texts(raw: bytes) -> list[bytes]:
    """The elements of raw BYTES."""
    found, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        found.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    return found


def data_of(datatype: str, raw: bytes) -> list[Any]:
    """Raw elements as JSON has them."""
    if datatype == "BYTES":
        return [text.decode() for text in texts(raw)]
    return list(np.frombuffer(raw, NUMBERS[datatype]).tolist())


def mutate_http(body: bytes, header_length: int | None, kind: str) -> tuple[bytes, int | None]:
    """An answer's body and header length, changed."""
    head = body if header_length is None else body[:header_length]
    document: dict[str, Any] = json.loads(head)
    parts: list[Part] = []
    position = len(head)
    for entry in document["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size")
        parts.append((entry, None if size is None else body[position : position + size]))
        position += size or 0
    parts = _changed(document, parts, kind)
    document["outputs"] = [entry for entry, _ in parts]
    new = json.dumps(document).encode()
    raws = [raw for _, raw in parts if raw is not None]
    return b"".join([new, *raws]), len(new) if raws else None


def _changed(document: dict[str, Any], parts: list[Part], kind: str) -> list[Part]:
    match kind:
        case "model":
            document["model_name"] = "another"
        case "version":
            document["model_version"] = "999"
        case "id":
            document["id"] = "of-another-request"
        case "nameless":
            document.pop("id", None)
        case "parameters":
            document["parameters"] = {"sequence_id": 0, "triton_final_response": True}
            parts[0][0].setdefault("parameters", {})["note"] = "further"
        case _:
            return _other_parts(parts, kind)
    return parts


def _other_parts(parts: list[Part], kind: str) -> list[Part]:
    entry, raw = parts[0]
    match kind:
        case "dtype":
            _other_dtype(entry, raw)
        case "shape":
            entry["shape"] = [*entry["shape"], 1]
        case "rows":
            assert raw is not None
            entry["shape"][0] *= 2
            entry["parameters"]["binary_data_size"] *= 2
            parts = [(entry, raw + raw), *parts[1:]]
        case "missing":
            parts = parts[1:]
        case "further":
            parts = [*parts, ({"name": "further", "datatype": "FP32", "shape": [1], "data": [1.0]}, None)]
        case "reordered":
            parts = parts[::-1]
        case "json":
            parts = [_as_json(*part) for part in parts]
        case "mixed":
            parts = [_as_json(*parts[0]), *parts[1:]]
    return parts


def _other_dtype(entry: dict[str, Any], raw: bytes | None) -> None:
    if entry["datatype"] == "BYTES":
        entry.update(datatype="UINT8", shape=[len(raw or b"")])
    else:
        entry["datatype"] = OTHER[entry["datatype"]]


def _as_json(entry: dict[str, Any], raw: bytes | None) -> Part:
    if raw is None:
        return entry, None
    rest = {name: value for name, value in entry.items() if name != "parameters"}
    return {**rest, "data": data_of(entry["datatype"], raw)}, None


def mutate_grpc(data: bytes, kind: str) -> bytes:
    """The bytes of a ModelInferResponse, changed."""
    message = ModelInferResponse.FromString(data)
    match kind:
        case "model":
            message.model_name = "another"
        case "version":
            message.model_version = "999"
        case "id":
            message.id = "of-another-request"
        case "nameless":
            message.id = ""
        case "parameters":
            message.parameters["triton_final_response"].bool_param = True
            message.outputs[0].parameters["note"].string_param = "further"
        case _:
            _change_outputs(message, kind)
    return message.SerializeToString()


def _change_outputs(message: ModelInferResponse, kind: str) -> None:
    entry = message.outputs[0]
    match kind:
        case "dtype":
            _other_dtype_grpc(message)
        case "shape":
            entry.shape.append(1)
        case "rows":
            entry.shape[0] *= 2
            message.raw_output_contents[0] *= 2
        case "missing":
            del message.outputs[0], message.raw_output_contents[0]
        case "further":
            message.outputs.add(name="further", datatype="FP32", shape=[1])
            message.raw_output_contents.append(bytes(4))
        case "reordered":
            _reorder(message)
        case "typed":
            _type(message)


def _other_dtype_grpc(message: ModelInferResponse) -> None:
    entry = message.outputs[0]
    if entry.datatype == "BYTES":
        del entry.shape[:]
        entry.shape.append(len(message.raw_output_contents[0]))
        entry.datatype = "UINT8"
    else:
        entry.datatype = OTHER[entry.datatype]


def _reorder(message: ModelInferResponse) -> None:
    outputs, raws = list(message.outputs)[::-1], list(message.raw_output_contents)[::-1]
    del message.outputs[:], message.raw_output_contents[:]
    message.outputs.extend(outputs)
    message.raw_output_contents.extend(raws)


def _type(message: ModelInferResponse) -> None:
    for entry, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        contents = getattr(entry.contents, TYPED[entry.datatype])
        contents.extend(texts(raw) if entry.datatype == "BYTES" else data_of(entry.datatype, raw))
    del message.raw_output_contents[:]
