"""Parquet files: parts are row groups, or slices of large ones. Source: Apache Parquet's format, "File format"."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shared.codecs.batch.parquet_columns import ParquetReader, table_of_schema
from shared.codecs.batch.parquet_footer import Group, footer_length, read_groups
from shared.codecs.batch.parquet_pages import rows_at_once
from shared.codecs.batch.ranges import Ranges, RangesFile
from shared.codecs.batch.rows import Rows, gather
from shared.domain.batch_formats import Bounds, PartSpec
from shared.domain.errors import EmptyBatch, InvalidRequest, PayloadTooLarge
from shared.domain.signature import Signature

_BUFFERS = 16 << 20
_BUFFER = 64 << 10, 1 << 20
_RECORDS = 1 << 16
_RECORD_BYTES = 8 << 20


def inspect_parquet(ranges: Ranges, signature: Signature, bounds: Bounds) -> dict[str, Any]:
    """Whether the columns fit the model, and how many rows are decoded at once; raises InvalidRequest.

    Arrow allocates whatever a file claims. So the whole of it is looked at here, before anything is decoded.
    """
    groups = read_groups(ranges)
    with opened(ranges) as file:
        table_of_schema(file.schema_arrow, signature)
        if not file.metadata.num_rows:
            raise EmptyBatch("The file holds no row.")
        if file.metadata.num_rows > bounds.max_rows:
            raise PayloadTooLarge(f"The file has {file.metadata.num_rows} rows; the limit is {bounds.max_rows}.")
        return {"rows": file.metadata.num_rows, "at_once": _at_once(ranges, groups, file)}


def _at_once(ranges: Ranges, groups: list[Group], file: Any) -> int:
    import pyarrow as pa

    try:
        return rows_at_once(ranges, groups, file)
    except (pa.ArrowException, OSError, IndexError, UnicodeError) as error:
        raise InvalidRequest(f"The file is damaged: {str(error)[:200]}") from error


def plan_parquet(ranges: Ranges, bounds: Bounds) -> Iterator[PartSpec]:
    """The parts.

    `extra` has the first row group, the number of groups, the rows of the first that come before, the number of
    columns, and the bytes of a row in the mean.
    """
    groups = read_groups(ranges)
    sizes = [(each.rows, each.unpacked) for each in groups]
    columns = len(groups[0].columns) if groups else 0
    first = 0
    for number, (group, count, skip, rows) in enumerate(_spans(sizes, bounds)):
        if number >= bounds.max_parts:
            raise PayloadTooLarge(f"The file has more than {bounds.max_parts} parts.")
        extra = {"group": group, "groups": count, "skip": skip, "columns": columns}
        extra["row_bytes"] = _row_bytes(groups[group : group + count])
        yield PartSpec(number, first, rows, 0, 0, extra)
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


def read_parquet(
    ranges: Ranges, details: Mapping[str, Any], part: PartSpec, signature: Signature, batch_rows: int
) -> Iterator[Rows]:
    """The rows of a part."""
    import pyarrow as pa

    size = batch_rows if signature.batched else 1
    with opened(ranges, part.extra["columns"]) as file:
        table = table_of_schema(file.schema_arrow, signature)
        reader = ParquetReader(table)
        groups = list(range(part.extra["group"], part.extra["group"] + part.extra["groups"]))
        skip, row, end = part.extra["skip"], part.first_row, part.first_row + part.rows
        try:
            for batch in file.iter_batches(
                batch_size=min(_records(part.extra["row_bytes"], size), details["at_once"]),
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
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise InvalidRequest(f"The file is damaged: {str(error)[:200]}") from error


def _row_bytes(groups: list[Group]) -> int:
    """What a row takes in the mean."""
    rows = sum(group.rows for group in groups)
    # What is encoded well may be far smaller than what it stands for: a value takes eight bytes, and a list has many.
    size = max(sum(group.unpacked for group in groups), 8 * sum(group.values for group in groups))
    return size // max(rows, 1) or 1


def _records(row_bytes: int, batch_rows: int) -> int:
    """How many rows are decoded at once: some batches of the model, as far as most of them take a bounded memory."""
    return max(min(_RECORDS, _RECORD_BYTES // row_bytes), min(batch_rows, 64), 1)


@contextmanager
def opened(ranges: Ranges, columns: int = 64) -> Iterator[Any]:
    """A file whose metadata is read, with buffers for so many columns; InvalidRequest if it is no Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    footer_length(ranges)
    low, high = _BUFFER
    options = {"buffer_size": min(max(_BUFFERS // columns, low), high), "pre_buffer": False}
    try:
        file = parquet.ParquetFile(pa.PythonFile(RangesFile(ranges), mode="r"), **options)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InvalidRequest(f"The file is no Parquet file: {str(error)[:200]}") from error
    try:
        yield file
    finally:
        file.close()
