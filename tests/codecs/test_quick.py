"""The quick ways give exactly what the strict ones give, or nothing."""

import json
from math import prod
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.codecs.quick_instances import quick_instances
from shared.codecs.v2 import V2Request, V2Response, V2Tensor, decode_request, encode_request, encode_response, to_wire
from shared.codecs.v2_frames import binary_outputs
from shared.codecs.v2_quick import quick_v2
from shared.codecs.v2_quick_answer import quick_v2_answer
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array
from shared.domain.validation import Inputs
from tests.codecs.signatures import BOUNDED, LIMITS, MANY, row, spec, takes

TYPES = [dtype for dtype in DType if dtype not in (DType.BOOL, DType.BYTES)]
ODD_NUMBERS = ["-0", "-0.0", "1e-400", "1e400", "1e39", "3.4028235e38", "3.4028236e38", "65504", "65520", "1E2", "1.5"]
ODD_NUMBERS += ["18446744073709551615", "18446744073709551616", "-9223372036854775808", "255", "256", "-1", "16777217"]
JUNK = ["true", "null", '"1"', "[]", "[1]", "{}", "NaN", "Infinity", "1.", "01", "", "1,", "-", "0x1", "1 2", " 7 "]


def strict(
    body: bytes, length: int | None, signature: Signature, limits: JsonLimits
) -> tuple[V2Request, Inputs] | None:
    try:
        request = decode_request(body, length, limits)
        return request, request.to_inputs(signature)
    except InvalidRequest:
        return None


def assert_same_inputs(quick: Inputs, slow: Inputs) -> None:
    assert list(quick.tensors) == list(slow.tensors)
    for name, wanted in slow.tensors.items():
        array = quick.tensors[name]
        assert array.dtype is np.dtype(wanted.dtype)
        assert array.shape == wanted.shape
        assert array.tobytes() == wanted.tobytes()
        assert array.flags.writeable == wanted.flags.writeable
        places = [(), *np.ndindex(array.shape)][:7]
        assert [quick.locate(name, place) for place in places] == [slow.locate(name, place) for place in places]
    assert quick.locate("no such", ()) == slow.locate("no such", ())


def check(body: bytes, length: int | None, signature: Signature, limits: JsonLimits = LIMITS) -> bool:
    """Whether the quick way took the body; what it gives then is what the strict way gives."""
    slow = strict(body, length, signature, limits)
    quick = quick_v2(body, length, signature, limits)
    if quick is None:
        return False
    assert slow is not None, "the quick way took what the strict one refuses"
    inputs, outputs, request_id, parameters, binary = quick
    request, wanted = slow
    assert_same_inputs(inputs, wanted)
    assert outputs == tuple(request.outputs)
    assert request_id == request.id
    assert repr(dict(parameters)) == repr(dict(request.parameters))
    assert binary == binary_outputs(request)
    return True


def written(numbers: list[str], shape: tuple[int, ...], comma: str) -> str:
    if len(shape) <= 1:
        return f"[{comma.join(numbers)}]"
    size = prod(shape[1:])
    rows = [written(numbers[at : at + size], shape[1:], comma) for at in range(0, len(numbers), max(size, 1))]
    return f"[{comma.join(rows)}]"


def numbers_of(dtype: DType) -> st.SearchStrategy[str]:
    if dtype.is_float:
        return st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr) | st.integers(-9, 9).map(str)
    bounds = np.iinfo(NUMPY_DTYPES[dtype])  # type: ignore[type-var]
    return st.integers(int(bounds.min), int(bounds.max)).map(str)


SIGNATURES = [takes(*(spec(f"x{at}", dtype, (None, 2)) for at in range(count))) for dtype in TYPES for count in (1, 3)]


@st.composite
def frames(draw: st.DrawFn) -> tuple[Signature, dict[str, Any], list[tuple[DType, tuple[int, ...], bool]]]:
    """A signature, a V2 document whose data are marks, and how each mark is to be filled."""
    signature = draw(st.sampled_from(SIGNATURES))
    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    fillings = [(wanted.dtype, draw(shapes), draw(st.booleans())) for wanted in signature.inputs]
    entries = [
        {"name": wanted.name, "datatype": wanted.dtype.value, "shape": list(shape), "data": f"@{at}"}
        for at, (wanted, (_, shape, _)) in enumerate(zip(signature.inputs, fillings, strict=True))
    ]
    entries = [dict(draw(st.permutations(list(entry.items())))) for entry in entries]
    members: dict[str, Any] = {"inputs": entries}
    if draw(st.booleans()):
        members["id"] = draw(st.sampled_from(["", "a-1", "\u00e4", 'q"', "[", '"data":[1]', "another-id"]))
    if draw(st.booleans()):
        parameters = {"binary_data_output": True, "priority": 2, "f": 0.5, "id": "x", "data": [1], "l": {"id": "z"}}
        keys = draw(st.lists(st.sampled_from(list(parameters)), unique=True))
        members["parameters"] = {key: parameters[key] for key in keys}
    if draw(st.booleans()):
        members["outputs"] = [{"name": "y", "parameters": {"binary_data": draw(st.booleans())}}]
    return signature, dict(draw(st.permutations(list(members.items())))), fillings


def fill(draw: Any, text: str, fillings: list[tuple[DType, tuple[int, ...], bool]], comma: str) -> bytes:
    for at, (dtype, shape, nested) in enumerate(fillings):
        numbers = draw(st.lists(numbers_of(dtype), min_size=prod(shape), max_size=prod(shape)))
        text = text.replace(f'"@{at}"', written(numbers, shape if nested else (len(numbers),), comma))
    return text.encode()


@MANY
@given(frames(), st.sampled_from([(",", ":"), (", ", ": ")]), st.data())
def test_json_is_read_as_the_strict_decoder_reads_it(
    frame: tuple[Signature, dict[str, Any], Any], separators: tuple[str, str], data: st.DataObject
) -> None:
    signature, document, fillings = frame
    text = json.dumps(document, separators=separators)
    for _ in range(3):
        check(fill(data.draw, text, fillings, separators[0]), None, signature)


@MANY
@given(frames(), st.data())
def test_damaged_json_is_never_taken_for_something_else(
    frame: tuple[Signature, dict[str, Any], Any], data: st.DataObject
) -> None:
    signature, document, fillings = frame
    body = fill(data.draw, orjson.dumps(document).decode(), fillings, ",")
    check(body, None, signature)
    at = data.draw(st.integers(0, len(body)))
    junk = data.draw(
        st.sampled_from([*ODD_NUMBERS, *JUNK, "]", "[", "}", '"', "\\", ",", "\0", '"data":[1],', "]]}]}"])
    )
    damaged = body[:at] + junk.encode() + body[at + data.draw(st.integers(0, 3)) :]
    check(damaged, None, signature)
    check(damaged, len(damaged), signature)


@MANY
@given(st.sampled_from(TYPES), st.lists(st.sampled_from([*ODD_NUMBERS, *JUNK, "1", "2"]), min_size=1, max_size=3))
def test_odd_numbers(dtype: DType, numbers: list[str]) -> None:
    signature = row(dtype)
    entry = '{"inputs":[{"name":"x","datatype":"%s","shape":[%d],"data":[%s]}]}'
    check((entry % (dtype, len(numbers), ",".join("1" for _ in numbers))).encode(), None, signature)
    check((entry % (dtype, len(numbers), ",".join(numbers))).encode(), None, signature)
    nested = '{"inputs":[{"name":"x","datatype":"%s","shape":[1,%d],"data":[[%s]]}]}'
    check((nested % (dtype, len(numbers), ",".join(numbers))).encode(), None, signature)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("data", ["[1,2,3,4]", "[[1,2],[3,4]]", "[ [1, 2], [3, 4] ]"])
def test_the_common_bodies_are_taken(dtype: DType, data: str) -> None:
    body = '{"id":"%s","inputs":[{"name":"x","datatype":"%s","shape":[2,2],"data":%s}]}'
    taken = [check((body % (name, dtype, data)).encode(), None, row(dtype)) for name in ("a", "b-2", "")]
    assert taken == [not data.startswith("[ ")] * 3


@pytest.mark.parametrize(
    "data",
    ["[[1,2],[3]]", "[[1,2],3]", "[[],[1,2]]", "[[1,[2]],[3,4]]", "[[[1,2]],[[3,4]]]", "[[1,2,3],[4]]", "[1,[2,3],4]"],
)
def test_ragged_data_is_left_to_the_strict_decoder(data: str) -> None:
    body = '{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":%s}]}'
    assert check((body % "[[1,2],[3,4]]").encode(), None, row())
    assert not check((body % data).encode(), None, row())


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2],"data":[@]}]}',
        '{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@],"data":[1,2]}]}',
        '{"inputs":[],"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}],"inputs":[]}',
        '{"id":"a","id":"b","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '{"parameters":{"id":"a"},"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '{"i\\u0064":"a","id":"b","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '{"id":"b","i\\u0064":"a","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '{"x":"\\"data\\":[1]","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '\ufeff{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]}]}',
        '{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[@]},{"name":"x","datatype":"FP32","shape":[1],'
        '"data":[1]}]}',
    ],
)
def test_repeated_and_misplaced_members(body: str) -> None:
    for numbers in ("3,4", "5,6", "[5],6"):
        check(body.replace("@", numbers).encode(), None, row())


def test_a_frame_holds_for_its_signature_and_its_limits_only() -> None:
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    assert check(body, None, row())
    assert not check(body, None, takes(spec("other", DType.FP32, (None, 2))))
    assert not check(body, None, row(DType.FP64))
    signature = row()
    for limits in (LIMITS, JsonLimits(max_bytes=20), JsonLimits(max_depth=2), JsonLimits(max_values=3), LIMITS):
        check(body, None, signature, limits)
    assert check(body, None, signature)


def tensors_of(dtype: DType) -> st.SearchStrategy[Array]:
    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    kind = NUMPY_DTYPES[dtype]

    def build(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
        size = prod(shape) * kind.itemsize
        return st.binary(min_size=size, max_size=size).map(lambda raw: np.frombuffer(raw, kind).reshape(shape))

    if dtype is DType.BOOL:
        return shapes.flatmap(
            lambda shape: st.lists(st.booleans(), min_size=prod(shape), max_size=prod(shape)).map(
                lambda values: np.array(values, np.bool_).reshape(shape)
            )
        )
    return shapes.flatmap(build)


@MANY
@given(st.sampled_from([*TYPES, DType.BOOL]), st.integers(1, 3), st.sampled_from(["", "a-1", "\u00e4"]), st.data())
def test_binary_bodies(dtype: DType, count: int, request_id: str, data: st.DataObject) -> None:
    signature = takes(*(spec(f"x{at}", dtype, (None, 2)) for at in range(count)))
    inputs = {f"x{at}": V2Tensor(dtype, data.draw(tensors_of(dtype))) for at in range(count)}
    body, length = encode_request(inputs, request_id=request_id, outputs=data.draw(st.sampled_from([(), ("y",)])))
    assert check(body, length, signature) or length == len(body)
    other = bytes(data.draw(st.binary(min_size=len(body) - length, max_size=len(body) - length)))
    check(body[:length] + other, length, signature)
    check(body[:-1], length, signature)
    check(body + b"\0", length, signature)
    for lie in (0, -1, length - 1, length + 1, len(body), len(body) + 1):
        check(body, lie, signature)
    at = data.draw(st.integers(0, length - 1))
    check(body[:at] + data.draw(st.binary(min_size=1, max_size=1)) + body[at + 1 :], length, signature)


@BOUNDED
@given(st.binary(max_size=60), st.none() | st.integers(-1, 70))
def test_any_bytes(body: bytes, length: int | None) -> None:
    check(body, length, row())
    check(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":' + body, length, row())


INSTANCES = takes(spec("x", DType.FP32, (None, 2)), spec("o", DType.FP32, (None, 1), optional=True))


@MANY
@given(
    st.sampled_from([INSTANCES, row(DType.INT8), row(DType.FP64), row(features=("a", "b")), row(DType.BYTES)]),
    st.lists(st.lists(st.sampled_from([*ODD_NUMBERS, *JUNK, "1", "2", "3"]), max_size=3), max_size=5),
    st.sampled_from(
        ['{"instances":%s}', '{"instances": %s}\n', '{"instances":%s}}', '{"instances":%s,"instances":[[1]]}']
    ),
)
def test_instances(signature: Signature, rows: list[list[str]], form: str) -> None:
    body = (form % written([f"[{','.join(numbers)}]" for numbers in rows], (len(rows),), ",")).encode()
    quick = quick_instances(body, signature, LIMITS)
    if quick is not None:
        assert_same_inputs_of(quick, decode_instances(body, signature, LIMITS))


def assert_same_inputs_of(quick: Inputs, slow: Inputs) -> None:
    ((name, array),) = quick.tensors.items()
    ((wanted_name, wanted),) = slow.tensors.items()
    assert (name, array.dtype, array.shape) == (wanted_name, wanted.dtype, wanted.shape)
    assert array.tobytes() == wanted.tobytes()
    places = [(), *np.ndindex(array.shape)][:5]
    assert [quick.locate(name, place) for place in places] == [slow.locate(name, place) for place in places]


@pytest.mark.parametrize("body", [b'{"instances":[[1,2],[3,4]]}', b'{"instances": [[0.5, 2]]}\n'])
def test_common_instances_are_taken(body: bytes) -> None:
    quick = quick_instances(body, INSTANCES, LIMITS)
    assert quick is not None
    assert_same_inputs_of(quick, decode_instances(body, INSTANCES, LIMITS))


@pytest.mark.parametrize("limits", [JsonLimits(max_bytes=20), JsonLimits(max_values=5), JsonLimits(max_depth=2)])
def test_instances_over_a_limit_are_left_to_the_strict_decoder(limits: JsonLimits) -> None:
    assert quick_instances(b'{"instances":[[1,2],[3,4]]}', INSTANCES, limits) is None


@MANY
@given(st.data(), st.booleans(), st.sampled_from(["", "r", '\u00e4"']))
def test_answers(data: st.DataObject, binary: bool, request_id: str) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(list(DType)), min_size=0, max_size=3))
    specs = tuple(TensorSpec(f'y"{at}', dtype, ()) for at, dtype in enumerate(dtypes))
    signature = Signature((), specs)
    outputs: dict[str, Array] = {}
    for wanted in specs:
        array = data.draw(tensors_of(DType.UINT8 if wanted.dtype is DType.BYTES else wanted.dtype))
        outputs[wanted.name] = array.astype(object) if wanted.dtype is DType.BYTES else array
    quick = quick_v2_answer("m", "7", request_id, outputs, signature, binary=binary)
    if DType.BYTES in dtypes or (DType.BF16 in dtypes and not binary):
        assert quick is None
        return
    response = V2Response("m", "7", to_wire(outputs, {wanted.name: wanted.dtype for wanted in specs}), request_id)
    body, length = encode_response(response, binary=binary)
    assert quick is not None
    got, got_length = quick
    assert got_length == length or (binary and not specs)
    assert orjson.loads(got[:got_length]) == orjson.loads(body[:length])
    assert got_length is None or length is None or got[got_length:] == body[length:]
    assert quick == quick_v2_answer("m", "7", request_id, outputs, signature, binary=binary)


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize(
    "refused",
    [
        b'"outputs":[{"name":"y","parameters":{"classification":3}}],',
        b'"outputs":[{"name":"y","parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}}],',
        b'"outputs":[{"name":"y","parameters":{"classific\\u0061tion":1}}],',
    ],
)
def test_the_quick_ways_step_aside_for_what_is_not_offered(refused: bytes, is_binary: bool) -> None:
    signature = row(DType.FP32)
    values = np.array([[1.5, 2.5]], np.float32)

    def body(outputs: bytes) -> tuple[bytes, int | None]:
        tensor = b'{"name":"x","datatype":"FP32","shape":[1,2],%s}'
        if not is_binary:
            return b'{%s"inputs":[%s]}' % (outputs, tensor % b'"data":[1.5,2.5]'), None
        head = b'{%s"inputs":[%s]}' % (outputs, tensor % b'"parameters":{"binary_data_size":8}')
        return head + values.tobytes(), len(head)

    asked = b'"outputs":[{"name":"y","parameters":{"classification":0}}],'
    for taken in (b"", asked, b""):
        assert check(*body(taken), signature)
    for _ in range(3):
        assert strict(*body(refused), signature, LIMITS) is None
        assert quick_v2(*body(refused), signature, LIMITS) is None
    assert check(*body(asked), signature)


def test_the_quick_ways_step_aside_for_shared_memory() -> None:
    signature = row(DType.FP32)
    shared = b'{"shared_memory_region":"r","shared_memory_byte_size":8}'
    for data in (b"", b',"data":[1,2]'):
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":%s%s}]}' % (shared, data)
        for _ in range(2):
            assert strict(body, None, signature, LIMITS) is None
            assert quick_v2(body, None, signature, LIMITS) is None
