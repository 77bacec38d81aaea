"""Batch files of all formats: what a file holds, its parts, their rows, and the answer in the same format.

`inspect` and `plan` look at a file once; each part is then read and answered by itself, in any process, and `join`
makes one file of the parts' answers. All of it takes a few blocks of memory, whatever the file's size. A format's own
module, and Arrow, are loaded when they are first needed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from shared.codecs.batch.answers import PartWriter, check_answer
from shared.codecs.batch.cutting import Store, cut_text
from shared.codecs.batch.gzip_stream import pack
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.rows import Rows
from shared.domain.batch_formats import Bounds, FileType, Layout, PartSpec
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature

__all__ = ["Joined", "PartWriter", "check_answer", "inspect", "join", "part_writer", "plan", "read"]

_PIECE = 1 << 20
_DEFAULT = Bounds()


def inspect(ranges: Ranges, kind: FileType, signature: Signature, bounds: Bounds = _DEFAULT) -> Layout:
    """What all parts of a file have in common, by its head.

    Raises InvalidRequest where the file as a whole is nothing for this model; EmptyBatch if it holds no row.
    """
    if kind.format == "csv":
        from shared.codecs.batch.csv_file import inspect_csv

        return Layout(kind, inspect_csv(ranges, kind, signature, bounds))
    if kind.format == "jsonl":
        from shared.codecs.batch.lines_file import inspect_lines

        return Layout(kind, inspect_lines(ranges, kind, bounds))
    if kind.format == "npy":
        from shared.codecs.batch.npy_file import inspect_npy

        return Layout(kind, inspect_npy(ranges, kind, signature, bounds))
    from shared.codecs.batch.parquet_file import inspect_parquet

    return Layout(kind, inspect_parquet(ranges, signature, bounds))


def plan(ranges: Ranges, layout: Layout, bounds: Bounds = _DEFAULT, store: Store | None = None) -> Iterator[PartSpec]:
    """The parts in order, in one pass over the file.

    The content of a packed file goes to `store(number, content)`, each part before it is yielded. Raises
    InvalidRequest for a row that is too long, PayloadTooLarge for too many rows or bytes.
    """
    kind = layout.type
    if kind.packed and store is None:
        raise ValueError("the parts of a packed file must be stored")
    store = store if kind.packed else None
    if kind.format in ("csv", "jsonl"):
        return cut_text(ranges, kind, layout.details["start"], bounds, store)
    if kind.format == "npy":
        from shared.codecs.batch.npy_file import plan_npy

        return plan_npy(ranges, kind, layout.details, bounds, store)
    from shared.codecs.batch.parquet_file import plan_parquet

    return plan_parquet(ranges, bounds)


def read(ranges: Ranges, layout: Layout, part: PartSpec, signature: Signature, batch_rows: int) -> Iterator[Rows]:
    """The rows of a part in order, at most `batch_rows` at once; `ranges` are of the stored part if the file is packed.

    The signature's own bound is not looked at: how many rows run at once is the caller's choice. Rows without an axis
    come one by one. Raises InvalidRequest if the file does not hold what was planned.
    """
    expected = part.first_row
    for rows in _read(ranges, layout, part, signature, batch_rows):
        if rows.first_row != expected:
            raise InvalidRequest(f"Row {expected} (from 0) was expected, and {rows.first_row} is there.")
        expected += rows.count
        yield rows
    if expected != part.first_row + part.rows:
        found = expected - part.first_row
        raise InvalidRequest(f"The file has changed: part {part.number} has {found} rows, and had {part.rows}.")


def _read(ranges: Ranges, layout: Layout, part: PartSpec, signature: Signature, batch_rows: int) -> Iterator[Rows]:
    kind, details = layout.type, layout.details
    if kind.format == "csv":
        from shared.codecs.batch.csv_file import read_csv

        return read_csv(ranges, kind, details, part, signature, batch_rows)
    if kind.format == "jsonl":
        from shared.codecs.batch.lines_file import read_lines

        return read_lines(ranges, kind, part, signature, batch_rows)
    if kind.format == "npy":
        from shared.codecs.batch.npy_file import read_npy

        return read_npy(ranges, details, part, signature, batch_rows)
    from shared.codecs.batch.parquet_file import read_parquet

    return read_parquet(ranges, details, part, signature, batch_rows)


def part_writer(sink: BinaryIO, layout: Layout, signature: Signature) -> PartWriter:
    """Writes the answer to one part, for `join`."""
    if layout.type.format == "csv":
        from shared.codecs.batch.csv_answers import CsvWriter

        return CsvWriter(sink, signature)
    if layout.type.format == "parquet":
        from shared.codecs.batch.parquet_answers import ParquetPartWriter

        return ParquetPartWriter(sink, signature)
    from shared.codecs.batch.answers import LinesWriter, NpyWriter

    return LinesWriter(sink, signature) if layout.type.format == "jsonl" else NpyWriter(sink, signature)


class Joined:
    """The bytes of an answer in pieces; `size` and `sha256` (hex) are those of what was taken so far."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._digest = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        while not piece:
            piece = next(self._pieces)
        self._digest.update(piece)
        self.size += len(piece)
        return piece

    @property
    def sha256(self) -> str:
        """Of all pieces so far."""
        return self._digest.hexdigest()


def join(parts: Sequence[Ranges], layout: Layout, signature: Signature, rows: int) -> Joined:
    """One file of the answers to all parts, in their order; it is packed if the file that it answers was."""
    pieces = _joined(parts, layout, signature, rows)
    return Joined(pack(pieces) if layout.type.packed else pieces)


def _joined(parts: Sequence[Ranges], layout: Layout, signature: Signature, rows: int) -> Iterator[bytes]:
    if layout.type.format == "parquet":
        from shared.codecs.batch.parquet_answers import join_parquet

        yield from join_parquet(parts, signature)
        return
    if layout.type.format == "csv" and layout.details["header"]:
        from shared.codecs.batch.csv_answers import csv_header

        yield csv_header(signature)
    elif layout.type.format == "npy":
        from shared.codecs.batch.npy_file import output_header

        yield output_header(signature.outputs[0], rows)
    for part in parts:
        yield from part.stream(0, part.size, _PIECE)
