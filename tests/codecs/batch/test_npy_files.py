"""NPY files: rows by arithmetic, whatever the header's form; what is no array of rows is refused at once."""

import gzip
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.batch.answers import check_answer
from shared.domain.batch_formats import Bounds
from shared.domain.dtypes import DType
from shared.domain.errors import (
    EmptyBatch,
    InvalidRequest,
    NotAcceptable,
    PayloadTooLarge,
    UnsupportedMediaType,
    WrongDtype,
    WrongShape,
)
from shared.domain.signature import Signature, TensorSpec
from tests.codecs.batch.files import FEW, TINY, Batch, check_cover, numbers, takes
from tests.codecs.signatures import TEXT


def npy(array: Any, version: tuple[int, int] | None = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=version, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@given(count=st.integers(1, 40), target=st.integers(1, 99), size=st.integers(1, 9), packed=st.booleans())
@FEW
def test_rows_come_back(version: tuple[int, int], count: int, target: int, size: int, packed: bool) -> None:
    array = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    content = npy(array, version)
    name = "f.npy.gz" if packed else "f.npy"
    batch = Batch(name, gzip.compress(content) if packed else content, numbers(), Bounds(target_bytes=target))
    check_cover(batch, count)
    assert batch.good(batch_rows=size) == dict(enumerate(array.tolist()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.uint64])
def test_either_byte_order_is_read(dtype: Any, order: str) -> None:
    signature = numbers(DType({"i2": "INT16", "f8": "FP64", "u8": "UINT64"}[np.dtype(dtype).str[1:]]))
    array = np.array([[1, 2], [3, 250]], np.dtype(dtype).newbyteorder(order))
    assert Batch("f.npy", npy(array), signature).good() == {0: [1, 2], 1: [3, 250]}


def test_texts_and_what_is_no_text() -> None:
    assert Batch("f.npy", npy(["ä", "bc"]), TEXT).good("text") == {0: "ä".encode(), 1: b"bc"}
    broken = np.array(["ab", "cd", "ef"]).view(np.uint32)
    broken[2] = 0x110000
    batch = Batch("f.npy", npy(broken.view("U2")), TEXT)
    assert batch.good("text") == {0: b"ab", 2: b"ef"}
    assert batch.errors()[1].code == "wrong_dtype"


@pytest.mark.parametrize("place", range(5))
def test_a_wrong_row_is_wrong_alone(place: int) -> None:
    array = np.ones((5, 2, 2), np.float32)
    array[place, 1, 0] = np.nan
    signature = takes(TensorSpec("x", DType.FP32, (None, 4), layouts=((2, 2),)))
    batch = Batch("f.npy", npy(array), signature)
    assert {at: (error.pointer, error.code) for at, error in batch.errors().items()} == {place: ("/1/0", "not_finite")}
    assert batch.good().keys() == set(range(5)) - {place}
    answer = np.load(io.BytesIO(batch.answer({"y": np.arange(5, dtype=np.float32).reshape(5, 1)})))
    assert [at for at in range(5) if np.isnan(answer[at, 0])] == [place]


@pytest.mark.parametrize(
    ("content", "signature", "error"),
    [
        (b"", numbers(), InvalidRequest),
        (b"x" * 100, numbers(), InvalidRequest),
        (npy(np.ones((2, 2), np.float64)), numbers(), WrongDtype),
        (npy(np.ones((2, 3), np.float32)), numbers(), WrongShape),
        (npy(np.asfortranarray(np.ones((2, 2), np.float32))), numbers(), WrongShape),
        (npy(np.float32(1)), numbers(), WrongShape),
        (npy(np.ones((0, 2), np.float32)), numbers(), EmptyBatch),
        (npy(np.ones((2, 2), np.float32))[:-1], numbers(), WrongShape),
        (npy(np.ones((2, 2), np.float32)) + b"\0", numbers(), WrongShape),
        (npy(np.array([{}, {}], np.object_)), numbers(), WrongDtype),
        (npy(np.ones((99, 2), np.float32)), numbers(), PayloadTooLarge),
        (npy(np.ones(2, np.float32)), takes(*numbers().inputs, *TEXT.inputs), InvalidRequest),
    ],
)
def test_files_that_are_refused_as_a_whole(content: bytes, signature: Signature, error: type[InvalidRequest]) -> None:
    with pytest.raises(error):
        Batch("f.npy", content, signature, Bounds(max_rows=98))


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_a_packed_file_of_another_length_is_refused(change: Any) -> None:
    with pytest.raises(WrongShape):
        Batch("f.npy.gz", gzip.compress(change(npy(np.ones((9, 2), np.float32)))), numbers(), TINY)


@pytest.mark.parametrize(
    ("dtype", "values"), [(DType.INT64, [-1, 2**62]), (DType.BF16, [0x3F80, 0x7FC0]), (DType.BOOL, [0, 1])]
)
def test_answers_are_arrays(dtype: DType, values: list[int]) -> None:
    signature = takes(*numbers().inputs, outputs=(TensorSpec("y", dtype, (None, 1)),))
    made = Batch("f.npy", npy(np.ones((2, 2), np.float32)), signature, TINY)
    kind = {DType.INT64: np.int64, DType.BF16: np.uint16, DType.BOOL: np.bool_}[dtype]
    answer = np.load(io.BytesIO(made.answer({"y": np.array(values, kind).reshape(2, 1)})))
    assert (answer.dtype, answer.tolist()) == (kind, [[value] for value in values])


def test_outputs_that_a_format_cannot_hold_are_refused_before_the_run() -> None:
    whole = (TensorSpec("y", DType.INT64, (None,)),)
    check_answer("npy", takes(outputs=whole), errors_allowed=False)
    check_answer("csv", takes(outputs=(*whole, *whole)), errors_allowed=True)
    for form, outputs in (
        ("npy", whole),
        ("npy", (*whole, *whole)),
        ("npy", (TensorSpec("y", DType.FP32, (None, None)),)),
        ("npy", (TensorSpec("y", DType.BYTES, (None,)),)),
        ("csv", (TensorSpec("error", DType.FP32, (None,)),)),
        ("parquet", (TensorSpec("error", DType.FP32, (None,)),)),
    ):
        with pytest.raises(NotAcceptable):
            check_answer(form, takes(outputs=outputs), errors_allowed=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["f.txt", "f", "f.parquet.gz", "csv"])
def test_other_files_are_not_read(name: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        Batch(name, b"1", numbers())
