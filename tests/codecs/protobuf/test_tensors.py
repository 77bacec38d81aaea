"""ModelInferRequest and ModelInferResponse ↔ tensors."""

import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.protobuf.inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from shared.codecs.protobuf.tensors import decode_infer_request, encode_infer_response, varint
from shared.domain.dtypes import DType
from shared.domain.errors import (
    InvalidRequest,
    MissingField,
    OutOfRange,
    SluiceError,
    UnknownField,
    WrongDtype,
    WrongShape,
)
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, bytes_tensor

CONTENTS = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.BYTES: "bytes_contents",
}


def signature(dtype: DType = DType.FP32, **more: Any) -> Signature:
    return Signature((TensorSpec("x", dtype, (None, 2), **more),), (TensorSpec("y", dtype, (None, 2)),))


def sample(dtype: DType) -> Array:
    if dtype is DType.BYTES:
        return bytes_tensor([b"", b"one", b"\xff\x00", "é".encode()]).reshape(2, 2)
    if dtype is DType.BOOL:
        return np.array([[True, False], [False, True]])
    if dtype.is_integer:
        bits = NUMPY_DTYPES[dtype].itemsize * 8
        signed = NUMPY_DTYPES[dtype].kind == "i"
        lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return np.array([[lowest, highest], [0, 1]], dtype=NUMPY_DTYPES[dtype])
    return np.array([[0.5, 1.5], [2, 3]]).astype(NUMPY_DTYPES[dtype])


def raw_bytes(array: Array) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in array.reshape(-1))


def request(dtype: str = "FP32", shape: tuple[int, ...] = (1, 2), raw: bytes | None = None) -> ModelInferRequest:
    message = ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype=dtype, shape=shape)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def refused(kind: type[SluiceError], message: ModelInferRequest, place: str, of: Signature | None = None) -> str:
    with pytest.raises(kind) as caught:
        decode_infer_request(message.SerializeToString(), of or signature())
    assert [field.pointer for field in caught.value.fields] == [place]
    return caught.value.detail


@pytest.mark.parametrize("dtype", DType)
def test_raw_tensors_of_every_dtype(dtype: DType) -> None:
    array = sample(dtype)
    message = request(dtype.value, array.shape, raw_bytes(array))
    decoded = decode_infer_request(message.SerializeToString(), signature(dtype))
    got = decoded.inputs.tensors["x"]
    assert got.dtype == NUMPY_DTYPES[dtype]
    assert got.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", CONTENTS)
def test_typed_tensors_of_every_dtype(dtype: DType) -> None:
    array = sample(dtype)
    message = request(dtype.value, array.shape)
    getattr(message.inputs[0].contents, CONTENTS[dtype]).extend(array.reshape(-1).tolist())
    got = decode_infer_request(message, signature(dtype)).inputs.tensors["x"]
    assert got.dtype == NUMPY_DTYPES[dtype]
    assert got.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
def test_half_floats_can_only_be_raw(dtype: DType) -> None:
    message = request(dtype.value)
    message.inputs[0].contents.fp32_contents.extend([1, 2])
    assert "raw_input_contents" in refused(WrongDtype, message, "/inputs/0/contents", signature(dtype))


@pytest.mark.parametrize("dtype", DType)
def test_answers_of_every_dtype(dtype: DType) -> None:
    array = sample(dtype)
    encoded = encode_infer_response("m", "3", "id-é", {"y": array}, signature(dtype))
    response = ModelInferResponse.FromString(encoded)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "id-é")
    (output,) = response.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("y", dtype.value, (2, 2))
    assert list(response.raw_output_contents) == [raw_bytes(array)]


def test_answers_keep_the_order_of_the_outputs_and_a_large_size() -> None:
    outputs = (TensorSpec("a", DType.FP32, (None,)), TensorSpec("b", DType.UINT8, (None,)))
    tensors: dict[str, Array] = {"b": np.arange(3, dtype=np.uint8), "a": np.zeros(300_000, np.float32)}
    response = ModelInferResponse.FromString(encode_infer_response("m", "1", "", tensors, Signature((), outputs)))
    assert [output.name for output in response.outputs] == ["b", "a"]
    assert [len(raw) for raw in response.raw_output_contents] == [3, 1_200_000]
    assert response.id == ""


def test_bf16_and_uint16_answers_are_told_apart() -> None:
    array = np.ones((1, 2), np.uint16)
    for dtype in (DType.BF16, DType.UINT16):
        response = ModelInferResponse.FromString(encode_infer_response("m", "1", "", {"y": array}, signature(dtype)))
        assert response.outputs[0].datatype == dtype.value


def test_what_else_a_request_says() -> None:
    message = request(raw=bytes(8))
    message.id = "17"
    message.outputs.add(name="y")
    message.parameters["timeout"].int64_param = 5
    message.parameters["text"].string_param = "a"
    message.parameters["flag"].bool_param = True
    decoded = decode_infer_request(message, signature())
    assert (decoded.id, decoded.outputs) == ("17", ("y",))
    assert decoded.parameters == {"timeout": 5, "text": "a", "flag": True}
    assert decoded.binary_outputs is True


def test_an_image_may_stand_for_numbers() -> None:
    message = request("BYTES", (1,), raw_bytes(bytes_tensor([b"png"])))
    takes_images = signature(DType.FP32, content=Content.IMAGE)
    assert decode_infer_request(message, takes_images).inputs.tensors["x"].tolist() == [b"png"]
    refused(WrongDtype, message, "/inputs/0/datatype")


def test_an_empty_tensor_needs_no_contents() -> None:
    assert decode_infer_request(request(shape=(0, 2)), signature()).inputs.tensors["x"].shape == (0, 2)


def test_places_of_elements() -> None:
    raw = decode_infer_request(request(shape=(2, 2), raw=bytes(16)), signature()).inputs
    assert raw.locate("x", (1, 0)) == "/raw_input_contents/0/2"
    assert raw.locate("x", ()) == "/inputs/0/shape"
    assert raw.locate("other", ()) == "/inputs"
    message = request(shape=(2, 2))
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    typed = decode_infer_request(message, signature()).inputs
    assert typed.locate("x", (1, 1)) == "/inputs/0/contents/fp32_contents/3"


def test_bytes_that_are_no_message() -> None:
    for data in (b"\xff", b"\x0a\xff", request(raw=bytes(8)).SerializeToString()[:-1], b"\x0a\x01\xff"):
        with pytest.raises(InvalidRequest):
            decode_infer_request(data, signature())


@pytest.mark.parametrize("shape", [(-1, 2), (2**31, 2), (2**24, 2**24), (0, 2**31 - 1, 2**31 - 1), (1,) * 33])
def test_shapes_that_cannot_be(shape: tuple[int, ...]) -> None:
    refused(WrongShape, request(shape=shape, raw=bytes(8)), "/inputs/0/shape")


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_raw_bytes_of_another_length(size: int) -> None:
    assert f"{size} bytes" in refused(WrongShape, request(raw=bytes(size)), "/raw_input_contents/0")


def test_raw_elements_whose_lengths_lie() -> None:
    for raw in (b"\xff\xff\xff\xff", b"\x01\0\0\0", b"\0\0\0\0", b"\0\0\0\0" * 3, b"\x01\0"):
        refused(WrongShape, request("BYTES", (1, 2), raw), "/raw_input_contents/0", signature(DType.BYTES))


def test_a_bool_that_is_neither() -> None:
    refused(WrongDtype, request("BOOL", raw=b"\x01\x02"), "/raw_input_contents/0", signature(DType.BOOL))


@pytest.mark.parametrize(("dtype", "value"), [(DType.INT8, 128), (DType.INT16, -32769), (DType.UINT8, 256)])
def test_typed_integers_that_do_not_fit(dtype: DType, value: int) -> None:
    message = request(dtype.value)
    getattr(message.inputs[0].contents, CONTENTS[dtype]).extend([1, value])
    refused(OutOfRange, message, f"/inputs/0/contents/{CONTENTS[dtype]}/1", signature(dtype))


def test_contents_of_another_kind_or_size() -> None:
    message = request()
    refused(MissingField, message, "/inputs/0/contents/fp32_contents")
    message.inputs[0].contents.fp32_contents.append(1)
    refused(WrongShape, message, "/inputs/0/contents/fp32_contents")
    message.inputs[0].contents.int_contents.append(1)
    refused(WrongDtype, message, "/inputs/0/contents/int_contents")


def test_raw_and_typed_do_not_mix() -> None:
    message = request(raw=bytes(8))
    message.inputs[0].contents.fp32_contents.append(1)
    refused(UnknownField, message, "/inputs/0/contents")
    message = request(raw=bytes(8))
    message.raw_input_contents.append(b"")
    refused(WrongShape, message, "/raw_input_contents")


def test_names_and_dtypes_that_are_not_the_models() -> None:
    message = request(raw=bytes(8))
    message.inputs[0].name = "z"
    assert "it takes x" in refused(UnknownField, message, "/inputs/0/name")
    refused(WrongDtype, request("FP64", raw=bytes(16)), "/inputs/0/datatype")
    assert "BYTES" in refused(WrongDtype, request("float", raw=bytes(8)), "/inputs/0/datatype")
    message = request(raw=bytes(8))
    message.inputs.add().CopyFrom(message.inputs[0])
    message.raw_input_contents.append(bytes(8))
    refused(UnknownField, message, "/inputs/1/name")
    message = request(raw=bytes(8))
    message.outputs.add(name="y")
    message.outputs.add(name="y")
    refused(UnknownField, message, "/outputs/1/name")


def test_a_million_outputs_are_read_in_the_time_of_a_million() -> None:
    """6 MB hold so many names: with a look at all of them for each, the request would take hours."""
    names = [f"{number:05x}" for number in range(600_000)]
    message = ModelInferRequest(outputs=[ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names])
    assert decode_infer_request(message, signature()).outputs == tuple(names)


def test_what_is_not_offered_is_said_so() -> None:
    message = request(raw=bytes(8))
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    refused(UnknownField, message, "/inputs/0/parameters/shared_memory_region")
    message = request(raw=bytes(8))
    message.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
    refused(UnknownField, message, "/outputs/0/parameters/shared_memory_region")
    message = request(raw=bytes(8))
    message.outputs.add(name="y").parameters["classification"].int64_param = 3
    refused(UnknownField, message, "/outputs/0/parameters/classification")
    message = request(raw=bytes(8))
    message.parameters["empty"].SetInParent()
    refused(WrongDtype, message, "/parameters/empty")


@given(st.binary(max_size=200))
def test_any_bytes_give_tensors_or_a_refusal(data: bytes) -> None:
    with suppress(InvalidRequest):
        decode_infer_request(data, signature())


small = st.integers(-3, 300)
contents = st.builds(
    InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=3),
    int_contents=st.lists(small, max_size=4),
    int64_contents=st.lists(small, max_size=3),
    fp32_contents=st.lists(st.floats(width=32), max_size=4),
    bytes_contents=st.lists(st.binary(max_size=3), max_size=3),
)
tensors = st.builds(
    ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["x", "y", ""]),
    datatype=st.sampled_from([*DType, "", "float"]),
    shape=st.lists(st.sampled_from([-1, 0, 1, 2, 2**31, 2**62]), max_size=3),
    contents=st.none() | contents,
)


@given(
    st.sampled_from(list(DType)), st.lists(tensors, max_size=2), st.lists(st.binary(max_size=16), max_size=2), st.text()
)
def test_any_message_gives_tensors_or_a_refusal(
    dtype: DType, inputs: list[Any], raw: list[bytes], request_id: str
) -> None:
    message = ModelInferRequest(inputs=inputs, raw_input_contents=raw, id=request_id)
    with suppress(InvalidRequest):
        decoded = decode_infer_request(message, signature(dtype))
        for name, array in decoded.inputs.tensors.items():
            spec = signature(dtype).input(name)
            assert spec is not None
            assert array.dtype == NUMPY_DTYPES[spec.dtype]


@given(st.integers(0, 2**40))
def test_lengths_are_written_as_protobuf_reads_them(value: int) -> None:
    message = ModelInferResponse.FromString(b"")
    message.outputs.add(shape=[value])
    assert message.SerializeToString().endswith(varint(value))
