"""CSV files: whole rows wherever they are cut, values as in a synchronous request, and each wrong row alone."""

import csv
import gzip
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.codecs.batch.row_ends import csv_ends
from shared.codecs.csv_tensors import decode_csv, encode_csv
from shared.codecs.json_documents import JsonLimits
from shared.domain.batch_formats import Bounds
from shared.domain.dtypes import DType
from shared.domain.errors import (
    EmptyBatch,
    InvalidRequest,
    MissingField,
    PayloadTooLarge,
    UnknownField,
    UnsupportedMediaType,
    WrongDtype,
)
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import Tensors
from shared.domain.validation import conform
from tests.codecs.batch.files import FEW, TINY, Batch, check_cover, numbers, takes

TEXTS = takes(
    TensorSpec("text", DType.BYTES, (None,), content=Content.TEXT, max_length=40), TensorSpec("n", DType.INT32, (None,))
)
GAPS = numbers(allow_non_finite=True)
BOUNDED_X = numbers(minimum=-5.0, maximum=5.0)


def alone(row: str, signature: Signature) -> Tensors | str:
    """The tensors of a row by itself as a synchronous request decodes them, or the code of its error."""
    signature = replace(signature, max_batch=1)
    try:
        width = len(next(csv.reader(io.StringIO(row, newline=""), strict=True)))
        if width != sum(1 if len(spec.shape) == 1 else spec.shape[1] or 1 for spec in signature.inputs):
            return "wrong_shape"
        return conform(decode_csv(row.encode(), signature, JsonLimits(), header=False).inputs, signature)
    except csv.Error:
        return "invalid_request"
    except InvalidRequest as error:
        return error.code


def assert_as_alone(batch: Batch, rows: list[str], batch_rows: int = 4) -> None:
    check_cover(batch, len(rows))
    errors = batch.errors(batch_rows)
    for spec in batch.signature.inputs:
        good = batch.good(spec.name, batch_rows)
        for at, row in enumerate(rows):
            wanted = alone(row, batch.signature)
            if isinstance(wanted, str):
                assert errors[at].code == wanted, row
            else:
                np.testing.assert_array_equal(good[at], wanted[spec.name][0].tolist(), err_msg=row)
                assert at not in errors


CELLS = st.one_of(
    st.floats(width=32).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        (
            *(
                "",
                " ",
                "1",
                " 2\t",
                "+3",
                "-.5",
                "5.",
                "1e5",
                "1E-5",
                "1e400",
                "3.5e38",
                "1,2",
                "0x10",
                "1_0",
                "x",
                "٣",
            ),
            *("nan", "-nan", "NaN", "nan(1)", "inf", "-Infinity", "true", "True", "tRUE", "0"),
            *('"1"', '" 2"', '""', '"1"2', '1"', '"1'),
        )
    ),
)


@pytest.mark.parametrize("dtype", [*DType])
@given(rows=st.lists(st.tuples(CELLS, CELLS).map(",".join), max_size=12), gaps=st.booleans(), size=st.integers(1, 9))
@FEW
def test_each_row_is_what_it_is_alone(dtype: DType, rows: list[str], gaps: bool, size: int) -> None:
    signature = numbers(dtype, allow_non_finite=gaps and dtype.is_float)
    rows = ["1,1", *(row for row in rows if row.count('"') % 2 == 0)]
    assert_as_alone(Batch("f.csv", "\n".join(rows).encode(), signature), rows, size)


TEXT_ROWS = st.lists(st.tuples(st.text(max_size=50), st.integers(-(2**33), 2**33)), min_size=1, max_size=15)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(rows=TEXT_ROWS, end=ENDS, quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), data=st.data())
@FEW
def test_text_with_anything_in_it(rows: list[Any], end: str, quoting: Any, data: st.DataObject) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerow(["text", "n"])
    for row in rows:
        writer.writerow(row)
        text.write(end * data.draw(st.integers(0, 2)))
    content = text.getvalue().encode()
    if data.draw(st.booleans()):
        content = content.rstrip(b"\r\n")
    if data.draw(st.booleans()):
        content = b"\xef\xbb\xbf" + content
    bounds = Bounds(target_bytes=data.draw(st.integers(1, 300)), target_rows=data.draw(st.integers(1, 6)))
    name = data.draw(st.sampled_from(["f.csv", "f.csv.gz"]))
    batch = Batch(name, gzip.compress(content) if name.endswith("gz") else content, TEXTS, bounds)
    check_cover(batch, len(rows))
    fits = [len(word) <= 40 and abs(number) < 2**31 for word, number in rows]
    assert batch.good("text") == {at: row[0].encode() for at, row in enumerate(rows) if fits[at]}
    assert batch.errors().keys() == {at for at, fit in enumerate(fits) if not fit}


@given(st.text(alphabet='a,"\r\n', max_size=40), st.booleans())
@example('a"b,"c\n"\n', True)
@example('"a"b"\n"c"\n', True)
@example('"a""\n"\n""\n', True)
@FEW
def test_rows_end_where_the_csv_module_ends_them(text: str, final: bool) -> None:
    ends = csv_ends(text.encode(), final=final).tolist()
    whole = text if final else text[: ends[-1]] if ends else ""
    starts = [0, *ends][: len(ends)]
    pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert "".join(pieces) == whole
    found = [row for piece in pieces for row in csv.reader(io.StringIO(piece, newline=""))]
    assert found == list(csv.reader(io.StringIO(whole, newline="")))
    assert all(len(list(csv.reader(io.StringIO(piece, newline="")))) == 1 for piece in pieces)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    ("bad", "pointer", "code"),
    [
        ("1,x", "/x.1", "wrong_dtype"),
        (",1", "/x.0", "missing_field"),
        ("nan,1", "/x.0", "not_finite"),
        ("1,1e39", "/x.1", "not_finite"),
        ("1,6", "/x.1", "out_of_range"),
        ("1", "", "wrong_shape"),
        ("1,2,3", "", "wrong_shape"),
        ('"1"2,3', "", "invalid_request"),
        ("1,\udcff", "", "invalid_request"),
    ],
)
def test_a_wrong_row_is_wrong_alone(place: int, bad: str, pointer: str, code: str) -> None:
    rows = [f"{at},{at}" for at in range(4)]
    rows.insert(place, bad)
    content = "\n".join(["x.0,x.1", *rows]).encode("utf-8", "surrogateescape")
    batch = Batch("f.csv", content, BOUNDED_X, Bounds())
    assert {at: (error.pointer, error.code) for at, error in batch.errors().items()} == {place: (pointer, code)}
    assert list(batch.good().values()) == [[at, at] for at in range(4)]


def test_a_wrong_cell_is_told_by_its_name_in_the_header_or_else_by_its_number() -> None:
    signature = numbers(features=("b/c", "a"))
    for header, named in (("a, b/c", {1: "/b~1c", 2: "/a"}), ("", {1: "/1", 2: "/0"})):
        batch = Batch("f.csv", f"{header}\n1,2\n1,x\n,1\n".encode(), signature)
        assert {at: error.pointer for at, error in batch.errors().items()} == named


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        ("id,x.0,x.1", "/lines/1/0: 'id' names no column of this model; it has x.0, x.1"),
        ("x.0,x.2", "/lines/1/1: 'x.2' names no column of this model; it has x.0, x.1; missing: 'x.1'"),
        ("x.1", "/lines/1: has no column 'x.0'"),
    ],
)
def test_the_names_that_a_header_has_wrong_are_told(header: str, detail: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Batch("f.csv", f"{header}\n1,2,3\n".encode(), numbers())
    assert caught.value.detail == detail


def test_a_header_may_name_columns_in_any_order_and_hold_line_breaks() -> None:
    signature = numbers(features=("a\nb", "c"))
    batch = Batch("f.csv", b'\r\n"c","a\nb"\r\n1,2\r\n3,4\r\n', signature)
    assert batch.good() == {0: [2, 1], 1: [4, 3]}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyBatch),
        (b"\n\r\n", EmptyBatch),
        (b"a,b,x\n1,2\n", InvalidRequest),
        (b"x.0,y\n1,2\n", UnknownField),
        (b"y,2\n1,2\n", WrongDtype),
        (b"x.0\n1\n", MissingField),
        ("x.0,x.1\n".encode("utf-16"), UnsupportedMediaType),
        (b"\xff\xfa,1\n", InvalidRequest),
        (b"1,2\n" + b"1" * 101, InvalidRequest),
        (b"1,2\n" * 41, PayloadTooLarge),
    ],
)
def test_files_that_are_refused_as_a_whole(content: bytes, error: type[InvalidRequest]) -> None:
    bounds = Bounds(target_bytes=8, max_line=100, max_rows=40)
    with pytest.raises(error):
        Batch("f.csv", content, numbers(), bounds)


def test_a_header_without_rows_has_no_parts() -> None:
    assert Batch("f.csv", b"x.0,x.1\n", numbers()).parts == []


def test_a_line_that_is_too_long_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"Row 2 \(from 0\) has more than 50 bytes"):
        Batch("f.csv", b'1,2\n\n3,4\n"5,6\n' + b"7,8\n" * 40, numbers(), Bounds(max_line=50))


def test_there_are_never_too_many_parts() -> None:
    content = b"1,2\n" * 5000
    batch = Batch("f.csv", content, numbers(), Bounds(target_bytes=1, target_rows=1, max_parts=40))
    assert 10 < len(batch.parts) <= 40
    check_cover(batch, 5000)
    with pytest.raises(PayloadTooLarge):
        Batch("f.csv.gz", gzip.compress(content), numbers(), Bounds(target_bytes=1, target_rows=10**6, max_parts=40))


def test_a_file_that_has_changed_is_noticed() -> None:
    batch = Batch("f.csv", b"1,2\n3,4\n", numbers(), Bounds())
    part = replace(batch.parts[0], rows=3)
    with pytest.raises(InvalidRequest, match="has changed"):
        batch.read(part)


def test_without_an_axis_of_rows_each_row_is_alone() -> None:
    signature = takes(TensorSpec("x", DType.FP32, (2,)), batched=False)
    batch = Batch("f.csv", b"1,2\n3,y\n5,6\n", signature)
    assert [rows.count for rows in batch.rows()] == [1, 1, 1]
    assert batch.good() == {0: [1, 2], 2: [5, 6]}
    answer = batch.answer({"y": np.array([[1.0], [2.0], [3.0]], np.float32)})
    assert [row[0] for row in csv.reader(io.StringIO(answer.decode()))] == ["1.0", "", "3.0"]


OUTPUTS = (
    TensorSpec("p", DType.FP32, (None, 2), classes=("yes", "no,")),
    TensorSpec("n", DType.INT64, (None,)),
    TensorSpec("b", DType.BOOL, (None, 1)),
    TensorSpec("h", DType.BF16, (None, 1)),
)


@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=20),
    wrong=st.sets(st.integers(0, 19)),
    header=st.booleans(),
    text=st.booleans(),
)
@FEW
def test_answers_are_those_of_a_request(values: list[float], wrong: set[int], header: bool, text: bool) -> None:
    outputs = (*OUTPUTS, TensorSpec("t", DType.BYTES, (None,))) if text else OUTPUTS
    signature = takes(TensorSpec("x", DType.FP32, (None, 2)), outputs=outputs)
    count = len(values)
    lines = ["x.0,x.1"] if header else []
    wrong -= {0}
    lines += ["1," if at in wrong else "1,2" for at in range(count)]
    tensors = {
        "p": np.array([values, values[::-1]], np.float32).T,
        "n": np.arange(count) - 2**62,
        "b": np.arange(count).reshape(-1, 1) % 2 == 0,
        "h": np.full((count, 1), 0x3F80, np.uint16),
        "t": np.array([f"a\n,{at}".encode() for at in range(count)], np.object_),
    }
    tensors = {spec.name: tensors[spec.name] for spec in outputs}
    answer = Batch("f.csv", "\n".join(lines).encode(), signature).answer(tensors)
    rows = list(csv.reader(io.StringIO(answer.decode(), newline="")))
    wanted = list(csv.reader(io.StringIO(encode_csv(tensors, signature, header=True).decode(), newline="")))
    if header:
        assert rows.pop(0) == [*wanted[0], "error"]
    assert len(rows) == count
    for at, row in enumerate(rows):
        if at in wrong:
            assert set(row[:-1]) == {""}
            assert row[-1] == f"missing_field: /{'x.1' if header else '1'}: is empty"
        else:
            assert [plain(cell) for cell in row] == [plain(cell) for cell in [*wanted[at + 1], ""]]


def plain(cell: str) -> str:
    """Numbers may be written in several ways."""
    try:
        return repr(np.float32(cell)) if "." in cell or "e" in cell else cell
    except ValueError:
        return cell


def test_outputs_whose_size_varies_are_json_in_one_column() -> None:
    signature = takes(TensorSpec("x", DType.FP32, (None, 2)), outputs=(TensorSpec("y", DType.FP32, (None, None)),))
    answer = Batch("f.csv.gz", gzip.compress(b"x.0,x.1\n1,2\n"), signature).answer({"y": np.ones((1, 3), np.float32)})
    assert gzip.decompress(answer) == b'y,error\r\n"[1.0,1.0,1.0]",\r\n'


def test_a_tiny_target_cuts_after_each_row() -> None:
    assert [part.rows for part in Batch("f.csv", b"1,2\n" * 5, numbers(), Bounds(target_bytes=1)).parts] == [1] * 5
    assert [part.rows for part in Batch("f.csv", b"1,2\n" * 5, numbers(), TINY).parts] == [2, 2, 1]


@given(st.sets(st.integers(0, 5999), max_size=5), st.sampled_from([b"1,x", b",", b"+1,2"]))
@FEW
def test_large_blocks_with_few_wrong_rows(places: set[int], row: bytes) -> None:
    rows = [row if at in places else b"%d,1" % at for at in range(6000)]
    batch = Batch("f.csv", b"x.0,x.1\n" + b"\n\n".join(rows), numbers(), Bounds())
    good = set(range(6000)) - (set() if row == b"+1,2" else places)
    values = batch.good(batch_rows=5000)
    assert values.keys() == good
    assert all(values[at] == ([1, 2] if at in places else [at, 1]) for at in good)
    assert batch.errors(5000).keys() == set(range(6000)) - good
