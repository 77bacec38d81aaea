"""Answers of gRPC servers as a client reads them, and its requests as servers do."""

import numpy as np
import pytest

from shared.codecs.protobuf.client import decode_infer_response, encode_infer_request
from shared.codecs.protobuf.inference_pb2 import ModelInferResponse
from shared.codecs.protobuf.tensors import decode_infer_request
from shared.codecs.v2 import V2Tensor
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, MissingField, OutOfRange, UnknownField, WrongDtype, WrongShape
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import bytes_tensor


def response(*outputs: tuple[str, str, list[int]], raw: tuple[bytes, ...] = ()) -> ModelInferResponse:
    message = ModelInferResponse(model_name="m", model_version="3", id="i")
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_output_contents.extend(raw)
    return message


def test_a_request_is_what_a_server_reads() -> None:
    inputs = {
        "x": V2Tensor(DType.FP32, np.array([[1, 2]], dtype=np.float32)),
        "note": V2Tensor(DType.BYTES, bytes_tensor([b"\xff\0"])),
    }
    signature = Signature((TensorSpec("x", DType.FP32, (None, 2)), TensorSpec("note", DType.BYTES, (None,))), ())
    read = decode_infer_request(encode_infer_request("m", "3", "i", inputs, {"timeout": 2**40}), signature)
    np.testing.assert_array_equal(read.inputs.tensors["x"], inputs["x"].array)
    assert list(read.inputs.tensors["note"]) == [b"\xff\0"]
    assert (read.id, read.parameters) == ("i", {"timeout": 2**40})


def test_raw_and_typed_answers_are_read() -> None:
    raw = decode_infer_response(
        response(("y", "INT64", [2]), ("t", "BYTES", [1]), raw=(bytes(16), b"\1\0\0\0a")).SerializeToString()
    )
    assert (raw.model_name, raw.model_version, raw.id) == ("m", "3", "i")
    assert raw.outputs["y"].array.tolist() == [0, 0]
    assert list(raw.outputs["t"].array) == [b"a"]
    message = response(("y", "INT8", [2]), ("t", "BYTES", [1]))
    message.outputs[0].contents.int_contents.extend([-128, 127])
    message.outputs[1].contents.bytes_contents.append(b"a")
    typed = decode_infer_response(message.SerializeToString())
    assert typed.outputs["y"].array.dtype == np.dtype(np.int8)
    assert typed.outputs["y"].array.tolist() == [-128, 127]
    assert list(typed.outputs["t"].array) == [b"a"]


def _beside() -> ModelInferResponse:
    message = response(("y", "FP32", [1]), raw=(bytes(4),))
    message.outputs[0].contents.fp32_contents.append(1.0)
    return message


def _narrow() -> ModelInferResponse:
    message = response(("y", "INT8", [1]))
    message.outputs[0].contents.int_contents.append(128)
    return message


@pytest.mark.parametrize(
    ("message", "kind", "place"),
    [
        (response(("y", "FP32", [1]), raw=(bytes(4), bytes(4))), WrongShape, "/raw_output_contents"),
        (response(("y", "FP32", [2]), raw=(bytes(4),)), WrongShape, "/outputs/0"),
        (response(("y", "FP31", [1]), raw=(bytes(4),)), WrongDtype, "/outputs/0/datatype"),
        (response(("y", "FP32", [-1]), raw=(bytes(4),)), WrongShape, "/outputs/0/shape"),
        (response(("y", "FP32", [2**31 - 1] * 3), raw=(b"",)), WrongShape, "/outputs/0/shape"),
        (response(("y", "FP32", [1]), ("y", "FP32", [1]), raw=(bytes(4),) * 2), UnknownField, "/outputs/1/name"),
        (response(("y", "FP32", [1])), MissingField, "/outputs/0/contents/fp32_contents"),
        (response(("y", "BF16", [1])), WrongDtype, "/outputs/0/contents"),
        (_beside(), UnknownField, "/outputs/0/contents"),
        (_narrow(), OutOfRange, "/outputs/0/contents/int_contents/0"),
    ],
)
def test_what_breaks_the_protocol_is_told_by_its_place(
    message: ModelInferResponse, kind: type[InvalidRequest], place: str
) -> None:
    with pytest.raises(kind) as caught:
        decode_infer_response(message.SerializeToString())
    assert caught.value.fields[0].pointer == place


def test_bytes_that_are_no_message() -> None:
    with pytest.raises(InvalidRequest, match="not a whole ModelInferResponse"):
        decode_infer_response(b"\xff\xff")
