"""Whatever the bytes: tensors that the signature allows, or an InvalidRequest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.codecs.json_documents import dumps
from shared.codecs.json_tensors import encode_predictions
from shared.codecs.values import to_tensor
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, pointer
from shared.domain.signature import Dim, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES
from tests.codecs.signatures import ALL, BOUNDED, MANY, assert_fits, decode, row, spec

NAMES = st.sampled_from(["a", "b/c", "d~e", "x", "i/d", "text", "b64", "inputs", "instances"])
ODD = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab\u00e4\U0001f600", max_size=12)
    | st.sampled_from(
        [0, 127, 128, 1.0, 1e39, 70000, 3.4e38, [], {}, [1], [[]], {"b64": "YQ=="}, {"b64": "/w=="}, {"b64": "!"}]
    )
)
VALUES = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
BYTES_LIKE = st.sampled_from(["", "a", "\u00e4", {"b64": "YQ=="}])


@st.composite
def instances(draw: st.DrawFn, wanted: TensorSpec, batched: bool) -> Any:
    """One instance that the spec allows, in one of the forms that it has."""
    shape: tuple[Dim, ...] = draw(st.sampled_from([wanted.shape[int(batched) :], *wanted.layouts]))
    leaf: Any = draw(_leaves(wanted.dtype))
    by_name: bool = draw(st.booleans())
    if wanted.takes_images and by_name:
        return {"b64": "iVBORw=="}
    if wanted.features and by_name:
        return dict.fromkeys(draw(st.permutations(wanted.features)), leaf)
    return _full([3 if dim is None else dim for dim in shape], leaf)


def _leaves(dtype: DType) -> st.SearchStrategy[Any]:
    if dtype is DType.BYTES:
        return BYTES_LIKE
    return st.booleans() if dtype is DType.BOOL else st.sampled_from([0, 1] if dtype.is_integer else [0, 1, -0.5])


def _full(shape: list[int], leaf: Any) -> Any:
    return [_full(shape[1:], leaf) for _ in range(shape[0])] if shape else leaf


@st.composite
def documents(draw: st.DrawFn, signature: Signature) -> dict[str, Any]:
    """A body that the signature allows, by row or by tensor, with text among the bytes of a batch as it comes."""
    count = draw(st.integers(1, signature.max_batch)) if signature.batched else 1
    columns = {
        wanted.name: [draw(st.shared(instances(wanted, signature.batched), key=wanted.name))] * count
        for wanted in signature.inputs
    }
    if draw(st.booleans()):
        tensors = {name: column if signature.batched else column[0] for name, column in columns.items()}
        if signature.batched or not any(wanted.takes_images or wanted.features for wanted in signature.inputs):
            return {"inputs": tensors}
    if len(columns) > 1 or draw(st.booleans()):
        return {"instances": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    return {"instances": next(iter(columns.values()))}


def change(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> Any:
    """A copy of `value` with one thing in it changed, dropped or added."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        copy = value.copy()
        copy[key] = change(draw, value[key])
        return copy
    if isinstance(value, list) and draw(st.booleans()):
        return draw(st.sampled_from([value[1:], [*value, *value[:1]], [value], [*value, None]]))
    if isinstance(value, dict) and draw(st.booleans()):
        return {**dict(list(value.items())[1:]), **draw(st.dictionaries(NAMES, ODD, max_size=1))}
    return draw(ODD)


def check(body: bytes, signature: Signature) -> None:
    refusal: InvalidRequest | None = None
    try:
        assert_fits(decode(body, signature), signature)
    except InvalidRequest as error:
        refusal = error
    if refusal and refusal.fields:
        assert all(points_into(field.pointer, orjson.loads(body), refusal.code) for field in refusal.fields)


def points_into(place: str, document: Any, code: str) -> bool:
    """Whether a JSON pointer leads somewhere in the document, or to just the field that is missing."""
    if not place:
        return True
    assert place.startswith("/")
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in place[1:].split("/"))
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if code == "missing_field":
        return isinstance(document, dict) and last not in document
    return int(last) < len(document) if isinstance(document, list) else last in document


@BOUNDED
@given(st.sampled_from(ALL), st.data())
def test_what_the_signature_allows_is_taken(signature: Signature, data: st.DataObject) -> None:
    document = data.draw(documents(signature))
    assert_fits(decode(document, signature), signature)


@MANY
@given(st.sampled_from(ALL), st.data())
def test_one_mistake(signature: Signature, data: st.DataObject) -> None:
    check(orjson.dumps(change(data.draw, data.draw(documents(signature)))), signature)


@BOUNDED
@given(st.sampled_from(ALL), st.data())
def test_one_damaged_byte(signature: Signature, data: st.DataObject) -> None:
    body = orjson.dumps(data.draw(documents(signature)))
    at = data.draw(st.integers(0, len(body) - 1))
    junk = data.draw(st.sampled_from([b"", b"\x00", b"\xff", b'"', b"[", b"]", b"{", b"NaN", b"1e999", b",", b"\\"]))
    check(body[:at] + junk + body[at + data.draw(st.integers(0, 2)) :], signature)


@BOUNDED
@given(VALUES, st.sampled_from(ALL), st.sampled_from(["instances", "inputs"]))
def test_any_document(value: Any, signature: Signature, form: str) -> None:
    check(orjson.dumps({form: value}), signature)


@BOUNDED
@given(st.binary(max_size=80), st.sampled_from(ALL))
def test_any_bytes(body: bytes, signature: Signature) -> None:
    check(body, signature)


PLAIN = [dtype for dtype in DType if dtype not in (DType.BYTES, DType.BF16)]


@BOUNDED
@given(st.data(), st.sampled_from(PLAIN))
def test_numbers_survive_both_ways(data: st.DataObject, dtype: DType) -> None:
    """What is written as predictions reads back as the same tensor of the same dtype, bit for bit."""
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=4))
    finite = hnp.from_dtype(NUMPY_DTYPES[dtype]).filter(np.isfinite)
    array = data.draw(hnp.arrays(NUMPY_DTYPES[dtype], shape, elements=finite))
    signature = Signature(inputs=(), outputs=(spec("y", dtype, (None,) * len(shape)),))
    written = orjson.loads(dumps(encode_predictions({"y": array}, signature)))
    read = to_tensor(written, dtype, lambda index: pointer("", *index))
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()


@BOUNDED
@given(st.lists(st.lists(st.binary(max_size=8), min_size=2, max_size=2), min_size=1, max_size=4))
def test_bytes_survive_both_ways(values: list[list[bytes]]) -> None:
    array = np.array([[None, None]] * len(values), dtype=object)
    array[...] = values
    signature = Signature(inputs=(), outputs=(spec("y", DType.BYTES, (None, 2)),))
    body = dumps({"instances": encode_predictions({"y": array}, signature)})
    assert decode(body, row(DType.BYTES))["x"].tolist() == values


@pytest.mark.parametrize("dtype", DType)
def test_a_deep_value_is_refused_whatever_the_limit(dtype: DType) -> None:
    value: Any = []
    for _ in range(200):
        value = [value]
    with pytest.raises(InvalidRequest, match="more than 32 dimensions"):
        to_tensor(value, dtype, lambda index: pointer("", *index))
