"""The footer of a Parquet file: its row groups and their columns, read without Arrow.

Arrow takes hundreds of times a footer's size for one that lists columns of which it tells nothing, and where a column's
metadata is malformed, pyarrow does not raise: the process ends. Source: Apache Parquet's format, `parquet.thrift`.
"""

from dataclasses import dataclass
from typing import Final

from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.thrift import CompactReader, Fields, Malformed, Wide
from shared.domain.errors import InvalidRequest

_MOST: Final = 32 << 20
_METADATA: Final = 512 << 20  # what it may take in memory
_END: Final = b"PAR1"
_LENGTH: Final = 4
_CODECS: Final = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4_HADOOP", "ZSTD", "LZ4")
_GROUPS: Final = (4,)
_COLUMNS: Final = (4, 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a row group: where its pages are, its values, its bytes before they were compressed."""

    start: int
    end: int
    values: int
    unpacked: int
    codec: str


@dataclass(frozen=True, slots=True)
class Group:
    """A row group."""

    rows: int
    columns: list[Column]

    @property
    def unpacked(self) -> int:
        """Bytes of all columns before they were compressed."""
        return sum(column.unpacked for column in self.columns)

    @property
    def values(self) -> int:
        """Values of all columns."""
        return sum(column.values for column in self.columns)


def footer_length(ranges: Ranges) -> int:
    """Bytes of the footer; InvalidRequest for a file without."""
    end = ranges.read(ranges.size - len(_END) - _LENGTH, len(_END) + _LENGTH) if ranges.size > 12 else b""
    length = int.from_bytes(end[:_LENGTH], "little")
    if end[_LENGTH:] != _END or length > min(_MOST, ranges.size - 2 * len(_END) - _LENGTH):
        raise InvalidRequest("The file is no Parquet file, or has a footer that is too large.")
    return length


def read_groups(ranges: Ranges) -> list[Group]:
    """The row groups; InvalidRequest for a footer that is none, or stands for too much."""
    length = footer_length(ranges)
    footer = ranges.read(ranges.size - len(_END) - _LENGTH - length, length)
    groups: list[Group] = []
    columns: list[Column] = []

    def seen(path: tuple[int, ...], fields: Fields) -> None:
        nonlocal columns
        if path == _COLUMNS:
            columns.append(_column(fields, ranges.size))
        elif path == _GROUPS:
            groups.append(Group(_number(fields, 3), columns))
            columns = []

    try:
        CompactReader(footer, budget=_METADATA, seen=seen).struct()
    except Malformed as error:
        raise InvalidRequest(f"The file's footer is damaged, or it describes too many columns: {error}.") from None
    return groups


def _column(fields: Fields, size: int) -> Column:
    told = fields.get(3)
    if not isinstance(told, dict) or 1 in fields:  # field 1 is another file's name
        raise Malformed("a column is in no place of the file")
    codec = told.get(4)
    if type(codec) is not int or not 0 <= codec < len(_CODECS):
        raise Malformed("a column is compressed in no known way")
    start, length, dictionary = _number(told, 9), _number(told, 7), told.get(11)
    if isinstance(dictionary, Wide) and 0 < dictionary < start:
        start = int(dictionary)
    if start + length > size:
        raise Malformed("a column is in no place of the file")
    return Column(start, start + length, _number(told, 5), _number(told, 6), _CODECS[codec])


def _number(fields: Fields, at: int) -> int:
    value = fields.get(at)
    if not isinstance(value, Wide) or value < 0:
        raise Malformed("a number is missing, or negative")
    return int(value)
