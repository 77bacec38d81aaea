"""The Open Inference Protocol: what is taken, and the code and pointer of each thing that is not."""

import base64
import struct
from typing import Any

import numpy as np
import orjson
import pytest

from shared.codecs.v2 import (
    V2Request,
    V2Response,
    V2Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    to_wire,
)
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors, bytes_tensor
from shared.domain.validation import conform
from tests.codecs.signatures import LIMITS, PAIR, PIXELS, TEXT, assert_fits, row

BIG = 2**31 - 1


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **fields}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in entry().items() if key != name}


def request(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": list(entries), **more}


def binary(size: Any, **fields: Any) -> dict[str, Any]:
    return {**without("data"), **fields, "parameters": {"binary_data_size": size}}


def decode(document: Any, raw: bytes = b"", length: int | None = None) -> V2Request:
    head = document if isinstance(document, bytes) else orjson.dumps(document)
    if length is None and raw:
        length = len(head)
    return decode_request(head + raw, length, LIMITS)


def take(document: Any, signature: Signature, raw: bytes = b"") -> Tensors:
    return conform(decode(document, raw).to_inputs(signature), signature)


X = "/inputs/0"
REFUSED: list[tuple[Any, bytes, str, str | None]] = [
    (b"", b"", "not_json", None),
    (b"[1]", b"", "wrong_dtype", ""),
    ({}, b"", "missing_field", "/inputs"),
    ({"inputs": {}}, b"", "wrong_dtype", "/inputs"),
    ({"inputs": None}, b"", "wrong_dtype", "/inputs"),
    (request(5), b"", "wrong_dtype", X),
    (request(entry(), id=5), b"", "wrong_dtype", "/id"),
    (request(entry(), parameters=[]), b"", "wrong_dtype", "/parameters"),
    (
        request(entry(), parameters={"binary_data_output": "false"}),
        b"",
        "wrong_dtype",
        "/parameters/binary_data_output",
    ),
    (request(entry(), outputs={}), b"", "wrong_dtype", "/outputs"),
    (request(entry(), outputs=["y"]), b"", "wrong_dtype", "/outputs/0"),
    (request(entry(), outputs=[{}]), b"", "missing_field", "/outputs/0/name"),
    (request(entry(), outputs=[{"name": "y", "parameters": 1}]), b"", "wrong_dtype", "/outputs/0/parameters"),
    (
        request(entry(), outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
        b"",
        "wrong_dtype",
        "/outputs/0/parameters/binary_data",
    ),
    *(
        (request({**without("data"), "parameters": {name: "r"}}), b"", "unknown_field", f"{X}/parameters/{name}")
        for name in ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")
    ),
    (
        request(entry(), outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
        b"",
        "unknown_field",
        "/outputs/0/parameters/shared_memory_region",
    ),
    *(
        (
            request(entry(), outputs=[{"name": "y"}, {"name": "z", "parameters": {"classification": classes}}]),
            b"",
            "unknown_field",
            "/outputs/1/parameters/classification",
        )
        for classes in (3, "3", True)
    ),
    (request(without("name")), b"", "missing_field", f"{X}/name"),
    (request(entry(name="")), b"", "missing_field", f"{X}/name"),
    (request(entry(name=5)), b"", "missing_field", f"{X}/name"),
    (request(entry(), entry()), b"", "unknown_field", "/inputs/1/name"),
    (request(without("datatype")), b"", "missing_field", f"{X}/datatype"),
    (request(entry(datatype="FLOAT")), b"", "wrong_dtype", f"{X}/datatype"),
    (request(entry(datatype=[])), b"", "wrong_dtype", f"{X}/datatype"),
    (request(entry(datatype=None)), b"", "wrong_dtype", f"{X}/datatype"),
    (request(without("shape")), b"", "missing_field", f"{X}/shape"),
    (request(entry(shape=2)), b"", "wrong_dtype", f"{X}/shape"),
    *(
        (request(entry(shape=[1, dim])), b"", "wrong_shape", f"{X}/shape")
        for dim in (-1, 2.0, True, None, "2", 2**31, [2])
    ),
    (request(entry(shape=[1] * 33)), b"", "wrong_shape", f"{X}/shape"),
    (request(entry(shape=[BIG, BIG])), b"", "wrong_shape", f"{X}/shape"),
    (request(entry(shape=[BIG, BIG, BIG, 0], data=[])), b"", "wrong_shape", f"{X}/shape"),
    (request(binary(0, shape=[BIG, BIG, BIG, 0])), b"", "wrong_shape", f"{X}/shape"),
    (request(binary(4, shape=[BIG])), b"1234", "wrong_shape", X),
    (request(binary(4, shape=[BIG], datatype="BYTES")), b"\0\0\0\0", "wrong_shape", X),
    (request(without("data")), b"", "missing_field", f"{X}/data"),
    (request(entry(data=5)), b"", "wrong_dtype", f"{X}/data"),
    (request(entry(data=None)), b"", "wrong_dtype", f"{X}/data"),
    (request(entry(data=[])), b"", "wrong_shape", f"{X}/data"),
    (request(entry(data=[1])), b"", "wrong_shape", f"{X}/data"),
    (request(entry(data=[1, 2, 3])), b"", "wrong_shape", f"{X}/data"),
    (request(entry(data=[[1], [2]])), b"", "wrong_shape", f"{X}/data"),
    (request(entry(data=[[1, 2], [3]])), b"", "wrong_shape", f"{X}/data/1"),
    (request(entry(data=[1, None])), b"", "wrong_dtype", f"{X}/data/1"),
    (request(entry(data=[[1, True]])), b"", "wrong_dtype", f"{X}/data/0/1"),
    (request(entry(data=[1, 1e39])), b"", "not_finite", f"{X}/data/1"),
    (request(entry(data=[1, 300], datatype="UINT8")), b"", "out_of_range", f"{X}/data/1"),
    (request(entry(data=["a", 5], datatype="BYTES")), b"", "wrong_dtype", f"{X}/data/1"),
    *(
        (request(binary(size)), b"12345678", "wrong_shape", f"{X}/parameters/binary_data_size")
        for size in (-1, 9, 2**62, True, 8.0, "8")
    ),
    (request(binary(8)), b"", "wrong_shape", f"{X}/parameters/binary_data_size"),
    (request(entry(parameters={"binary_data_size": 8})), b"12345678", "unknown_field", f"{X}/data"),
    (request(entry(parameters=8)), b"", "wrong_dtype", f"{X}/parameters"),
    (request(binary(4)), b"1234", "wrong_shape", X),
    (request(binary(8)), b"123456789", "wrong_shape", "/inputs"),
    (request(entry()), b"1", "wrong_shape", "/inputs"),
    (request(binary(2, datatype="BOOL")), b"\x01\x02", "wrong_dtype", X),
    (request(binary(8, datatype="BYTES")), b"\1\0\0\0a\1\0\0", "wrong_shape", X),
    (request(binary(8, datatype="BYTES")), b"\xff\xff\xff\xffabcd", "wrong_shape", X),
    (request(binary(5, datatype="BYTES")), b"\1\0\0\0a", "wrong_shape", X),
    (request(binary(12, datatype="BYTES")), b"\0" * 12, "wrong_shape", X),
]


@pytest.mark.parametrize(("document", "raw", "code", "place"), REFUSED)
def test_refused(document: Any, raw: bytes, code: str, place: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(document, raw)
    pointers = [field.pointer for field in caught.value.fields]
    assert (caught.value.code, pointers) == (code, [] if place is None else [place])


@pytest.mark.parametrize("length", [0, -1, 10_000])
def test_a_header_length_that_cannot_be(length: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(request(entry()), length=length)
    assert caught.value.code == "invalid_request"


NAN = struct.pack("<4f", 1, 2, 3, np.nan)
AGAINST_SIGNATURE: list[tuple[Any, bytes, Signature, str, str]] = [
    (request(entry(name="z")), b"", row(), "unknown_field", f"{X}/name"),
    (request(), b"", row(), "missing_field", "/inputs"),
    (request(entry(datatype="FP64")), b"", row(), "wrong_dtype", f"{X}/datatype"),
    (request(entry(datatype="UINT16")), b"", row(DType.BF16), "wrong_dtype", f"{X}/datatype"),
    (request(entry(datatype="BYTES", data=["a", "b"])), b"", row(), "wrong_dtype", f"{X}/datatype"),
    (request(entry(shape=[2])), b"", row(), "wrong_shape", f"{X}/shape"),
    (request(entry(shape=[2, 1])), b"", row(), "wrong_shape", f"{X}/shape"),
    (request(entry(shape=[0, 2], data=[])), b"", row(), "empty_batch", f"{X}/shape"),
    (request(entry(shape=[5, 2], data=[0] * 10)), b"", row(), "batch_too_large", f"{X}/shape"),
    (request(entry(shape=[2, 2], data=[0, 0, 0, 2])), b"", row(maximum=1), "out_of_range", f"{X}/data/3"),
    (request(entry(shape=[2, 2], data=[[0, 0], [0, 2]])), b"", row(maximum=1), "out_of_range", f"{X}/data/1/1"),
    (request(binary(16, shape=[2, 2])), NAN, row(), "not_finite", f"{X}/data/3"),
    (request(binary(4, datatype="BF16")), b"\x80\x3f\x80\x7f", row(DType.BF16), "not_finite", f"{X}/data/1"),
    (
        request(entry(name="text", datatype="BYTES", shape=[1], data=["a" * 11])),
        b"",
        TEXT,
        "text_too_long",
        f"{X}/data/0",
    ),
    (
        request(entry(name="i/d", datatype="INT64", shape=[2]), entry()),
        b"",
        PAIR,
        "wrong_shape",
        "/inputs/1/shape",
    ),
    (request(entry(shape=[1, 4, 16], data=[0] * 64)), b"", PIXELS, "wrong_shape", f"{X}/shape"),
]


@pytest.mark.parametrize(("document", "raw", "signature", "code", "place"), AGAINST_SIGNATURE)
def test_refused_by_the_signature(document: Any, raw: bytes, signature: Signature, code: str, place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        take(document, signature, raw)
    assert (caught.value.code, [field.pointer for field in caught.value.fields]) == (code, [place])


@pytest.mark.parametrize(
    ("document", "raw", "signature", "expected"),
    [
        (request(entry()), b"", row(), [[1, 2]]),
        (request(entry(data=[[1, 2]], parameters=None)), b"", row(), [[1, 2]]),
        (request(binary(8)), struct.pack("<2f", 1, 2), row(), [[1, 2]]),
        (request(entry(shape=[1, 8, 8], data=[0.5] * 64)), b"", PIXELS, [[0.5] * 64]),
        (request(entry(datatype="BYTES", shape=[1], data=[{"b64": "iVBORw=="}])), b"", PIXELS, [b"\x89PNG"]),
        (request(binary(8, datatype="BYTES", shape=[1])), b"\4\0\0\0\x89PNG", PIXELS, [b"\x89PNG"]),
        (request(entry(datatype="BOOL", data=[True, False])), b"", row(DType.BOOL), [[True, False]]),
        (request(entry(datatype="BF16", data=[1.5, 2])), b"", row(DType.BF16), [[0x3FC0, 0x4000]]),
    ],
)
def test_taken(document: Any, raw: bytes, signature: Signature, expected: list[Any]) -> None:
    tensors = take(document, signature, raw)
    assert_fits(tensors, signature)
    assert tensors["x"].tolist() == expected


def test_json_and_binary_side_by_side() -> None:
    document = request(binary(16, name="i/d", datatype="INT64", shape=[2]), entry(shape=[2, 2], data=[1, 2, 3, 4]))
    tensors = take(document, PAIR, struct.pack("<2q", 7, -8))
    assert tensors["i/d"].tolist() == [7, -8]
    assert tensors["x"].tolist() == [[1, 2], [3, 4]]


def test_an_empty_tensor_of_any_dtype_in_json() -> None:
    for dtype in DType:
        tensor = decode(request(entry(datatype=dtype, shape=[2, 0], data=[[], []]))).inputs["x"]
        assert tensor.array.shape == (2, 0)
        assert decode(request(entry(datatype=dtype, shape=[0, BIG], data=[]))).inputs["x"].array.shape == (0, BIG)


def test_requested_outputs() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}, {"name": "c", "parameters": {}}]
    assert decode(request(entry(), outputs=outputs, id="7")).outputs == {"a": False, "b": True, "c": False}
    decoded = decode(request(entry(), outputs=outputs, parameters={"binary_data_output": True}))
    assert decoded.outputs == {"a": True, "b": True, "c": True}
    assert decoded.parameters == {"binary_data_output": True}
    assert (decoded.id, decode(request(entry(), id="7")).id) == ("", "7")


def test_encoded_request_asks_for_binary_outputs() -> None:
    inputs = {"x": V2Tensor(DType.FP32, np.array([[1, 2]], np.float32))}
    body, length = encode_request(inputs, request_id="r")
    assert decode_request(body, length, LIMITS).parameters == {"binary_data_output": True}
    body, length = encode_request(inputs, outputs=("y",))
    assert decode_request(body, length, LIMITS).outputs == {"y": True}


def test_response_in_json_is_what_the_protocol_says() -> None:
    response = V2Response(
        model_name="m",
        model_version="3",
        outputs={
            "p": V2Tensor(DType.FP32, np.array([[0.5, 1]], np.float32)),
            "h": V2Tensor(DType.BF16, np.array([0x3FC0], np.uint16)),
            "s": V2Tensor(DType.BYTES, bytes_tensor([b"a", b"\xff"])),
        },
        id="r",
    )
    body, length = encode_response(response, binary=False)
    assert length is None
    assert orjson.loads(body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "r",
        "outputs": [
            {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.0]},
            {"name": "h", "datatype": "BF16", "shape": [1], "data": [1.5]},
            {
                "name": "s",
                "datatype": "BYTES",
                "shape": [2],
                "data": ["a", {"b64": base64.b64encode(b"\xff").decode()}],
            },
        ],
    }
    mixed, length = encode_response(response, binary={"s": True})
    assert length is not None
    assert mixed[length:] == b"\1\0\0\0a\1\0\0\0\xff"
    assert decode_response(mixed, length, LIMITS).outputs["s"].array.tolist() == [b"a", b"\xff"]


def test_response_of_another_server() -> None:
    body = orjson.dumps({"model_name": "m", "model_version": None, "outputs": [entry(name="y")], "extra": 1})
    decoded = decode_response(body, None, LIMITS)
    assert (decoded.model_name, decoded.model_version, decoded.id) == ("m", "", "")
    with pytest.raises(InvalidRequest):
        decode_response(b'{"model_name": 5, "outputs": []}', None, LIMITS)


def test_to_wire_sends_encoded_images_as_bytes() -> None:
    wire = to_wire({"x": bytes_tensor([b"\x89PNG"]), "n": np.zeros(2, np.uint16)}, {"x": DType.FP32, "n": DType.BF16})
    assert {name: tensor.dtype for name, tensor in wire.items()} == {"x": DType.BYTES, "n": DType.BF16}
