"""JSON Lines files: each line is judged by itself, whatever its neighbours look like."""

import gzip
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_lines import decode_lines, encode_lines
from shared.domain.batch_formats import Bounds
from shared.domain.dtypes import DType
from shared.domain.errors import EmptyBatch, InvalidRequest, UnsupportedMediaType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES
from shared.domain.validation import conform
from tests.codecs.batch.files import FEW, Batch, check_cover, numbers, takes
from tests.codecs.signatures import TEXT

NAMED = numbers(features=("a", "b"), maximum=100.0)
PAIR = takes(TensorSpec("x", DType.FP32, (None,)), TensorSpec("o", DType.INT8, (None,), optional=True))
LOOSE = numbers().__class__((TensorSpec("x", DType.FP32, (None, None)),), numbers().outputs)

NUMBERS = st.one_of(st.integers(-1000, 1000), st.floats(width=16, allow_nan=False, allow_infinity=False))
LINES = st.one_of(
    st.lists(NUMBERS, min_size=1, max_size=3).map(orjson.dumps),
    st.tuples(NUMBERS, NUMBERS).map(lambda two: orjson.dumps({"a": two[0], "b": two[1]})),
    st.tuples(NUMBERS, NUMBERS).map(lambda two: orjson.dumps({"x": list(two)})),
    st.sampled_from(
        [
            b"null",
            b"1",
            b'"a"',
            b"[1",
            b"2]",
            b"3,4",
            b"[1,NaN]",
            b"[1,null]",
            b'{"a":1}',
            b"[[1,2]]",
            b"\xff",
            b"[1,2]],[[3,4]",
        ]
    ),
    st.sampled_from([b'{"x":1,"o":2}', b'{"x":1}', b'{"o":1}', b'{"x":1,"o":300}', b"[" * 40 + b"1" + b"]" * 40]),
)


def alone(line: bytes, signature: Signature) -> Any:
    try:
        return conform(decode_lines(line, signature, JsonLimits()), signature)
    except InvalidRequest as error:
        return error.code


@pytest.mark.parametrize("signature", [NAMED, PAIR, LOOSE, TEXT])
@given(
    lines=st.lists(LINES, min_size=1, max_size=20),
    end=st.sampled_from([b"\n", b"\r\n", b"\n \t\n"]),
    size=st.integers(1, 9),
    target=st.integers(1, 200),
    last=st.booleans(),
)
@FEW
def test_each_line_is_what_it_is_alone(
    signature: Signature, lines: list[bytes], end: bytes, size: int, target: int, last: bool
) -> None:
    content = end.join(lines) + (end if last else b"")
    packed = target % 2 == 0
    bounds = Bounds(target_bytes=target)
    batch = Batch(
        "f.jsonl.gz" if packed else "f.ndjson", gzip.compress(content) if packed else content, signature, bounds
    )
    check_cover(batch, len(lines))
    errors = batch.errors(size)
    found: dict[str, dict[int, Any]] = {spec.name: {} for spec in signature.inputs}
    for rows in batch.rows(size):
        assert rows.count <= size
        places = range(rows.count) if rows.positions is None else rows.positions.tolist()
        for name, array in rows.tensors.items():
            found[name] |= zip((rows.first_row + place for place in places), array.tolist(), strict=True)
    for at, line in enumerate(lines):
        wanted = alone(line, signature)
        if isinstance(wanted, str):
            assert errors[at].code == wanted
        else:
            assert at not in errors
            assert {name for name in found if at in found[name]} == set(wanted)
            assert all(found[name][at] == array.tolist()[0] for name, array in wanted.items())


def test_errors_say_where_in_the_row_they_are() -> None:
    batch = Batch("f.jsonl", b'[1,2]\n[1,"x"]\n{"a":1,"b":true}\n[1]\n{"a":1,"b":101}\n', NAMED)
    found = {at: (error.pointer, error.code) for at, error in batch.errors().items()}
    assert found == {
        1: ("/1", "wrong_dtype"),
        2: ("/b", "wrong_dtype"),
        3: ("", "wrong_shape"),
        4: ("/b", "out_of_range"),
    }


def test_a_string_that_is_too_long_is_wrong_alone() -> None:
    signature = takes(TensorSpec("text", DType.BYTES, (None,)))
    lines = [b'"a"', b'"%s"' % (b"x" * (1 << 20) + b"y"), b'"b"']
    batch = Batch("f.jsonl", b"\n".join(lines), signature, Bounds())
    assert batch.good("text") == {0: b"a", 2: b"b"}
    assert batch.errors()[1].code == "text_too_long"


def test_a_byte_order_mark_is_left_out() -> None:
    assert Batch("f.jsonl", b"\xef\xbb\xbf[1,2]\n", NAMED).good() == {0: [1, 2]}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyBatch),
        (b" \n\t\n", EmptyBatch),
        ("[1]".encode("utf-16"), UnsupportedMediaType),
        (b"[" * 60, InvalidRequest),
    ],
)
def test_files_that_are_refused_as_a_whole(content: bytes, error: type[InvalidRequest]) -> None:
    with pytest.raises(error):
        Batch("f.jsonl", content, NAMED, Bounds(max_line=50))


def test_answers_are_those_of_a_request_with_errors_in_their_places() -> None:
    outputs = (TensorSpec("y", DType.FP32, (None, 2), classes=("p", "q")), TensorSpec("t", DType.BYTES, (None,)))
    signature = takes(TensorSpec("x", DType.FP32, (None, 2)), outputs=outputs)
    batch = Batch("f.jsonl", b"[1,2]\n[1]\n\n[3,4]\nnull\n", signature)
    tensors = {
        "y": np.arange(8, dtype=np.float32).reshape(4, 2),
        "t": np.array([b"a", b"b", b"\xff", b"d"], np.object_),
    }
    lines = batch.answer(tensors).splitlines()
    wanted = encode_lines(tensors, signature).splitlines()
    assert [lines[0], lines[2]] == [wanted[0], wanted[2]]
    shape = "has the shape [1, 1]; expected [-1, 2] (-1 stands for any size)"
    assert orjson.loads(lines[1]) == {"error": {"code": "wrong_shape", "detail": shape, "pointer": ""}}
    assert orjson.loads(lines[3])["error"]["code"] == "wrong_dtype"


def test_without_an_axis_of_rows_each_row_is_alone() -> None:
    batch = Batch("f.jsonl", b"[1,2]\n[1]\n[3,4]\n", takes(TensorSpec("x", DType.FP32, (2,)), batched=False))
    assert batch.good() == {0: [1, 2], 2: [3, 4]}
    assert [rows.count for rows in batch.rows()] == [1, 1, 1]


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype is not DType.BYTES])
@pytest.mark.parametrize("more", [False, True])
def test_lines_of_numbers_are_those_of_a_request(dtype: DType, more: bool) -> None:
    outputs: tuple[TensorSpec, ...] = (TensorSpec("p%s", dtype, (None, 2), classes=("%s", 'a"b')),)
    if more:
        outputs += (TensorSpec("a", dtype, (None, 3)), TensorSpec("b", dtype, (None,)))
    signature = takes(TensorSpec("x", DType.FP32, (None, 2)), outputs=outputs)
    tensors = {}
    for spec in outputs:
        width = spec.shape[1] if len(spec.shape) > 1 else None
        values = np.array([0, 1, 1.5] * (width or 1)).astype(NUMPY_DTYPES[dtype])
        tensors[spec.name] = values.reshape(3, width) if width else values
    if dtype is DType.FP64:
        tensors["p%s"][1] = [np.nan, np.inf]
    batch = Batch("f.jsonl", b"[1,2]\n" * 3, signature)
    assert batch.answer(tensors) == encode_lines(tensors, signature)
