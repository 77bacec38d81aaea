"""Parquet files: columns as in CSV or lists, row groups together or in slices, rows with gaps told one by one."""

import io
import tracemalloc
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from shared.codecs.batch.files import read
from shared.domain.batch_formats import Bounds
from shared.domain.dtypes import DType
from shared.domain.errors import EmptyBatch, InvalidRequest, MissingField, PayloadTooLarge, UnknownField, WrongDtype
from shared.domain.signature import Signature, TensorSpec
from tests.codecs.batch.files import FEW, Batch, check_cover, numbers, takes

NAMED = numbers(features=("a", "b"), maximum=100.0)
TEXTS = takes(TensorSpec("text", DType.BYTES, (None,)), TensorSpec("n", DType.INT8, (None,)))
GRID = takes(TensorSpec("x", DType.FP32, (None, 2, 2)))


def parquet_of(columns: Any, group: int = 1000, **more: Any) -> bytes:
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    parquet.write_table(table, file, row_group_size=group, **more)
    return file.getvalue()


def read_back(content: bytes) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = parquet.read_table(pa.BufferReader(content)).to_pydict()
    return rows


@given(
    count=st.integers(1, 60),
    group=st.integers(1, 40),
    rows=st.integers(1, 25),
    size=st.integers(1, 9),
    codec=st.sampled_from(["snappy", "gzip", "zstd", "none"]),
)
@FEW
def test_rows_come_back(count: int, group: int, rows: int, size: int, codec: str) -> None:
    content = parquet_of({"b": range(count), "a": [at / 2 for at in range(count)]}, group, compression=codec)
    batch = Batch("f.parquet", content, numbers(features=("a", "b")), Bounds(target_rows=rows))
    check_cover(batch, count)
    assert batch.good(batch_rows=size) == {at: [at / 2, at] for at in range(count)}


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.int32(), 2), pa.large_list(pa.float16())])
def test_vectors_are_lists(kind: Any) -> None:
    content = parquet_of({"x": pa.array([[1, 2], [3, 4], [5, 6]], kind)}, 2)
    assert Batch("f.parquet", content, NAMED).good() == {0: [1, 2], 1: [3, 4], 2: [5, 6]}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("bad", "pointer", "code"),
    [
        (None, "/x", "missing_field"),
        ([1.0], "/x", "wrong_shape"),
        ([1.0, None], "/x/1", "missing_field"),
        ([float("nan"), 1.0], "/x/0", "not_finite"),
        ([1.0, 1e39], "/x/1", "not_finite"),
        ([1.0, 101.0], "/x/1", "out_of_range"),
    ],
)
def test_a_wrong_list_is_wrong_alone(place: int, bad: Any, pointer: str, code: str) -> None:
    rows: list[Any] = [[1.0, 2.0]] * 3
    rows.insert(place, bad)
    batch = Batch("f.parquet", parquet_of({"x": pa.array(rows, pa.list_(pa.float64()))}), NAMED)
    assert {at: (error.pointer, error.code) for at, error in batch.errors(9).items()} == {place: (pointer, code)}
    assert list(batch.good(batch_rows=9).values()) == [[1, 2]] * 3


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("bad", "code"), [(None, "missing_field"), (101.0, "out_of_range"), (float("inf"), "not_finite")]
)
def test_a_wrong_cell_is_wrong_alone(place: int, bad: Any, code: str) -> None:
    rows: list[Any] = [1.0] * 3
    rows.insert(place, bad)
    batch = Batch("f.parquet", parquet_of({"x.0": rows, "x.1": [2] * 4}), NAMED)
    assert {at: (error.pointer, error.code) for at, error in batch.errors(9).items()} == {place: ("/x.0", code)}
    assert len(batch.good()) == 3


def test_nested_lists_gaps_and_sizes_that_vary() -> None:
    grid = pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.int64())))
    assert Batch("f.parquet", parquet_of({"x": grid}), GRID).good()[1] == [[5, 6], [7, 8]]
    gaps = numbers(allow_non_finite=True)
    found = Batch("f.parquet", parquet_of({"x.0": [1.0, None], "x.1": [float("inf"), 1.0]}), gaps).good()
    np.testing.assert_array_equal([found[0], found[1]], [[1, np.inf], [np.nan, 1]])
    loose = Signature((TensorSpec("x", DType.FP32, (None, None)),), NAMED.outputs)
    ragged = Batch("f.parquet", parquet_of({"x": [[1.0], [2.0, 3.0], [4.0, 5.0]]}), loose, Bounds())
    assert ragged.good() == {0: [1], 1: [2, 3], 2: [4, 5]}
    assert [rows.count for rows in ragged.rows()] == [1, 2]


def test_text_and_integers() -> None:
    texts = pa.array(["a", "ä", "c", None]).dictionary_encode()
    batch = Batch("f.parquet", parquet_of({"n": [1, -128, 128, 4], "text": texts}), TEXTS, Bounds())
    assert batch.good("text") == {0: b"a", 1: "ä".encode()}
    found = {at: (error.pointer, error.code) for at, error in batch.errors().items()}
    assert found == {2: ("/n", "out_of_range"), 3: ("/text", "missing_field")}
    binary = parquet_of({"text": pa.array([b"\xff", b"b"]), "n": [1, 2]})
    assert Batch("f.parquet", binary, TEXTS).good("text") == {0: b"\xff", 1: b"b"}


def test_a_text_that_a_small_file_repeats_is_in_memory_once() -> None:
    text = b"x" * 100_000
    signature = takes(TensorSpec("text", DType.BYTES, (None,)), TensorSpec("w", DType.BYTES, (None, 1)))
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([text]))
    lists = pa.ListArray.from_arrays(pa.array(range(2001), pa.int32()), texts)
    content = parquet_of({"text": texts, "w": lists}, 5000, compression="zstd", store_schema=False)
    assert len(content) < 10_000
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    most = seen = 0
    batch = Batch("f.parquet", content, signature, Bounds())
    for rows in read(batch.file, batch.layout, batch.parts[0], signature, 4):
        assert {*rows.tensors["text"], *rows.tensors["w"].ravel()} == {text}
        most = max(most, pa.total_allocated_bytes() - before)
        seen += rows.count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 2000
    assert max(most, peak) < 20_000_000  # those of all rows are 400 MB


def test_long_lists_that_are_stored_in_a_few_bits_are_read_in_small_pieces() -> None:
    signature = takes(TensorSpec("mask", DType.INT64, (None, 2048)))
    ones = pa.array(np.ones(2048 * 8000, np.int64))
    lists = pa.ListArray.from_arrays(pa.array(range(0, 2048 * 8001, 2048), pa.int32()), ones)
    content = parquet_of({"mask": lists}, 8000)
    assert len(content) < 100_000
    del ones, lists
    before = pa.total_allocated_bytes()
    most = seen = 0
    batch = Batch("f.parquet", content, signature, Bounds())
    for rows in read(batch.file, batch.layout, batch.parts[0], signature, 4):
        most = max(most, pa.total_allocated_bytes() - before)
        seen += rows.count
    assert seen == 8000
    assert most < 50_000_000  # all rows are 131 MB


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", InvalidRequest),
        (b"PAR1" + b"x" * 100, InvalidRequest),
        (b"PAR1" + b"x" * 100 + b"\x40\0\0\0PAR1", InvalidRequest),
        (parquet_of({"x.0": pa.array([], pa.float32()), "x.1": pa.array([], pa.float32())}), EmptyBatch),
        (parquet_of({"x.0": [1.0]}), MissingField),
        (parquet_of({"x.0": [1.0], "x.1": [1.0], "id": [1]}), UnknownField),
        (parquet_of({"x.0": [1.0], "x.1": ["1"]}), WrongDtype),
        (parquet_of({"x.0": [1.0], "x.1": [Decimal(1)]}), WrongDtype),
        (parquet_of({"x": [["a", "b"]]}), WrongDtype),
        (parquet_of(pa.table([[1.0], [1.0]], names=["x.0", "x.0"])), UnknownField),
        (parquet_of({"x.0": [1.0] * 51, "x.1": [1.0] * 51}), PayloadTooLarge),
    ],
)
def test_files_that_are_refused_as_a_whole(content: bytes, error: type[InvalidRequest]) -> None:
    with pytest.raises(error):
        Batch("f.parquet", content, NAMED, Bounds(max_rows=50))


def test_damaged_data_is_an_error_of_the_file() -> None:
    whole = parquet_of({"x.0": [1.0] * 50, "x.1": [1.0] * 50}, compression="gzip")
    packed = whole.index(b"\x1f\x8b")
    batch = Batch("f.parquet", whole[: packed + 10] + b"\xff" * 5 + whole[packed + 15 :], NAMED)
    with pytest.raises(InvalidRequest, match="damaged"):
        batch.rows()
    with pytest.raises(InvalidRequest, match="damaged"):
        Batch("f.parquet", whole[:4] + b"\xff" * 56 + whole[60:], NAMED)


def test_there_are_never_too_many_parts() -> None:
    content = parquet_of({"x.0": [1.0] * 500, "x.1": [1.0] * 500}, 1)
    batch = Batch("f.parquet", content, NAMED, Bounds(target_rows=1, target_bytes=1, max_parts=20))
    assert 1 < len(batch.parts) <= 20
    check_cover(batch, 500)


def test_answers_have_the_columns_of_csv_and_nulls() -> None:
    outputs = (
        TensorSpec("p", DType.FP16, (None, 2), classes=("yes", "no")),
        TensorSpec("n", DType.UINT64, (None,)),
        TensorSpec("b", DType.BOOL, (None,)),
        TensorSpec("t", DType.BYTES, (None,)),
        TensorSpec("v", DType.FP32, (None, None)),
        TensorSpec("w", DType.BYTES, (None, None)),
    )
    signature = takes(TensorSpec("x", DType.FP32, (None, 2)), outputs=outputs)
    content = parquet_of({"x.0": [1.0, None, 3.0, 4.0, 5.0], "x.1": [1] * 5}, 2)
    tensors = {
        "p": np.array([[at, at / 2] for at in range(5)], np.float16),
        "n": np.arange(5, dtype=np.uint64) + 2**63,
        "b": np.arange(5) % 2 == 0,
        "t": np.array([b"a", b"b", b"\xff", b"d", b"e"], np.object_),
        "v": np.ones((5, 3), np.float32),
        "w": np.array([[b"k"]] * 5, np.object_),
    }
    answer = read_back(Batch("f.parquet", content, signature, Bounds(target_rows=2)).answer(tensors))
    gap = "missing_field: /x.0: is empty"
    assert answer == {
        "p.yes": [0, None, 2, 3, 4],
        "p.no": [0, None, 1, 1.5, 2],
        "n": [2**63, None, 2**63 + 2, 2**63 + 3, 2**63 + 4],
        "b": [True, None, True, False, True],
        "t": ["a", None, "\ufffd", "d", "e"],
        "v": [[1, 1, 1], None, [1, 1, 1], [1, 1, 1], [1, 1, 1]],
        "w": [["k"], None, ["k"], ["k"], ["k"]],
        "error": [None, gap, None, None, None],
    }


def test_without_an_axis_of_rows_each_row_is_alone() -> None:
    signature = takes(TensorSpec("x", DType.FP32, (2,)), batched=False)
    batch = Batch("f.parquet", parquet_of({"x": [[1.0, 2.0], [1.0], [3.0, 4.0]]}), signature)
    assert batch.good() == {0: [1, 2], 2: [3, 4]}
    answer = read_back(batch.answer({"y": np.ones((3, 1), np.float32)}))
    assert answer["y"] == [1, None, 1]
