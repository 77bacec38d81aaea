"""Parquet files: parts are row groups, or slices of large ones. Source: Apache Parquet's format, "File format"."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.codecs.batch.parquet_columns import ParquetReader, table_of_schema
from shared.codecs.batch.ranges import Ranges, RangesFile
from shared.codecs.batch.rows import Rows, gather
from shared.domain.batch_formats import Bounds, PartSpec
from shared.domain.dtypes import DType
from shared.domain.errors import EmptyBatch, InvalidRequest, PayloadTooLarge
from shared.domain.signature import Signature

_FOOTER = 64 << 20  # bytes that the footer may have
_BUFFERS = 16 << 20
_BUFFER = 64 << 10, 1 << 20
_END = b"PAR1"
_RECORDS = 1 << 16
_RECORDS_OF_TEXT = 1 << 10  # nothing tells how large those are that a file repeats
_RECORD_BYTES = 8 << 20


def inspect_parquet(ranges: Ranges, signature: Signature, bounds: Bounds) -> dict[str, Any]:
    """Whether the columns fit the model; raises InvalidRequest."""
    with opened(ranges) as file:
        table_of_schema(file.schema_arrow, signature)
        if not file.metadata.num_rows:
            raise EmptyBatch("The file holds no row.")
        if file.metadata.num_rows > bounds.max_rows:
            raise PayloadTooLarge(f"The file has {file.metadata.num_rows} rows; the limit is {bounds.max_rows}.")
        return {"rows": file.metadata.num_rows}


def plan_parquet(ranges: Ranges, bounds: Bounds) -> Iterator[PartSpec]:
    """The parts: `extra` has the first row group, the number of groups, and the rows of the first that come before."""
    with opened(ranges) as file:
        groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        columns = file.metadata.num_columns
    first = 0
    for number, (group, count, skip, rows) in enumerate(_spans(sizes, bounds)):
        if number >= bounds.max_parts:
            raise PayloadTooLarge(f"The file has more than {bounds.max_parts} parts.")
        yield PartSpec(number, first, rows, 0, 0, {"group": group, "groups": count, "skip": skip, "columns": columns})
        first += rows


def _spans(sizes: list[tuple[int, int]], bounds: Bounds) -> Iterator[tuple[int, int, int, int]]:
    """Groups taken together, or slices of one: the first, how many, the rows that come before, and the rows."""
    most_rows = max(bounds.target_rows, -(-sum(rows for rows, _ in sizes) * 4 // bounds.max_parts))
    most_bytes = bounds.part_bytes(sum(size for _, size in sizes))
    start = rows = held = 0
    for at, (count, size) in enumerate(sizes):
        if rows and (rows + count > most_rows or held + size > most_bytes):
            yield start, at - start, 0, rows
            start, rows, held = at, 0, 0
        pieces = min(max(-(-count // most_rows), size // most_bytes), count)
        if pieces < 2:
            rows, held = rows + count, held + size
            continue
        for piece in range(pieces):
            skip = piece * count // pieces
            yield at, 1, skip, (piece + 1) * count // pieces - skip
        start = at + 1
    if rows:
        yield start, len(sizes) - start, 0, rows


def read_parquet(ranges: Ranges, part: PartSpec, signature: Signature, batch_rows: int) -> Iterator[Rows]:
    """The rows of a part."""
    import pyarrow as pa

    size = batch_rows if signature.batched else 1
    has_text = any(spec.dtype is DType.BYTES for spec in signature.inputs)
    with opened(ranges, part.extra["columns"], by_dictionary=has_text) as file:
        table = table_of_schema(file.schema_arrow, signature)
        reader = ParquetReader(table)
        groups = list(range(part.extra["group"], part.extra["group"] + part.extra["groups"]))
        skip, row, end = part.extra["skip"], part.first_row, part.first_row + part.rows
        try:
            for batch in file.iter_batches(
                batch_size=_records(file, groups, size, _RECORDS_OF_TEXT if has_text else _RECORDS),
                row_groups=groups,
                use_threads=False,
            ):
                chosen = batch.slice(min(skip, batch.num_rows))
                skip -= batch.num_rows - chosen.num_rows
                chosen = chosen.slice(0, end - row)
                for block in gather(reader.read(chosen), batched=signature.batched):
                    yield from block.batches(row, size, batched=signature.batched)
                    row += block.count
                if row == end:
                    return
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"The file is damaged: {str(error)[:200]}") from error


def _records(file: Any, groups: list[int], batch_rows: int, most: int) -> int:
    """How many rows are decoded at once: some batches of the model, as far as they take a bounded memory."""
    metadata = [file.metadata.row_group(at) for at in groups]
    rows = sum(group.num_rows for group in metadata)
    # What is encoded well may be far smaller than what it stands for: a value takes eight bytes, and a list has many.
    values = sum(group.column(at).num_values for group in metadata for at in range(group.num_columns))
    row_bytes = max(sum(group.total_byte_size for group in metadata), 8 * values) // max(rows, 1) or 1
    return int(max(min(most, _RECORD_BYTES // row_bytes), min(batch_rows, 64), 1))


@contextmanager
def opened(ranges: Ranges, columns: int = 64, *, by_dictionary: bool = False) -> Iterator[Any]:
    """A file whose metadata is read, with buffers for so many columns; InvalidRequest if it is no Parquet file.

    With `by_dictionary`, texts come as dictionaries: what a file holds once and repeats in a million rows, in a few
    bytes, is in memory once, too.
    """
    import pyarrow as pa
    from pyarrow import parquet

    end = ranges.read(ranges.size - len(_END) - 4, len(_END) + 4) if ranges.size > 2 * len(_END) + 4 else b""
    if end[4:] != _END or int.from_bytes(end[:4], "little") > _FOOTER:
        raise InvalidRequest("The file is no Parquet file, or has a footer that is too large.")
    low, high = _BUFFER
    options = {"buffer_size": min(max(_BUFFERS // columns, low), high), "pre_buffer": False}
    try:
        file = parquet.ParquetFile(pa.PythonFile(RangesFile(ranges), mode="r"), **options)
        if by_dictionary and (texts := _texts(file.schema)):
            source = pa.PythonFile(RangesFile(ranges), mode="r")
            file = parquet.ParquetFile(source, metadata=file.metadata, read_dictionary=texts, **options)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"The file is no Parquet file: {str(error)[:200]}") from error
    try:
        yield file
    finally:
        file.close()


def _texts(schema: Any) -> list[str]:
    """The paths of the columns that hold texts."""
    columns = [schema.column(at) for at in range(len(schema.names))]
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
