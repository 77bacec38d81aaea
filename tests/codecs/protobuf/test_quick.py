"""The quick way gives what the strict one gives, or nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.content.decoded import Decoded
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest
from shared.codecs.protobuf.quick import Frame, Frames
from shared.codecs.protobuf.tensors import decode_infer_request
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES

QUICK = [dtype for dtype in DType if dtype not in (DType.BOOL, DType.BYTES)]


def signature(*dtypes: DType) -> Signature:
    return Signature(tuple(TensorSpec(f"x{n}", dtype, (None, None)) for n, dtype in enumerate(dtypes)), ())


def request(of: Signature, fill: int = 0, shape: tuple[int, ...] = (2, 3), **more: Any) -> bytes:
    message = ModelInferRequest(model_name="m", model_version="4", **more)
    for spec in of.inputs:
        message.inputs.add(name=spec.name, datatype=spec.dtype.value, shape=shape)
        size = int(np.prod(shape)) * NUMPY_DTYPES[spec.dtype].itemsize
        message.raw_input_contents.append(bytes([fill]) * size)
    return message.SerializeToString()


def learned(data: bytes, of: Signature) -> Frames:
    frames = Frames()
    for _ in range(2):
        frames.learn(data, decode_infer_request(data, of), of)
    return frames


def same(quick: Decoded, strict: Decoded) -> None:
    assert quick.inputs.tensors.keys() == strict.inputs.tensors.keys()
    for name, array in strict.inputs.tensors.items():
        got = quick.inputs.tensors[name]
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert got.flags.aligned
        for index in ((), (0,) * array.ndim):
            assert quick.inputs.locate(name, index) == strict.inputs.locate(name, index)
    assert (quick.outputs, quick.id, quick.parameters) == (strict.outputs, strict.id, strict.parameters)
    assert quick.binary_outputs == strict.binary_outputs


@pytest.mark.parametrize("dtype", QUICK)
def test_other_numbers_of_every_dtype(dtype: DType) -> None:
    of = signature(dtype, DType.FP32)
    frames = learned(request(of, 0), of)
    for fill in (0, 1, 200):
        data = request(of, fill)
        frame = frames.find(data)
        assert frame is not None
        assert (frame.model, frame.version) == ("m", "4")
        same(frame.decode(data), decode_infer_request(data, of))


def test_outputs_and_parameters_belong_to_the_frame() -> None:
    of = signature(DType.FP32)
    more: dict[str, Any] = {"outputs": [{"name": "y"}], "parameters": {"timeout": {"int64_param": 5}}}
    data = request(of, **more)
    frame = learned(data, of).find(data)
    assert frame is not None
    assert (frame.decode(data).outputs, frame.decode(data).parameters) == (("y",), {"timeout": 5})
    assert learned(data, of).find(request(of)) is None


def test_what_is_not_for_the_quick_way() -> None:
    for dtype, raw in ((DType.BOOL, bytes(6)), (DType.BYTES, bytes(24))):
        of = signature(dtype)
        message = ModelInferRequest(model_name="m", raw_input_contents=[raw])
        message.inputs.add(name="x0", datatype=dtype.value, shape=[2, 3])
        data = message.SerializeToString()
        assert learned(data, of).find(data) is None
    of = signature(DType.FP32)
    with_id = request(of, id="17")
    assert learned(with_id, of).find(with_id) is None
    typed = ModelInferRequest(model_name="m")
    typed.inputs.add(name="x0", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(1)
    data = typed.SerializeToString()
    assert learned(data, of).find(data) is None
    first = request(of)
    raw_first = first[-26:] + first[:-26]  # fields in another order: right, but not for a frame
    same(decode_infer_request(raw_first, of), decode_infer_request(first, of))
    assert learned(raw_first, of).find(raw_first) is None


def test_a_frame_is_learned_from_the_second_message_of_its_length_on_and_can_be_forgotten() -> None:
    of = signature(DType.FP32)
    data = request(of)
    frames = Frames()
    frames.learn(data, decode_infer_request(data, of), of)
    assert frames.find(data) is None
    frames.learn(data, decode_infer_request(data, of), of)
    assert frames.find(data) is not None
    frames.forget(data)
    assert frames.find(data) is None


def test_what_is_remembered_has_a_bound() -> None:
    of = signature(DType.UINT8)
    frames = Frames()
    for width in range(1, 5000):
        data = request(of, shape=(1, width))
        decoded = decode_infer_request(data, of)
        frames.learn(data, decoded, of)
        frames.learn(data, decoded, of)
        assert len(frames._frames) <= 256
        assert len(frames._seen) <= 4096


OF = signature(DType.FP32, DType.INT64)
BODY = request(OF)
FRAMES = learned(BODY, OF)


@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), max_size=6))
def test_whatever_a_frame_takes_is_what_the_strict_way_reads(changes: list[tuple[int, int]]) -> None:
    data = bytearray(BODY)
    for at, value in changes:
        data[at] = value
    frame = FRAMES.find(bytes(data))
    try:
        strict = decode_infer_request(bytes(data), OF)
    except InvalidRequest:
        strict = None
    if isinstance(frame, Frame):
        assert strict is not None
        same(frame.decode(bytes(data)), strict)
