"""Limits before parsing, and one clear error for each way of not being a document."""

import json
import time
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.json_documents import JsonLimits, dumps, loads, refuse_repeats
from shared.domain.errors import (
    InvalidRequest,
    NotFinite,
    NotJson,
    PayloadTooLarge,
    SluiceError,
    TextTooLong,
    TooDeep,
    UnknownField,
)
from tests.codecs.signatures import BOUNDED, LIMITS, MANY

SHALLOW = JsonLimits(max_bytes=200, max_depth=3, max_values=20)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", NotJson),
        (b"   ", NotJson),
        (b"hello", NotJson),
        (b"{", NotJson),
        (b'{"instances": [1,]}', NotJson),
        (b"[1] [2]", NotJson),
        (b"{'instances': [1]}", NotJson),
        (b"[01]", NotJson),
        (b"[0x10]", NotJson),
        (b"[1] // rows", NotJson),
        (b"[banana]", NotJson),
        (b"\xef\xbb\xbf[1]", NotJson),
        ("[1]".encode("utf-16"), NotJson),
        (b'["\xff"]', NotJson),
        (b'["\xc0\xaf"]', NotJson),
        (b'["\xed\xa0\x80"]', NotJson),
        (rb'["\ud800"]', NotJson),
        (rb'["\udc00\ud800"]', NotJson),
        (b"\x80\x04\x95", NotJson),
        (b"[NaN]", NotFinite),
        (b"[1, nan]", NotFinite),
        (b"[Infinity]", NotFinite),
        (b"[-Infinity]", NotFinite),
        (b'{"a":-inf}', NotFinite),
        (b"NaN", NotFinite),
        (b"[1e999]", NotFinite),
        (b"[-1e999]", NotFinite),
        (b"[1" + b"0" * 400 + b"]", NotFinite),
    ],
)
def test_not_a_document(body: bytes, error: type[SluiceError]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        loads(body, LIMITS)
    assert type(caught.value) is error
    assert "line 1" in caught.value.detail


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[[[1]]]", None),
        (b"[[[[1]]]]", TooDeep),
        (b'{"a":{"b":{"c":{}}}}', TooDeep),
        (b'[["[[[[{{{{", "]"], [[1]]]', None),
        (rb'["\"[[[[[", "\\", [[1]]]', None),
        (rb'["\\", [[["\"]]]"]]]]', TooDeep),
        (b"[" * 15, TooDeep),
        (b'"[[[[[[', NotJson),
        (b"[1" + b",1" * 18 + b"]", None),
        (b"[1" + b",1" * 19 + b"]", PayloadTooLarge),
        (b"[" + b"[]," * 10 + b"[]]", PayloadTooLarge),
        (b" " * 197 + b"[1]", None),
        (b" " * 198 + b"[1]", PayloadTooLarge),
        (b"x" * 201, PayloadTooLarge),
    ],
)
def test_limits(body: bytes, error: type[SluiceError] | None) -> None:
    if error is None:
        assert loads(body, SHALLOW) == orjson.loads(body)
    else:
        with pytest.raises(error):
            loads(body, SHALLOW)


@pytest.mark.parametrize("end", [b"", b"\\", b'\\"', b'"'])
def test_an_endless_string_takes_linear_time(end: bytes) -> None:
    """Each escaped quote must not be tried as the start of a string: 80 KB once took a minute."""
    body = b"[" * 40 + b'"' + b'\\"' * 500_000 + end
    started = time.process_time()
    with pytest.raises(InvalidRequest):
        loads(body, LIMITS)
    assert time.process_time() - started < 10  # milliseconds if linear, hours if not


@BOUNDED
@given(
    st.recursive(
        st.none() | st.booleans() | st.text('[]{}"\\ax', max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3),
        max_leaves=20,
    ),
    st.integers(1, 6),
)
def test_depth_is_that_of_the_document(document: object, limit: int) -> None:
    def depth(value: object) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    body = orjson.dumps(document)
    if depth(document) > limit:
        with pytest.raises(TooDeep):
            loads(body, JsonLimits(max_depth=limit))
    else:
        assert loads(body, JsonLimits(max_depth=limit)) == document


@BOUNDED
@given(st.binary(max_size=60) | st.text('[]{}",:\\ 0123456789eE+-.truefalsnNaIity', max_size=40).map(str.encode))
def test_any_bytes_are_a_document_or_an_invalid_request(body: bytes) -> None:
    try:
        document = loads(body, SHALLOW)
    except InvalidRequest:
        return
    assert dumps(document)


def test_repeats_are_told_from_equal_text() -> None:
    refuse_repeats(b'{"instances": ["instances", "instances"]}', ["instances"])
    refuse_repeats(b'[{"x": 1}, {"x": 2}]', ["x"])
    with pytest.raises(UnknownField, match='"instances" is given twice'):
        refuse_repeats(b'{"instances": [1], "instances": [2]}', ["instances"])


def test_dumps_writes_arrays_and_scalars() -> None:
    document = {"a": np.array([1.5, np.nan, np.inf], dtype=np.float32), "b": np.float16(0.5), "c": np.zeros((2, 0))}
    assert dumps(document) == b'{"a":[1.5,null,null],"b":0.5,"c":[[],[]]}'


def test_every_integer_scalar_of_numpy_is_written() -> None:
    assert dumps([np.longlong(1), np.int64(2), np.uint8(3)]) == b"[1,2,3]"
    with pytest.raises(TypeError):
        dumps(object())


def test_a_repeated_name_is_seen_through_escapes() -> None:
    with pytest.raises(UnknownField, match="twice"):
        refuse_repeats(b'{"instances": [1, 1], "inst\\u0061nces": [1]}', ["instances"])


def longest_text(document: Any) -> int:
    """The longest string that is no `b64`, in bytes as JSON writes it."""
    if isinstance(document, str):
        return len(json.dumps(document, ensure_ascii=False).encode()) - 2
    if isinstance(document, list):
        return max(map(longest_text, document), default=0)
    if isinstance(document, dict):
        values = [
            0 if key == "b64" and isinstance(value, str) else longest_text(value) for key, value in document.items()
        ]
        return max([*map(longest_text, document), *values], default=0)
    return 0


TEXTS = st.text(alphabet='ab"\\\n é[{:,', max_size=12) | st.text(alphabet='x"', min_size=8, max_size=30)
DOCUMENTS = st.recursive(
    TEXTS | st.integers(10**6, 10**30) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS, inner, max_size=3)
        | st.fixed_dictionaries({"b64": st.text(alphabet="QUJD", max_size=40)})
    ),
    max_leaves=12,
)


@MANY
@given(DOCUMENTS, st.integers(1, 12), st.booleans())
def test_strings_over_the_limit_are_refused_and_no_others(document: Any, limit: int, spaces: bool) -> None:
    body = json.dumps(document, ensure_ascii=False, separators=None if spaces else (",", ":")).encode()
    limits = JsonLimits(max_string=limit)
    if longest_text(document) > limit:
        with pytest.raises(TextTooLong):
            loads(body, limits)
    else:
        assert loads(body, limits) == orjson.loads(body)


def test_a_string_in_a_long_body_of_numbers_is_found() -> None:
    numbers = b"[" + b"1234567890," * 5000
    limits = JsonLimits(max_string=1000)
    assert len(loads(numbers + b'"' + b"x" * 1000 + b'"]', limits)) == 5001
    with pytest.raises(TextTooLong):
        loads(numbers + b'"' + b"x" * 1001 + b'"]', limits)
