"""CSV: rows are instances, columns go by position or by name, and every mistake is told with its line."""

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.csv_tensors import decode_csv, encode_csv
from shared.codecs.json_documents import JsonLimits
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors, bf16_to_fp32
from shared.domain.validation import conform
from tests.codecs.signatures import ALL, BOUNDED, GRID, LIMITS, MANY, SCALAR, TEXT, assert_fits, row, spec, takes

IRIS = takes(spec("x", DType.FP32, (None, 3), features=("a", "b/c", "d,e")))
PAIR = takes(spec("id", DType.INT64, (None,)), spec("x", DType.FP32, (None, 2), features=("w", "h")))
MIXED = takes(
    spec("text", DType.BYTES, (None,)), spec("n", DType.INT8, (None, 1)), spec("o", DType.FP32, (None,), optional=True)
)
LOOSE = takes(spec("x", DType.FP32, (None, 2, None)))
GAPS = takes(spec("x", DType.FP32, (None, 2), allow_non_finite=True))


def assert_given_fits(tensors: Tensors, signature: Signature) -> None:
    """Optional inputs may be left out."""
    assert {spec.name for spec in signature.required} <= tensors.keys()
    given = tuple(spec for spec in signature.inputs if spec.name in tensors)
    assert_fits(tensors, replace(signature, inputs=given))


def decode(text: str | bytes, signature: Signature, **more: Any) -> dict[str, Any]:
    body = text.encode() if isinstance(text, str) else text
    tensors = conform(decode_csv(body, signature, LIMITS, **more).inputs, signature)
    assert_given_fits(tensors, signature)
    return {name: array.tolist() for name, array in tensors.items()}


@pytest.mark.parametrize(
    ("text", "signature", "tensors"),
    [
        ("1,2,3\n4,5,6", IRIS, {"x": [[1, 2, 3], [4, 5, 6]]}),
        ("1,2,3\r\n\r\n4,5,6\r\n", IRIS, {"x": [[1, 2, 3], [4, 5, 6]]}),
        ('b/c,"d,e",a\n1,2,3', IRIS, {"x": [[3, 1, 2]]}),
        ("x.2,x.0,x.1\n1,2,3", IRIS, {"x": [[2, 3, 1]]}),
        ("x.a, x.b/c ,x.2\n1, 2 ,-3e-1", IRIS, {"x": [[1, 2, np.float32(-0.3)]]}),
        ('"1",".5",+1.\n', IRIS, {"x": [[1, 0.5, 1]]}),
        ("7,1,2\n8,3,4", PAIR, {"id": [7, 8], "x": [[1, 2], [3, 4]]}),
        ("x.h,id,x.w\n1,7,2", PAIR, {"id": [7], "x": [[2, 1]]}),
        ('"two\nlines, ""quoted""",-128\n', MIXED, {"text": [b'two\nlines, "quoted"'], "n": [[-128]]}),
        ("o,n,text\n0.5,1,", MIXED, {"text": [b""], "n": [[1]], "o": [0.5]}),
        ("\u00e4\u00f6", TEXT, {"text": ["\u00e4\u00f6".encode()]}),
        ("\ufeff\u00e4", TEXT, {"text": ["\u00e4".encode()]}),
        ("text\ntext", TEXT, {"text": [b"text"]}),
        ("1,2,3,4", LOOSE, {"x": [[[1, 2], [3, 4]]]}),
        ("2.5", SCALAR, {"x": 2.5}),
        ("1,2,3,4", GRID, {"x": [[1, 2], [3, 4]]}),
        ("true,FALSE\n1,0", row(DType.BOOL), {"x": [[True, False], [True, False]]}),
        ("18446744073709551615,0", row(DType.UINT64), {"x": [[2**64 - 1, 0]]}),
    ],
)
def test_rows(text: str, signature: Signature, tensors: dict[str, Any]) -> None:
    assert decode(text, signature) == tensors


@pytest.mark.parametrize(
    ("text", "signature", "code", "place"),
    [
        ("", IRIS, "empty_batch", None),
        ("\n\n", IRIS, "empty_batch", None),
        ('a,b/c,"d,e"\n', IRIS, "empty_batch", None),
        ("1,2\n", IRIS, "wrong_shape", "/lines"),
        ("1,2,3\n\n1,2\n", IRIS, "wrong_shape", "/lines/3"),
        ("1,2,3\n1,x,3\n", IRIS, "wrong_dtype", "/lines/2/1"),
        ("1,,3", IRIS, "missing_field", "/lines/1/1"),
        ("1,nan,3", IRIS, "not_finite", "/lines/1/1"),
        ("1,-Infinity,3", IRIS, "not_finite", "/lines/1/1"),
        ("1,1e39,3", IRIS, "not_finite", "/lines/1/1"),
        ("1,1e999,3", IRIS, "not_finite", "/lines/1/1"),
        ("1,1_0,3", IRIS, "wrong_dtype", "/lines/1/1"),
        ("1,0x1,3", IRIS, "wrong_dtype", "/lines/1/1"),
        ("1,\u0661,3", IRIS, "wrong_dtype", "/lines/1/1"),
        ("\n" + "1,2,3\n" * 5, IRIS, "batch_too_large", "/lines"),
        ('"1"2,3,4', IRIS, "invalid_request", "/lines/1"),
        ('"1,2,3', IRIS, "invalid_request", "/lines/1"),
        ("a,b/c,a\n1,2,3", IRIS, "unknown_field", "/lines/1/2"),
        ("a,x.0,b/c\n1,2,3", IRIS, "unknown_field", "/lines/1/1"),
        ("a,b/c\n1,2", IRIS, "missing_field", "/lines/1"),
        ("id\n7", PAIR, "missing_field", "/lines/1"),
        ("x.999999\n1", LOOSE, "missing_field", "/lines/1"),
        ("x.0,x.1,x.2\n1,2,3", LOOSE, "missing_field", "/lines/1"),
        ("1,2,3", LOOSE, "wrong_shape", "/lines"),
        ("300,1", row(DType.UINT8), "out_of_range", "/lines/1/0"),
        ("1.5,1", row(DType.INT64), "wrong_dtype", "/lines/1/0"),
        ("yes,1", row(DType.BOOL), "wrong_dtype", "/lines/1/0"),
        ("1" * 41 + ",1", row(DType.INT64), "wrong_dtype", "/lines/1/0"),
        ("1\n2", SCALAR, "batch_too_large", "/lines"),
        ("far too long a text", TEXT, "text_too_long", "/lines/1/0"),
        ('b/c,"d,e",a\n1,2,3\n1,2,x', IRIS, "wrong_dtype", "/lines/3/a"),
        ('b/c,"d,e",a\n,2,3', IRIS, "missing_field", "/lines/2/b~1c"),
        (" n ,text\n128,a", MIXED, "out_of_range", "/lines/2/n"),
        ("text\nfar too long a text", TEXT, "text_too_long", "/lines/2/text"),
        (b"\xff", TEXT, "invalid_request", None),
        ("x" * 200_000, TEXT, "invalid_request", "/lines/1"),
    ],
)
def test_mistakes(text: str | bytes, signature: Signature, code: str, place: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(text, signature)
    assert (caught.value.code, [field.pointer for field in caught.value.fields]) == (code, [place] if place else [])


def test_the_content_type_can_say_whether_there_is_a_header() -> None:
    assert decode("text\ntext", TEXT, header=False) == {"text": [b"text", b"text"]}
    with pytest.raises(InvalidRequest, match="'one', 'two', 'three' name no column"):
        decode("one,two,three\n1,2,3", IRIS, header=True)
    assert decode_csv(b"a,b/c,x.2\n1,2,3", IRIS, LIMITS).header
    assert not decode_csv(b"1,2,3", IRIS, LIMITS).header


@pytest.mark.parametrize(
    ("signature", "columns"),
    [
        (row(width=3), "x.0, x.1, x.2"),
        (IRIS, "a, b/c, d,e"),
        (PAIR, "id, x.w, x.h"),
        (MIXED, "text, n, o"),
        (row(width=8), "x.0, x.1, x.2, x.3, x.4, x.5, x.6, x.7"),
        (row(width=5000), "x.0, x.1, x.2, x.3, x.4, x.5, x.6, x.7, …"),
        (LOOSE, "x.0, x.1, x.2, x.3, x.4, x.5, x.6, x.7, …"),
        (row(width=2, features=("n" * 1000, "m")), "n" * 60 + ", m"),
    ],
)
def test_a_wrong_header_is_told_the_columns(signature: Signature, columns: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode("who,what\n1,2", signature, header=True)
    assert caught.value.detail == f"/lines/1/0: 'who', 'what' name no column of this model; it has {columns}"


@pytest.mark.parametrize(
    ("header", "signature", "detail"),
    [
        ("key,a,b/c,x.2", IRIS, "/lines/1/0: 'key' names no column of this model; it has a, b/c, d,e"),
        ("a,B/c,x.2", IRIS, "/lines/1/1: 'B/c' names no column of this model; it has a, b/c, d,e; missing: 'b/c'"),
        (",a,b/c,x.2", IRIS, "/lines/1/0: '' names no column of this model; it has a, b/c, d,e"),
        ("one,two", IRIS, "/lines/1/0: 'one', 'two' name no column of this model; it has a, b/c, d,e"),
        ("x.w,id", PAIR, "/lines/1: has no column 'x.h'"),
        ("x.h", PAIR, "/lines/1: has no column 'id', 'x.w'"),
        ("text,m", MIXED, "/lines/1/1: 'm' names no column of this model; it has text, n, o; missing: 'n'"),
        ("x.7,x.1", LOOSE, "/lines/1: has no column 'x.0', 'x.2', 'x.3', 'x.4' and 2 more"),
        ("x.0", row(width=30), "/lines/1: has no column 'x.1', 'x.2', 'x.3', 'x.4' and 25 more"),
        ("x.0,x.1,x.2", LOOSE, "/lines/1: lacks columns of the input x: 3 make no whole instance"),
    ],
)
def test_the_names_that_a_header_has_wrong_are_told(header: str, signature: Signature, detail: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(f"{header}\n1,2,3", signature)
    assert caught.value.detail == detail


def test_wrong_names_of_a_header_take_little_room() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(",".join(["a", *("n" * 5000 + str(at) for at in range(500))]), IRIS)
    assert len(caught.value.detail) < 400
    assert "and 496 more" in caught.value.detail


@pytest.mark.parametrize(
    ("text", "signature", "detail"),
    [
        ("one,2,3", IRIS, "/lines/1/0: must be a number (FP32)"),
        ("a,1,b/c", IRIS, "/lines/1/0: must be a number (FP32)"),
        ("yes,no", row(DType.BOOL), "/lines/1/0: must be true or false"),
        ("good,day", MIXED, "/lines/1/1: must be an integer (INT8)"),
        ("good,day", TEXT, "/lines: have 2 columns; this model takes 1"),
    ],
)
def test_a_first_row_that_is_no_header_is_a_row(text: str, signature: Signature, detail: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(text, signature)
    assert caught.value.detail == detail


def test_a_row_that_looks_like_part_of_a_header_may_be_one() -> None:
    both = takes(spec("t", DType.BYTES, (None,)), spec("n", DType.FP32, (None,), allow_non_finite=True))
    tensors = decode_csv(b"t,\nt,nan", both, LIMITS).inputs.tensors
    assert tensors["t"].tolist() == [b"t", b"t"]
    assert np.isnan(tensors["n"]).all()


def test_gaps_are_nan_where_the_model_takes_nan() -> None:
    assert np.isnan(decode("1,\nNaN,2", GAPS)["x"]).tolist() == [[False, True], [True, False]]
    bits = decode_csv(b",1", takes(spec("x", DType.BF16, (None, 2), allow_non_finite=True)), LIMITS).inputs.tensors["x"]
    assert np.isnan(bf16_to_fp32(bits)).tolist() == [[True, False]]
    with pytest.raises(InvalidRequest, match="not a finite"):
        decode("1,inf", GAPS)


def test_two_variable_inputs_need_names() -> None:
    with pytest.raises(InvalidRequest, match="header row"):
        decode("1,2", takes(spec("x", DType.FP32, (None, None)), spec("z", DType.FP32, (None, None))))


def test_charsets() -> None:
    for charset in ("utf-8", "UTF-16", "iso-8859-1", "windows-1252"):
        assert decode("\u00e4\n".encode(charset), TEXT, charset=charset) == {"text": ["\u00e4".encode()]}
    for charset in ("utf-7", "rot13", "zip", "\u00e4"):
        with pytest.raises(UnsupportedMediaType, match="utf-8"):
            decode("a", TEXT, charset=charset)


@pytest.mark.parametrize("limits", [JsonLimits(max_bytes=10), JsonLimits(max_values=4)])
def test_limits(limits: JsonLimits) -> None:
    for body in (b"1,2,3\n4,5,6\n", b"1,2,3\r4,5,6\r"):
        with pytest.raises(PayloadTooLarge):
            decode_csv(body, IRIS, limits)


CELLS = st.sampled_from(
    ["1", "-2.5", "a", "x", "x.0", "x.1", "", "nan", "1e400", '"', '""', "b/c", "text", "\u0661", "\0"]
)


@MANY
@given(
    st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5).map("\n".join).map(str.encode)
    | st.binary(max_size=60),
    st.sampled_from([*ALL, IRIS, PAIR, MIXED, LOOSE, GAPS]),
    st.sampled_from([None, True, False]),
    st.sampled_from(["", "utf-16", "latin-1"]),
)
def test_any_text(body: bytes, signature: Signature, header: bool | None, charset: str) -> None:
    try:
        tensors = conform(decode_csv(body, signature, LIMITS, header=header, charset=charset).inputs, signature)
    except InvalidRequest as error:
        refusal = error
    else:
        assert_given_fits(tensors, signature)
        return
    assert all(field.pointer.startswith("/lines") for field in refusal.fields)


@BOUNDED
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(-128, 127)), min_size=1, max_size=4
    )
)
def test_what_a_csv_writer_wrote_is_read(values: list[tuple[str, int]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(values)
    tensors = decode(text.getvalue(), MIXED, header=False)
    assert tensors == {"text": [text.encode() for text, _ in values], "n": [[number] for _, number in values]}


def test_answers() -> None:
    signature = Signature(
        (),
        (
            spec("p", DType.FP32, (None, 2), classes=("no", "yes, sure")),
            spec("label", DType.BYTES, (None,)),
            spec("z", DType.INT64, (None, 1, 2)),
            spec("ok", DType.BOOL, (None,)),
            spec("h", DType.BF16, (None,)),
        ),
    )
    outputs: dict[str, Any] = {
        "p": np.array([[0.1, 1e-9], [np.nan, np.inf]], np.float32),
        "label": np.array([b'a "b"', b"\xff"], object),
        "z": np.array([[[1, 2]], [[3, -(2**63)]]]),
        "ok": np.array([True, False]),
        "h": np.array([0x3F80, 0x4000], np.uint16),
    }
    body = encode_csv(outputs, signature, header=True).decode()
    assert body == (
        'p.no,"p.yes, sure",label,z.0,z.1,ok,h\r\n'
        '0.1,1e-09,"a ""b""",1,2,true,1.0\r\n'
        "nan,inf,\ufffd,3,-9223372036854775808,false,2.0\r\n"
    )
    assert encode_csv(outputs, signature, header=False).decode() == body.partition("\r\n")[2]


def test_an_answer_that_is_not_batched_is_one_row() -> None:
    signature = Signature((), (spec("y", DType.FP64, (2, 2)), spec("s", DType.FP16, ())), batched=False)
    outputs: dict[str, Any] = {"y": np.array([[1.5, 2], [3, 0.1]]), "s": np.float16(0.1).reshape(())}
    assert encode_csv(outputs, signature, header=True) == b"y.0,y.1,y.2,y.3,s\r\n1.5,2.0,3.0,0.1,0.1\r\n"
    assert encode_csv({"s": outputs["s"]}, signature, header=False) == b"0.1\r\n"
