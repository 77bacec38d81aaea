"""Every tensor survives the wire; every damaged body is an InvalidRequest or a request that says what it holds."""

import tracemalloc
from math import prod
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.codecs.v2 import (
    V2Request,
    V2Response,
    V2Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature
from shared.domain.tensors import NUMPY_DTYPES, Array, bf16_to_fp32
from shared.domain.validation import conform
from tests.codecs.signatures import ALL, BOUNDED, LIMITS, MANY, assert_fits

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


@st.composite
def tensors(draw: st.DrawFn) -> V2Tensor:
    """A tensor of any dtype and shape: NaN of every kind, scalars, no elements, bytes of any sort."""
    dtype, shape = draw(st.sampled_from(DType)), draw(SHAPES)
    array: Array
    if dtype is DType.BYTES:
        values = draw(st.lists(st.binary(max_size=9), min_size=prod(shape), max_size=prod(shape)))
        array = np.empty(len(values), dtype=object)
        array[:] = values
        array = array.reshape(shape)
    else:
        array = np.asarray(draw(hnp.arrays(NUMPY_DTYPES[dtype], shape)))
    if array.ndim > 1 and draw(st.booleans()):
        array = array.T  # not contiguous
    return V2Tensor(dtype, array)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Signature, dict[str, V2Tensor]]:
    """A signature, and inputs that it allows."""
    signature = draw(st.sampled_from(ALL))
    count = draw(st.integers(1, signature.max_batch))
    inputs: dict[str, V2Tensor] = {}
    for spec in signature.inputs:
        shape = [3 if dim is None else dim for dim in spec.shape]
        shape[: int(signature.batched)] = [count] * signature.batched
        array = np.ones(shape, NUMPY_DTYPES[spec.dtype])
        if spec.dtype is DType.BYTES:
            array[...] = b"text"
        inputs[spec.name] = V2Tensor(spec.dtype, array)
    return signature, inputs


NAMED = st.dictionaries(st.text(min_size=1, max_size=6), tensors(), max_size=4)


def assert_same(decoded: V2Tensor, sent: V2Tensor) -> None:
    assert decoded.dtype is sent.dtype
    assert decoded.array.dtype == sent.array.dtype
    assert decoded.array.shape == sent.array.shape
    if sent.dtype is DType.BYTES:
        assert decoded.array.tolist() == sent.array.tolist()
    else:
        assert decoded.array.tobytes() == sent.array.tobytes()


def is_finite(tensor: V2Tensor) -> bool:
    """Whether JSON can hold the tensor: it has neither NaN nor infinity."""
    if not tensor.dtype.is_float:
        return True
    values = bf16_to_fp32(tensor.array) if tensor.dtype is DType.BF16 else tensor.array
    return bool(np.isfinite(values).all())


@BOUNDED
@given(NAMED, st.text(max_size=5))
def test_requests_round_trip(inputs: dict[str, V2Tensor], request_id: str) -> None:
    body, length = encode_request(inputs, request_id=request_id)
    decoded = decode_request(body, length, LIMITS)
    assert decoded.id == request_id
    assert list(decoded.inputs) == list(inputs)
    for name, sent in inputs.items():
        assert_same(decoded.inputs[name], sent)


@BOUNDED
@given(NAMED, st.data())
def test_responses_round_trip_in_json_binary_and_mixed(outputs: dict[str, V2Tensor], data: st.DataObject) -> None:
    binary = {name: not is_finite(tensor) or data.draw(st.booleans()) for name, tensor in outputs.items()}
    body, length = encode_response(V2Response("m", "1", outputs, id="r"), binary=binary)
    assert (length is None) is (True not in binary.values())
    decoded = decode_response(body, length, LIMITS)
    assert (decoded.model_name, decoded.model_version, decoded.id) == ("m", "1", "r")
    for name, sent in outputs.items():
        assert_same(decoded.outputs[name], sent)


@BOUNDED
@given(requests())
def test_what_the_signature_allows_is_taken(case: tuple[Signature, dict[str, V2Tensor]]) -> None:
    signature, inputs = case
    body, length = encode_request(inputs)
    conformed = conform(decode_request(body, length, LIMITS).to_inputs(signature), signature)
    assert_fits(conformed, signature)
    for name, sent in inputs.items():
        assert conformed[name].tobytes() == sent.array.tobytes() or conformed[name].tolist() == sent.array.tolist()


def check(body: bytes, length: int | None, signature: Signature) -> V2Request | None:
    try:
        request = decode_request(body, length, LIMITS)
    except InvalidRequest:
        return None
    for tensor in request.inputs.values():
        assert tensor.array.dtype == NUMPY_DTYPES[tensor.dtype]
        if tensor.dtype is DType.BYTES:
            assert all(type(value) is bytes for value in tensor.array.flat)
    try:
        conformed = conform(request.to_inputs(signature), signature)
    except InvalidRequest:
        return request
    assert_fits(conformed, signature)
    return request


@BOUNDED
@given(requests(), st.data())
def test_damaged_binary_bodies(case: tuple[Signature, dict[str, V2Tensor]], data: st.DataObject) -> None:
    signature, inputs = case
    body, length = encode_request(inputs)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    check(body[:start], min(length, start), signature)
    check(body[:start] + body[stop:], length, signature)
    at = data.draw(st.integers(length, len(body)))
    check(body[:at] + data.draw(st.binary(min_size=1, max_size=3)) + body[at + 2 :], length, signature)
    check(body, data.draw(st.none() | st.integers(-1, len(body) + 1)), signature)


@BOUNDED
@given(NAMED.filter(bool), st.integers(1, 20))
def test_missing_or_surplus_bytes_are_refused(inputs: dict[str, V2Tensor], count: int) -> None:
    body, length = encode_request(inputs)
    assert check(body + b"\0" * count, length, ALL[0]) is None
    assert check(body[: max(length, len(body) - count)], length, ALL[0]) is None or len(body) == length


ODD = st.none() | st.booleans() | st.integers(-2, 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3)


@MANY
@given(requests(), st.data())
def test_changed_headers(case: tuple[Signature, dict[str, V2Tensor]], data: st.DataObject) -> None:
    """One field of a valid header is another value: sizes, shapes, dtypes, names."""
    signature, inputs = case
    body, length = encode_request(inputs)
    header: dict[str, Any] = orjson.loads(body[:length])
    entry = data.draw(st.sampled_from(header["inputs"]))
    field = data.draw(st.sampled_from(["name", "datatype", "shape", "parameters", "data", "binary_data_size"]))
    value = data.draw(
        st.sampled_from([list(reversed(entry["shape"])), [*entry["shape"], 1], entry["shape"][1:], [1], [4], [8]])
        | ODD
        | st.lists(ODD | st.just(2**31 - 1), max_size=3)
        | st.sampled_from(list(DType)).map(str)
        | st.sampled_from([{}, {"binary_data_size": 1}, [2**31 - 1] * 2, [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]])
    )
    target = entry["parameters"] if field == "binary_data_size" else entry
    target[field] = value
    head = orjson.dumps(header)
    request = check(head + body[length:], len(head), signature)
    if request is not None:
        declared = {item["name"]: item["shape"] for item in header["inputs"]}
        assert {name: list(tensor.array.shape) for name, tensor in request.inputs.items()} == declared


@BOUNDED
@given(st.binary(max_size=80), st.none() | st.integers(0, 80), st.sampled_from(ALL))
def test_any_bytes(body: bytes, length: int | None, signature: Signature) -> None:
    check(body, length, signature)


HUGE = 2**31 - 1


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize(
    "shape", [[HUGE, HUGE], [HUGE], [0, HUGE], [HUGE, 0], [HUGE, HUGE, HUGE, 0], [0] * 32, [HUGE] * 32]
)
@pytest.mark.parametrize(
    "form",
    [{"data": []}, {"data": [1]}, {"parameters": {"binary_data_size": 0}}, {"parameters": {"binary_data_size": 8}}],
)
def test_a_small_body_takes_little_memory(dtype: DType, shape: list[int], form: dict[str, Any]) -> None:
    head = orjson.dumps({"inputs": [{"name": "x", "datatype": dtype, "shape": shape, **form}]})
    body = head + b"\0" * form.get("parameters", {}).get("binary_data_size", 0)
    tracemalloc.start()
    try:
        check(body, len(head), ALL[0])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
