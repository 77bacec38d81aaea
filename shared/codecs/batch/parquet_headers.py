"""The headers of the pages of a Parquet file, read in passing. Source: Apache Parquet's format, `parquet.thrift`."""

from dataclasses import dataclass
from typing import Final

from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.thrift import CompactReader, CutOff, Fields, Malformed
from shared.domain.errors import InvalidRequest

_CHUNK: Final = 1 << 20
_HEADER: Final = 4 << 10  # a page's header has some 30 bytes, and its statistics
_MOST_HEADER: Final = 1 << 20
_DATA: Final = 0
DICTIONARY: Final = 2
_DATA_V2: Final = 3
_INNER: Final = {_DATA: 5, DICTIONARY: 7, _DATA_V2: 8}  # the field that describes a page of this kind
# What a text takes beside its bytes in a page of an encoding that has the lengths of all texts first.
_LENGTH: Final = 8
_LENGTHS_FIRST: Final = frozenset({6, 7})  # DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY


@dataclass(slots=True)
class Page:
    """A page by its header; `levels` are the bytes of the repetition levels where they stand before all else."""

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int
    levels: int | None

    @property
    def has_data(self) -> bool:
        """Whether it holds values of rows."""
        return self.kind in (_DATA, _DATA_V2)

    @property
    def cost(self) -> int:
        """Bytes of memory while the page is decoded."""
        return max(self.unpacked, self.packed) + (self.values * _LENGTH if self.encoding in _LENGTHS_FIRST else 0)


class Cursor:
    """The bytes of a span of the file, in order."""

    def __init__(self, ranges: Ranges, start: int, end: int) -> None:
        self._pieces = ranges.stream(start, end - start, _CHUNK)
        self._held = b""
        self._used = 0
        self.at = start

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer where the span ends."""
        while len(self._held) - self._used < count:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._held = self._held[self._used :] + piece
            self._used = 0
        return self._held[self._used : self._used + count]

    def take(self, count: int) -> bytes:
        """The next bytes, which are in the span."""
        parts = []
        left = count
        while left:
            part = self.peek(min(left, _CHUNK))
            parts.append(part)
            self.skip(len(part))
            left -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Go on, within the span."""
        self.at += count
        while count > len(self._held) - self._used:
            count -= len(self._held) - self._used
            self._held, self._used = next(self._pieces), 0
        self._used += count


def next_page(cursor: Cursor, end: int, name: str) -> Page:
    """The header of the next page of the column `name`, which ends at `end`; InvalidRequest for none."""
    wanted = _HEADER
    left = end - cursor.at
    while True:
        data = cursor.peek(min(wanted, left))
        reader = CompactReader(data)
        try:
            page = _page(reader.struct())
        except CutOff as error:
            if len(data) < wanted or wanted >= _MOST_HEADER:
                raise _damaged(name, error) from None
            wanted *= 16
            continue
        except Malformed as error:
            raise _damaged(name, error) from None
        cursor.skip(reader.at)
        return page


def _damaged(name: str, error: Malformed) -> InvalidRequest:
    return InvalidRequest(f"The file is damaged: the header of a page of {name!r}: {error}.")


def _page(fields: Fields) -> Page:
    kind, unpacked, packed = (_number(fields, at) for at in (1, 2, 3))
    inner = fields.get(_INNER.get(kind, 0))
    if kind not in _INNER:
        return Page(kind, unpacked, packed, 0, 0, None)
    if not isinstance(inner, dict):
        raise Malformed("a page does not say what it holds")
    values = _number(inner, 1)
    if kind == DICTIONARY:
        if values > unpacked:
            raise Malformed("a dictionary has less bytes than values")
        return Page(kind, unpacked, packed, values, 0, None)
    levels = _number(inner, 6) if kind == _DATA_V2 else None
    return Page(kind, unpacked, packed, values, _number(inner, 4 if kind == _DATA_V2 else 2), levels)


def _number(fields: Fields, at: int) -> int:
    value = fields.get(at)
    if type(value) is not int or value < 0:
        raise Malformed("a number is missing, or negative")
    return value
