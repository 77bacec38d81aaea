"""CSV files (RFC 4180, UTF-8, with or without a byte order mark): their layout, their parts and their rows."""

from collections.abc import Iterator, Mapping
from typing import Any

from shared.codecs.batch.csv_blocks import CsvReader
from shared.codecs.batch.csv_table import CsvTable, table_from, table_of
from shared.codecs.batch.cutting import blocks, content
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.rows import Block, Rows, bad_row, gather
from shared.domain.batch_formats import Bounds, FileType, PartSpec
from shared.domain.errors import EmptyBatch, UnsupportedMediaType
from shared.domain.signature import Signature

_MARK = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_HEAD = 64 << 10


def inspect_csv(ranges: Ranges, kind: FileType, signature: Signature, bounds: Bounds) -> dict[str, Any]:
    """The header row and the number of columns, and where rows begin; raises InvalidRequest."""
    head = _head(content(ranges, kind, bounds, chunk=_HEAD))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnsupportedMediaType("The file is in UTF-16; batches read CSV in UTF-8.")
    start = len(_MARK) if head.startswith(_MARK) else 0
    offset = start
    for block in blocks(content(ranges, kind, bounds, start, _HEAD), kind, bounds.max_line):
        if not block.count:
            offset += len(block.text)
            continue
        first = block.rows()[0]
        table = table_of(first, signature)
        if table.header:
            offset += int(block.ends[int(block.filled.argmax())])
        return {"header": table.header.decode(), "width": table.columns.width, "start": offset}
    raise EmptyBatch("The file holds no row.")


def _head(pieces: Iterator[bytes]) -> bytes:
    head = b""
    while len(head) < len(_MARK) and (piece := next(pieces, b"")):
        head += piece
    return head


def read_csv(
    ranges: Ranges, kind: FileType, details: Mapping[str, Any], part: PartSpec, signature: Signature, batch_rows: int
) -> Iterator[Rows]:
    """The rows of a part."""
    table = table_from(details, signature)
    reader = CsvReader(table) if signature.batched else None
    row = part.first_row
    pieces = ranges.stream(part.offset, part.length, _BLOCK)
    for block in blocks(pieces, kind):
        found = (_alone(table, text) for text in block.rows()) if reader is None else reader.read(block)
        for joined in gather(found, batched=signature.batched):
            yield from joined.batches(row, batch_rows, batched=signature.batched)
            row += joined.count


def _alone(table: CsvTable, text: bytes) -> Block:
    found = table.strict(text)
    return bad_row(found) if isinstance(found, tuple) else Block(1, found, {})
