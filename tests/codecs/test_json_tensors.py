"""The plain JSON format: what is taken, and the code and exact pointer of each thing that is not."""

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from shared.codecs.json_documents import dumps
from shared.codecs.json_tensors import encode_predictions
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Content, Signature
from shared.domain.tensors import Array, bytes_tensor, fp32_to_bf16
from tests.codecs.signatures import GRID, NAMED, PAIR, PIXELS, SCALAR, TEXT, assert_fits, decode, row, spec, takes

F32 = row()
I8 = row(DType.INT8)
I64 = row(DType.INT64)
U64 = row(DType.UINT64)
BOOL = row(DType.BOOL)
WORDS = row(DType.BYTES)
RANGED = row(minimum=-1, maximum=1)
PNG = {"b64": base64.b64encode(b"\x89PNG").decode()}


def rows(*instances: Any) -> dict[str, Any]:
    return {"instances": list(instances)}


def tensors(**inputs: Any) -> dict[str, Any]:
    return {"inputs": inputs}


REFUSED: list[tuple[Any, Signature, str, str | None]] = [
    # the body
    ([], F32, "wrong_dtype", ""),
    (b"5", F32, "wrong_dtype", ""),
    ({}, F32, "missing_field", ""),
    ({"instances": [[1, 2]], "inputs": {}}, F32, "missing_field", ""),
    ({"instances": [[1, 2]], "a/b~c": 1}, F32, "unknown_field", "/a~1b~0c"),
    ({"rows": [[1, 2]]}, F32, "unknown_field", "/rows"),
    ({"instances": {"x": 1}}, F32, "wrong_dtype", "/instances"),
    ({"instances": None}, F32, "wrong_dtype", "/instances"),
    ({"inputs": [[1, 2]]}, F32, "wrong_dtype", "/inputs"),
    (b'{"instances": [[1, 2]], "instances": [[3, 4]]}', F32, "unknown_field", ""),
    (b'{"inputs": {"x": [[1, 2]], "x": [[3, 4]]}}', F32, "unknown_field", ""),
    (b'{"instances": [[NaN, 1]]}', F32, "not_finite", None),
    (b'{"instances": [[1e999, 1]]}', F32, "not_finite", None),
    # the batch
    (rows(), F32, "empty_batch", "/instances"),
    (tensors(x=[]), F32, "empty_batch", "/inputs/x"),
    (tensors(x=[]), I64, "empty_batch", "/inputs/x"),
    (rows(*[[1, 2]] * 5), F32, "batch_too_large", "/instances"),
    (tensors(x=[[1, 2]] * 5), F32, "batch_too_large", "/inputs/x"),
    (rows(*[[1]] * 2), GRID, "batch_too_large", "/instances"),
    # dtypes
    (rows([1, None]), F32, "wrong_dtype", "/instances/0/1"),
    (rows([1, 2], [True, 2]), F32, "wrong_dtype", "/instances/1/0"),
    (rows([1, "2"]), F32, "wrong_dtype", "/instances/0/1"),
    (rows([1, {"b64": ""}]), F32, "wrong_dtype", "/instances/0/1"),
    (rows([1, {}]), F32, "wrong_dtype", "/instances/0/1"),
    (rows([1, 2], None), F32, "wrong_dtype", "/instances/1"),
    (rows([1, 2], "ab"), F32, "wrong_dtype", "/instances/1"),
    (rows({"y": 1}), F32, "wrong_dtype", "/instances/0"),
    (rows([1, 2.5]), I64, "wrong_dtype", "/instances/0/1"),
    (rows([1, 2.0]), I64, "wrong_dtype", "/instances/0/1"),
    (rows([1, False]), I64, "wrong_dtype", "/instances/0/1"),
    (rows([True, 1]), BOOL, "wrong_dtype", "/instances/0/1"),
    (rows([True, None]), BOOL, "wrong_dtype", "/instances/0/1"),
    (tensors(x=None), F32, "wrong_dtype", "/inputs/x"),
    (tensors(x="abc"), F32, "wrong_dtype", "/inputs/x"),
    (tensors(x=[[1, None]]), F32, "wrong_dtype", "/inputs/x/0/1"),
    # numbers that do not fit
    (rows([1, 1e39]), F32, "not_finite", "/instances/0/1"),
    (rows([1, -1e39]), F32, "not_finite", "/instances/0/1"),
    (rows([1, 70000]), row(DType.FP16), "not_finite", "/instances/0/1"),
    (rows([1, 3.4e38]), row(DType.BF16), "not_finite", "/instances/0/1"),
    (rows([1, 128]), I8, "out_of_range", "/instances/0/1"),
    (rows([1, 2], [-129, 1]), I8, "out_of_range", "/instances/1/0"),
    (rows([1, -1]), row(DType.UINT8), "out_of_range", "/instances/0/1"),
    (rows([1, 2**63]), I64, "out_of_range", "/instances/0/1"),
    (rows([-1, 2**63]), I64, "out_of_range", "/instances/0/1"),
    (rows([2**63, -1]), U64, "out_of_range", "/instances/0/1"),
    (b'{"instances": [[1, 18446744073709551616]]}', U64, "out_of_range", "/instances/0/1"),
    (b'{"instances": [[1, -9223372036854775809]]}', I64, "out_of_range", "/instances/0/1"),
    (rows([0, 1.5]), RANGED, "out_of_range", "/instances/0/1"),
    (rows([0, 1], [-1.5, 0]), RANGED, "out_of_range", "/instances/1/0"),
    (tensors(x=[[0, 1.5]]), RANGED, "out_of_range", "/inputs/x/0/1"),
    # shapes
    (rows([1, 2, 3]), F32, "wrong_shape", "/instances"),
    (rows([1]), F32, "wrong_shape", "/instances"),
    (rows(1, 2), F32, "wrong_shape", "/instances"),
    (rows([[1, 2]]), F32, "wrong_shape", "/instances"),
    (rows([]), I64, "wrong_shape", "/instances"),
    (rows([1, 2], [3]), F32, "wrong_shape", "/instances/1"),
    (rows([1, 2], 3), F32, "wrong_shape", "/instances/1"),
    (rows([1, [2]]), F32, "wrong_shape", "/instances/0/0"),
    (rows([[1], [2, 3]]), F32, "wrong_shape", "/instances/0/1"),
    (tensors(x=[1, 2]), F32, "wrong_shape", "/inputs/x"),
    (tensors(x=1), F32, "wrong_shape", "/inputs/x"),
    # by feature name
    (rows({"a": 1, "b/c": 2}), NAMED, "missing_field", "/instances/0/d~0e"),
    (rows({"a": 1, "b/c": 2, "d~e": 3, "f/~": 4}), NAMED, "unknown_field", "/instances/0/f~1~0"),
    (rows({"a": 1, "b/c": None, "d~e": 3}), NAMED, "wrong_dtype", "/instances/0/b~1c"),
    (rows({"a": 1, "b/c": 1e39, "d~e": 3}), NAMED, "not_finite", "/instances/0/b~1c"),
    (rows({"a": 1, "b/c": [2], "d~e": 3}), NAMED, "wrong_shape", "/instances/0/a"),
    (rows({"a": 1, "b/c": 2, "d~e": 3}, [1, 2, 3]), NAMED, "wrong_dtype", "/instances/1"),
    (rows([1, 2, 3], {"a": 1, "b/c": 2, "d~e": 3}), NAMED, "wrong_dtype", "/instances/1"),
    (rows({"x": {"a": 1, "b/c": 2, "d~e": ""}}), NAMED, "wrong_dtype", "/instances/0/x/d~0e"),
    (tensors(x=[{"a": 1, "b/c": 2, "d~e": True}]), NAMED, "wrong_dtype", "/inputs/x/0/d~0e"),
    (tensors(x=[{"a": 1}]), NAMED, "missing_field", "/inputs/x/0/b~1c"),
    (tensors(x=[{"a": 2}]), row(width=1, features=("a",), maximum=1), "out_of_range", "/inputs/x/0/a"),
    # several inputs
    (rows([1, [1, 2]]), PAIR, "wrong_dtype", "/instances/0"),
    (rows({"i/d": 1}), PAIR, "missing_field", "/instances/0/x"),
    (rows({"i/d": 1, "x": [1, 2], "z": 0}), PAIR, "unknown_field", "/instances/0/z"),
    (rows({"i/d": 1, "x": [1, 2]}, 7), PAIR, "wrong_dtype", "/instances/1"),
    (rows({"i/d": 1.5, "x": [1, 2]}), PAIR, "wrong_dtype", "/instances/0/i~1d"),
    (rows({"i/d": 1, "x": [1, None]}), PAIR, "wrong_dtype", "/instances/0/x/1"),
    (rows({"i/d": 1, "x": [1, 2]}, {"i/d": 1, "x": [1]}), PAIR, "wrong_shape", "/instances/1/x"),
    (rows({"i/d": 1, "x": [1]}), PAIR, "wrong_shape", "/instances/0/x"),
    (rows({"i/d": [1], "x": [1, 2]}), PAIR, "wrong_shape", "/instances/0/i~1d"),
    ({"inputs": {"i/d": [1]}}, PAIR, "missing_field", "/inputs/x"),
    ({"inputs": {"i/d": [1], "x": [[1, 2]], "a~b": 0}}, PAIR, "unknown_field", "/inputs/a~0b"),
    ({"inputs": {"i/d": ["1"], "x": [[1, 2]]}}, PAIR, "wrong_dtype", "/inputs/i~1d/0"),
    ({"inputs": {"i/d": [1, 2], "x": [[1, 2]]}}, PAIR, "wrong_shape", "/inputs/x"),
    # layouts
    (rows([[0.0] * 16] * 4), PIXELS, "wrong_shape", "/instances"),
    (rows([0.0] * 63), PIXELS, "wrong_shape", "/instances"),
    (rows([[0.0] * 8] * 7), PIXELS, "wrong_shape", "/instances"),
    (tensors(x=[[0.0] * 8] * 8), PIXELS, "wrong_shape", "/inputs/x"),
    (rows([[0, 0], [0, 2]]), row(width=4, layouts=((2, 2),), maximum=1), "out_of_range", "/instances/0/1/1"),
    (rows([0, 0, 0, 2]), row(width=4, layouts=((2, 2),), maximum=1), "out_of_range", "/instances/0/3"),
    (tensors(x=5), row(width=1, layouts=((),)), "wrong_shape", "/inputs/x"),
    # text, bytes, images
    (rows(5), TEXT, "wrong_dtype", "/instances/0"),
    (rows("a", None), TEXT, "wrong_dtype", "/instances/1"),
    (rows("a", ["b"]), TEXT, "wrong_shape", "/instances/0"),
    (rows("a" * 11), TEXT, "text_too_long", "/instances/0"),
    (rows("a", "ä" * 11), TEXT, "text_too_long", "/instances/1"),
    (rows("a", {"b64": "/w=="}), TEXT, "wrong_dtype", "/instances/1"),
    (rows("a", {"b64": "a"}), TEXT, "wrong_dtype", "/instances/1/b64"),
    (rows("a", {"b64": "ä"}), TEXT, "wrong_dtype", "/instances/1/b64"),
    (rows("a", {"b64": 5}), TEXT, "wrong_dtype", "/instances/1/b64"),
    (rows("a", {"b64": "YQ==", "c": 1}), TEXT, "wrong_dtype", "/instances/1"),
    (rows(["a", "b"], ["a"]), WORDS, "wrong_shape", "/instances/1"),
    (rows(["a", 1]), WORDS, "wrong_dtype", "/instances/0/1"),
    (rows(["a", {"b64": "!"}]), WORDS, "wrong_dtype", "/instances/0/1/b64"),
    (rows({"b64": "not base64"}), PIXELS, "wrong_dtype", "/instances/0/b64"),
    (rows(PNG, [0.0] * 64), PIXELS, "wrong_dtype", "/instances/1"),
    (rows([0.0] * 64, PNG), PIXELS, "wrong_dtype", "/instances/1"),
    (rows(PNG, "text"), PIXELS, "wrong_dtype", "/instances/1"),
    (rows({"b64": "YQ=="}), F32, "wrong_dtype", "/instances/0"),
    # unbatched
    (rows([1]), SCALAR, "wrong_shape", "/instances/0"),
    (tensors(x=[1]), SCALAR, "wrong_shape", "/inputs/x"),
    (rows(None), SCALAR, "wrong_dtype", "/instances/0"),
    (rows([[1, 2], [3, "4"]]), GRID, "wrong_dtype", "/instances/0/1/1"),
    (tensors(x=[[1, 2], [3, "4"]]), GRID, "wrong_dtype", "/inputs/x/1/1"),
    (rows([[1], [2], [3]]), GRID, "wrong_shape", "/instances/0"),
]


@pytest.mark.parametrize(("document", "signature", "code", "place"), REFUSED)
def test_refused(document: Any, signature: Signature, code: str, place: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(document, signature)
    pointers = [field.pointer for field in caught.value.fields]
    assert (caught.value.code, pointers) == (code, [] if place is None else [place])


F = np.float32
TAKEN: list[tuple[Any, Signature, dict[str, Array]]] = [
    (rows([1, 2.5]), F32, {"x": np.array([[1, 2.5]], F)}),
    (tensors(x=[[1, 2], [3, 4]]), F32, {"x": np.array([[1, 2], [3, 4]], F)}),
    (rows({"x": [1, 2]}), F32, {"x": np.array([[1, 2]], F)}),
    (rows([2**64 - 1, -(2**63)]), F32, {"x": np.array([[2.0**64, -(2.0**63)]], F)}),
    (rows([-(2**63), 2**63 - 1]), I64, {"x": np.array([[-(2**63), 2**63 - 1]])}),
    (rows([0, 2**64 - 1]), U64, {"x": np.array([[0, 2**64 - 1]], np.uint64)}),
    (rows([2**53 + 1, 1]), I64, {"x": np.array([[2**53 + 1, 1]])}),
    (rows([True, False]), BOOL, {"x": np.array([[True, False]])}),
    (rows([1.5, -2]), row(DType.BF16), {"x": np.array([[0x3FC0, 0xC000]], np.uint16)}),
    (rows([65504, 0.1]), row(DType.FP16), {"x": np.array([[65504, 0.1]], np.float16)}),
    (rows({"d~e": 3, "b/c": 2, "a": 1}), NAMED, {"x": np.array([[1, 2, 3]], F)}),
    (rows({"x": {"d~e": 3, "b/c": 2, "a": 1}}), NAMED, {"x": np.array([[1, 2, 3]], F)}),
    (
        tensors(x=[{"d~e": 3, "b/c": 2, "a": 1}, {"a": 4, "b/c": 5, "d~e": 6}]),
        NAMED,
        {"x": np.arange(1, 7, dtype=F).reshape(2, 3)},
    ),
    (rows({"x": 7}), row(width=1, features=("x",)), {"x": np.array([[7]], F)}),
    (rows({"x": [7, 8]}, {"x": [9, 0]}), F32, {"x": np.array([[7, 8], [9, 0]], F)}),
    (rows(list(range(64))), PIXELS, {"x": np.arange(64, dtype=F)[None]}),
    (rows(np.arange(64).reshape(8, 8).tolist()), PIXELS, {"x": np.arange(64, dtype=F)[None]}),
    (rows(np.arange(64).reshape(64, 1).tolist()), PIXELS, {"x": np.arange(64, dtype=F)[None]}),
    (rows(PNG, PNG), PIXELS, {"x": bytes_tensor([b"\x89PNG"] * 2)}),
    (rows({"x": PNG}), PIXELS, {"x": bytes_tensor([b"\x89PNG"])}),
    (tensors(x=[PNG]), PIXELS, {"x": bytes_tensor([b"\x89PNG"])}),
    (
        rows(PNG),
        takes(spec("x", DType.FP32, (64,), content=Content.IMAGE), batched=False),
        {"x": bytes_tensor([b"\x89PNG"]).reshape(())},
    ),
    (rows(1, 2), row(width=1, layouts=((),)), {"x": np.array([[1], [2]], F)}),
    (
        rows({"x": [1, 2], "i/d": 7}, {"i/d": 8, "x": [3, 4]}),
        PAIR,
        {"i/d": np.array([7, 8]), "x": np.array([[1, 2], [3, 4]], F)},
    ),
    ({"inputs": {"x": [[1, 2]], "i/d": [7]}}, PAIR, {"i/d": np.array([7]), "x": np.array([[1, 2]], F)}),
    (rows("a", "ä€😀", ""), TEXT, {"text": bytes_tensor([b"a", "ä€😀".encode(), b""])}),
    (rows("ä" * 10), TEXT, {"text": bytes_tensor(["ä".encode() * 10])}),
    (rows("instances", "inputs", "text"), TEXT, {"text": bytes_tensor([b"instances", b"inputs", b"text"])}),
    (rows({"b64": "YQ=="}), TEXT, {"text": bytes_tensor([b"a"])}),
    (rows(["a\x00", {"b64": "/wA="}]), WORDS, {"x": bytes_tensor([b"a\x00", b"\xff\x00"]).reshape(1, 2)}),
    (rows(1.5), SCALAR, {"x": np.array(1.5, F)}),
    (tensors(x=1.5), SCALAR, {"x": np.array(1.5, F)}),
    (tensors(x=1.5), takes(spec("x", DType.BF16, ()), batched=False), {"x": np.array(0x3FC0, np.uint16)}),
    (rows([[1, 2, 3], [4, 5, 6]]), GRID, {"x": np.array([[1, 2, 3], [4, 5, 6]], F)}),
    (tensors(x=[[], []]), GRID, {"x": np.empty((2, 0), F)}),
    (
        tensors(x=[[1, 2], [3, 4]]),
        takes(spec("x", DType.FP32, (4,), layouts=((2, 2),)), batched=False),
        {"x": np.array([1, 2, 3, 4], F)},
    ),
    (rows([1e30, -1e30]), row(minimum=-1e300, maximum=1e300), {"x": np.array([[1e30, -1e30]], F)}),
]


@pytest.mark.parametrize(("document", "signature", "expected"), TAKEN)
def test_taken(document: Any, signature: Signature, expected: dict[str, Array]) -> None:
    decoded = decode(document, signature)
    assert_fits(decoded, signature)
    assert list(decoded) == list(expected)
    for name, array in expected.items():
        assert decoded[name].dtype == array.dtype
        assert decoded[name].shape == array.shape
        assert decoded[name].tolist() == array.tolist()


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\\" * 500_000])
def test_text_among_numbers_does_not_widen_the_array(text: str) -> None:
    """NumPy would make 40,000 elements of a million characters each: 160 GB."""
    with pytest.raises(InvalidRequest) as caught:
        decode(tensors(x=[[text, *range(40_000)]]), row())
    assert caught.value.fields[0].pointer == "/inputs/x/0/0"


@pytest.mark.parametrize(
    "document", [{"n" * 1_000_000: 1}, rows({"n" * 1_000_000: 1}), {"inputs": {"n" * 1_000_000: 1}}]
)
def test_an_error_is_small_however_long_the_name(document: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(document, NAMED if "instances" in document else PAIR)
    assert len(caught.value.detail) + sum(len(f.pointer) + len(f.detail) for f in caught.value.fields) < 2000


SPECS = {"float": spec("p", DType.FP32, (None, 2)), "classes": spec("c", DType.FP32, (None, 2), classes=("no", "yes"))}


@pytest.mark.parametrize(
    ("outputs", "specs", "batched", "expected"),
    [
        ([np.array([[0.5, 1.5], [2, 3]], F)], [SPECS["float"]], True, [[0.5, 1.5], [2.0, 3.0]]),
        ([np.array([[0.25, 0.75]], F)], [SPECS["classes"]], True, [{"no": 0.25, "yes": 0.75}]),
        ([np.array([0.1], F)], [spec("p", DType.FP32, (None,))], True, [0.1]),
        ([fp32_to_bf16(np.array([1.5], F))], [spec("p", DType.BF16, (None,))], True, [1.5]),
        ([np.array([0.5], np.float16)], [spec("p", DType.FP16, (None,))], True, [0.5]),
        ([np.array([2**64 - 1], np.uint64)], [spec("p", DType.UINT64, (None,))], True, [2**64 - 1]),
        ([np.array([[True], [False]])], [spec("p", DType.BOOL, (None, 1))], True, [[True], [False]]),
        ([bytes_tensor([b"a", b"\xff"])], [spec("p", DType.BYTES, (None,))], True, ["a", {"b64": "/w=="}]),
        ([bytes_tensor([b"a", b"b"]).reshape(1, 2)], [spec("p", DType.BYTES, (None, 2))], True, [["a", "b"]]),
        ([np.array([np.nan, -np.inf], F)], [spec("p", DType.FP32, (None,))], True, [None, None]),
        ([np.array([[1, 2]], F).T[:, ::-1]], [spec("p", DType.FP32, (None, 1))], True, [[1.0], [2.0]]),
        ([np.empty((2, 0), F)], [spec("p", DType.FP32, (None, None))], True, [[], []]),
        ([np.array(1.5, F)], [spec("p", DType.FP32, ())], False, [1.5]),
        ([bytes_tensor([b"a"]).reshape(())], [spec("p", DType.BYTES, ())], False, ["a"]),
        ([np.array([1, 2], F)], [spec("c", DType.FP32, (2,), classes=("no", "yes"))], False, [{"no": 1.0, "yes": 2.0}]),
        (
            [np.array([1, 0]), np.array([[0.25, 0.75], [1, 0]], F)],
            [spec("label", DType.INT64, (None,)), SPECS["classes"]],
            True,
            [{"label": 1, "c": {"no": 0.25, "yes": 0.75}}, {"label": 0, "c": {"no": 1.0, "yes": 0.0}}],
        ),
    ],
)
def test_predictions(outputs: list[Any], specs: list[Any], batched: bool, expected: list[Any]) -> None:
    signature = Signature(inputs=(), outputs=tuple(specs), batched=batched)
    named = {spec.name: array for spec, array in zip(specs, outputs, strict=True)}
    assert orjson.loads(dumps(encode_predictions(named, signature))) == expected
