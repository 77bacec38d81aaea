"""Parquet files whose metadata and pages are made by hand, as no writer makes them."""

import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.codecs.batch.parquet_headers import Cursor, next_page
from shared.codecs.batch.ranges import BytesRanges
from shared.domain.errors import InvalidRequest

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
DOUBLE, BYTE_ARRAY = 5, 6
GZIP, PLAIN_CODEC = 2, 0
PLAIN, RLE, PREFIXES = 0, 3, 7


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else -number * 2 - 1)


def struct(*fields: tuple[int, int, Any]) -> bytes:
    """Fields as (id, type, value); a value of bytes is what is written already."""
    out = io.BytesIO()
    for at, kind, value in fields:
        out.write(bytes([kind]) + zigzag(at))
        if kind in (I32, I64):
            out.write(zigzag(value))
        elif kind == BINARY:
            out.write(varint(len(value)) + value)
        else:
            out.write(value)
    return out.getvalue() + b"\0"


def many(kind: int, values: Sequence[bytes]) -> bytes:
    return bytes([0xF0 | kind]) + varint(len(values)) + b"".join(values)


def header(kind: int, unpacked: int, packed: int, inner: bytes) -> bytes:
    where = {0: 5, 2: 7, 3: 8}[kind]
    return struct((1, I32, kind), (2, I32, unpacked), (3, I32, packed), (where, STRUCT, inner))


def page(content: bytes, values: int, encoding: int = PLAIN, *, claimed: int | None = None) -> bytes:
    """A data page of version 1, packed by gzip."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(content) + packer.flush()
    inner = struct((1, I32, values), (2, I32, encoding), (3, I32, RLE), (4, I32, RLE))
    return header(0, len(content) if claimed is None else claimed, len(packed), inner) + packed


def dictionary(content: bytes, values: int, *, claimed: int | None = None) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(content) + packer.flush()
    inner = struct((1, I32, values), (2, I32, PLAIN))
    return header(2, len(content) if claimed is None else claimed, len(packed), inner) + packed


def run(level: int, count: int) -> bytes:
    """Levels that are all the same, of one bit."""
    return varint(count << 1) + bytes([level])


def levels(*runs: bytes) -> bytes:
    joined = b"".join(runs)
    return len(joined).to_bytes(4, "little") + joined


@dataclass
class Column:
    """A column of a forged file; `unpacked` and `packed` are what the metadata says of `pages`."""

    name: str
    pages: bytes
    values: int
    kind: int = DOUBLE
    unpacked: int | None = None
    packed: int | None = None
    repeated: bool = False
    start: int | None = None
    extra: Iterable[tuple[int, int, Any]] = field(default_factory=tuple)


def claimed_in(pages: bytes) -> int:
    """What the headers of pages say in all."""
    cursor, claimed = Cursor(BytesRanges(pages), 0, len(pages)), 0
    while cursor.at < len(pages):
        try:
            found = next_page(cursor, len(pages), "")
        except InvalidRequest:  # the file is refused for that
            break
        claimed += found.unpacked
        cursor.skip(found.packed)
    return claimed


def elements(column: Column) -> list[bytes]:
    """A column's places in the schema: a leaf, or a list of required elements."""
    name = column.name.encode()
    if not column.repeated:
        return [struct((1, I32, column.kind), (3, I32, 0), (4, BINARY, name))]
    return [
        struct((3, I32, 0), (4, BINARY, name), (5, I32, 1), (6, I32, 3)),
        struct((3, I32, 2), (4, BINARY, b"list"), (5, I32, 1)),
        struct((1, I32, column.kind), (3, I32, 0), (4, BINARY, b"element")),
    ]


def forged(*columns: Column, rows: int, group_rows: int | None = None, codec: int = GZIP) -> bytes:
    """A file of one row group."""
    body = io.BytesIO(b"PAR1")
    body.seek(4)
    chunks: list[bytes] = []
    for column in columns:
        start = body.tell() if column.start is None else column.start
        body.write(column.pages)
        path = [column.name.encode(), *([b"list", b"element"] if column.repeated else [])]
        packed = len(column.pages) if column.packed is None else column.packed
        told = struct(
            (1, I32, column.kind),
            (2, LIST, many(I32, [zigzag(PLAIN)])),
            (3, LIST, many(BINARY, [varint(len(part)) + part for part in path])),
            (4, I32, codec),
            (5, I64, column.values),
            (6, I64, claimed_in(column.pages) if column.unpacked is None else column.unpacked),
            (7, I64, packed),
            (9, I64, start),
            *column.extra,
        )
        chunks.append(struct((2, I64, start), (3, STRUCT, told)))
    group = struct((1, LIST, many(STRUCT, chunks)), (2, I64, 1), (3, I64, rows if group_rows is None else group_rows))
    root = struct((4, BINARY, b"schema"), (5, I32, len(columns)))
    schema = [root, *(each for column in columns for each in elements(column))]
    return ended(
        body.getvalue(),
        struct((1, I32, 1), (2, LIST, many(STRUCT, schema)), (3, I64, rows), (4, LIST, many(STRUCT, [group]))),
    )


def ended(body: bytes, footer: bytes) -> bytes:
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"
