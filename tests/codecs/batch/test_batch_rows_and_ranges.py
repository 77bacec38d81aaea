"""Rows that are halved or fail, ranges of files, and the names of formats."""

import io
from pathlib import Path

import numpy as np
import pytest

from shared.codecs.batch.ranges import BytesRanges, FileRanges, Ranges, RangesFile
from shared.codecs.batch.rows import Rows
from shared.domain.batch_formats import FileType, RowError, file_type
from shared.domain.errors import InvalidRequest
from tests.codecs.batch.files import Batch, numbers


@pytest.mark.parametrize(
    "content", [b"1,1\n2,2\n3,3\n", b"1,1\nnan,1\n2,2\n3,3\n1,nan\n", b"1,1\n1,inf\n2,2\n3,3\n,\n"]
)
def test_halves_hold_all_rows_once(content: bytes) -> None:
    (rows,) = Batch("f.csv", content, numbers()).read(Batch("f.csv", content, numbers()).parts[0], 9)[:1]
    whole = [rows]
    while any(part.good > 1 for part in whole):
        whole = [half for part in whole for half in (part.halves() if part.good > 1 else (part,))]
    at = rows.first_row
    values: list[list[float]] = []
    for part in whole:
        assert part.first_row == at
        assert part.good + len(part.errors) == part.count
        values += part.tensors["x"].tolist() if part.good else []
        at += part.count
    assert at == rows.first_row + rows.count
    assert values == rows.tensors["x"].tolist()
    assert [error for part in whole for error in part.errors] == list(rows.errors)


def test_rows_that_fail_all_have_errors() -> None:
    old = RowError(11, "/0", "is empty", "missing_field")
    rows = Rows(10, 3, {"x": np.ones((2, 1))}, np.array([0, 2]), (old,)).failed("backend_rejected", "no")
    assert (rows.good, rows.tensors) == (0, {})
    assert [(error.row, error.code) for error in rows.errors] == [
        (10, "backend_rejected"),
        (11, "missing_field"),
        (12, "backend_rejected"),
    ]
    assert rows.errors[1].text() == "missing_field: /0: is empty"
    assert RowError.from_json(old.to_json()) == old


@pytest.mark.parametrize("in_memory", [True, False])
def test_ranges_give_what_is_asked_or_fail(in_memory: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    ranges: Ranges = BytesRanges(b"0123456789") if in_memory else FileRanges(path)
    assert (ranges.size, ranges.read(2, 3), list(ranges.stream(1, 7, 3))) == (10, b"234", [b"123", b"456", b"7"])
    with pytest.raises(InvalidRequest):
        ranges.read(8, 3)
    with pytest.raises(InvalidRequest):
        list(ranges.stream(8, 3, 2))
    file = RangesFile(ranges)
    assert (file.readable(), file.seekable(), file.seek(-3, io.SEEK_END), file.read(2), file.tell()) == (
        True,
        True,
        7,
        b"78",
        9,
    )
    assert (file.read(), file.read(5), file.seek(1), file.seek(2, io.SEEK_CUR)) == (b"9", b"", 1, 3)


@pytest.mark.parametrize(
    ("name", "media_type", "kind"),
    [
        ("a/b.c/data.CSV", "", FileType("csv")),
        ("data.csv.gz", "application/gzip", FileType("csv", packed=True)),
        ("data.ndjson", "text/csv", FileType("jsonl")),
        ("data.npy.gz", "", FileType("npy", packed=True)),
        ("data", "text/csv; charset=utf-8", FileType("csv")),
        ("data.gz", "application/x-ndjson", FileType("jsonl", packed=True)),
        ("data", "application/vnd.apache.parquet", FileType("parquet")),
    ],
)
def test_types_by_name_or_content_type(name: str, media_type: str, kind: FileType) -> None:
    assert file_type(name, media_type) == kind
    assert file_type(f"x{kind.suffix}") == kind
    assert kind.packed or file_type("x", kind.media_type) == kind
