"""What the pages of a Parquet file stand for, before Arrow decodes them: it allocates whatever a header claims.

A few bytes may claim, or be, gigabytes: a page that was compressed, a list whose levels are a run, a text that repeats
another. Source: Apache Parquet's format, `parquet.thrift`, "Data pages" and "Encodings".
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shared.codecs.batch.parquet_columns import is_dictionary
from shared.codecs.batch.parquet_footer import Group
from shared.codecs.batch.parquet_headers import DICTIONARY, Cursor, Page, next_page
from shared.codecs.batch.parquet_levels import Records, longest_text, unpack
from shared.codecs.batch.ranges import Ranges
from shared.domain.errors import InvalidRequest, PayloadTooLarge

_MOST_PAGES: Final = 1 << 20
# The largest pages of all columns of a row group, which are in memory at once.
_PAGE_BYTES: Final = 192 << 20
# What rows that are decoded at once may take of a row group's columns, where one or two pages are not more.
_WINDOW_BYTES: Final = 64 << 20
_LIST_BYTES: Final = 8 << 20  # likewise, of what stands in the file once, or in a few bits
_SLACK: Final = 1 << 20
_VALUE: Final = 8
# What a text of a dictionary takes beside its bytes.
_TEXT: Final = 48
_PREFIXES: Final = 7  # a text of no bytes may be as long as all texts before it in its page
_BY_DICTIONARY: Final = frozenset({2, 8})
_ROW_VALUES: Final = 1 << 22
_MOST_ROWS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A column of a row group, as the file's metadata describes it."""

    start: int
    end: int
    group: int
    name: str
    rows: int
    values: int
    unpacked: int
    codec: str
    repeated: int
    has_text: bool
    collected: bool  # Arrow makes one dictionary of all texts of the row group, as the file's schema asks for it

    @property
    def many(self) -> bool:
        """Whether one row may have too many values: each has one at least, and what is beyond may be of one alone."""
        return self.values - self.rows >= _ROW_VALUES


@dataclass(slots=True)
class _Found:
    """What the pages of a chunk stand for; `values` and `costs` are of its data pages, in order.

    `largest` is the cost of the largest one, `dictionary` that of the dictionary, whose longest text has `text` bytes.
    `longest` are the values of the longest row, where that was looked for. `prefixed` are the bytes that a text may
    have since it repeats those before it, `apart` those of all texts that are not in the dictionary.
    """

    dictionary: int = 0
    largest: int = 0
    longest: int = 1
    prefixed: int = 0
    text: int = 0
    apart: int = 0
    pages: int = 0
    values: list[int] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)

    def add(self, page: Page) -> None:
        """Take in the next data page."""
        self.values.append(page.values)
        self.costs.append(page.cost)
        self.largest = max(self.largest, page.cost)
        self.apart += 0 if page.encoding in _BY_DICTIONARY else page.cost
        if page.encoding == _PREFIXES:
            self.prefixed = max(self.prefixed, page.unpacked)


def rows_at_once(ranges: Ranges, groups: Sequence[Group], file: Any) -> int:
    """How many rows may be decoded at once, by the headers of all pages; the columns are streamed once, in order.

    Raises InvalidRequest where pages are not what the metadata says, PayloadTooLarge where they stand for too much.
    """
    chunks = sorted(_chunks(groups, file), key=lambda chunk: chunk.start)
    if not chunks:
        return _MOST_ROWS
    cursor = Cursor(ranges, chunks[0].start, chunks[-1].end)
    held: dict[int, int] = defaultdict(int)
    columns = max(1, file.metadata.num_columns)
    pages = 0
    most = _MOST_ROWS
    for chunk in chunks:
        if chunk.start < cursor.at:
            raise InvalidRequest("The file is damaged: two columns are in one place.")
        cursor.skip(chunk.start - cursor.at)
        found = _look(cursor, chunk)
        held[chunk.group] += found.largest + found.dictionary + (found.apart if chunk.collected else 0)
        if held[chunk.group] > _PAGE_BYTES:
            limit = _PAGE_BYTES >> 20
            raise PayloadTooLarge(
                f"The pages of {chunk.name!r} are too large: those of all columns may have {limit} MB."
            )
        pages += found.pages
        if pages > _MOST_PAGES:
            raise _too_many_pages()
        most = min(most, _rows(chunk, found, columns))
    return most


def _chunks(groups: Sequence[Group], file: Any) -> Iterator[_Chunk]:
    fields = list(file.schema_arrow)  # one column each: there are no structures
    leaves = [file.schema.column(at) for at in range(len(fields))]
    for number, group in enumerate(groups):
        if len(group.columns) != len(fields):
            raise InvalidRequest("The file is damaged: a row group has not all columns.")
        for column, leaf, named in zip(group.columns, leaves, fields, strict=True):
            repeated = leaf.max_repetition_level
            if column.values < group.rows or (column.values > group.rows and not repeated):
                raise InvalidRequest("The file is damaged: a column has not as many values as there are rows.")
            yield _Chunk(
                start=column.start,
                end=column.end,
                group=number,
                name=named.name[:100],
                rows=group.rows,
                values=column.values,
                unpacked=column.unpacked,
                codec=column.codec,
                repeated=repeated,
                has_text=leaf.physical_type == "BYTE_ARRAY",
                collected=is_dictionary(named.type),
            )
    if sum(group.rows for group in groups) != file.metadata.num_rows:
        raise InvalidRequest("The file is damaged: it has not as many rows as it says.")


def _look(cursor: Cursor, chunk: _Chunk) -> _Found:
    """Go through the pages of a chunk, until all of its values were seen."""
    found = _Found()
    seen = unpacked = 0
    records = Records(chunk.repeated, chunk.codec) if chunk.repeated and (chunk.many or chunk.has_text) else None
    while seen < chunk.values:
        page = next_page(cursor, chunk.end, chunk.name)
        found.pages += 1
        if found.pages > _MOST_PAGES:
            raise _too_many_pages()
        unpacked += page.unpacked
        if page.packed > chunk.end - cursor.at or unpacked > chunk.unpacked:
            raise InvalidRequest(f"The file is damaged: the pages of {chunk.name!r} are larger than its column.")
        if page.cost > _PAGE_BYTES:
            limit = _PAGE_BYTES >> 20
            raise PayloadTooLarge(f"A page of {chunk.name!r} is too large: it may have {limit} MB.")
        if page.kind == DICTIONARY:
            _dictionary(cursor, chunk, page, found)
            continue
        if not page.has_data:
            cursor.skip(page.packed)
            continue
        seen += page.values
        if seen > chunk.values:
            raise InvalidRequest(f"The file is damaged: {chunk.name!r} has more values than it says.")
        found.add(page)
        if records is None:
            cursor.skip(page.packed)
        else:
            records.add(cursor.take(page.packed), page.unpacked, page.values, page.levels)
    if chunk.unpacked > 2 * (unpacked + chunk.end - chunk.start) + _SLACK:  # parts are cut by it
        raise InvalidRequest(f"The file is damaged: the pages of {chunk.name!r} are smaller than its column.")
    if records is not None:
        found.longest = records.longest()
        if found.longest > _ROW_VALUES:
            raise PayloadTooLarge(f"A row of {chunk.name!r} has more than {_ROW_VALUES} values.")
    return found


def _dictionary(cursor: Cursor, chunk: _Chunk, page: Page, found: _Found) -> None:
    """Pages of values are small where these stand in another one."""
    found.dictionary += page.cost
    if not chunk.has_text:
        cursor.skip(page.packed)
        return
    found.dictionary += _TEXT * page.values
    if found.dictionary > _PAGE_BYTES:
        raise PayloadTooLarge(f"The dictionary of {chunk.name!r} is too large: it may have {_PAGE_BYTES >> 20} MB.")
    plain = unpack(cursor.take(page.packed), page.unpacked, chunk.codec)
    found.text = max(found.text, longest_text(plain, page.values))


def _too_many_pages() -> PayloadTooLarge:
    return PayloadTooLarge(f"The file has more than {_MOST_PAGES} pages: cut it into several.")


def _rows(chunk: _Chunk, found: _Found, columns: int) -> int:
    """How many rows at once take a bounded memory in this column, wherever they are; PayloadTooLarge if not one does.

    `found.longest` is known of lists that are many or of texts.
    """
    rows = _MOST_ROWS
    if chunk.many:
        rows = max(1, min(rows, _LIST_BYTES // (_VALUE * found.longest * columns)))
    if not chunk.has_text:
        return rows
    most = max(_WINDOW_BYTES // columns, 2 * found.largest)
    repeated = found.text * found.longest
    prefixed = found.prefixed * found.longest
    if max(repeated, prefixed, _heaviest(found, found.longest)) > max(most, _PAGE_BYTES):
        raise PayloadTooLarge(f"A row of {chunk.name!r} is too large: it may have {_PAGE_BYTES >> 20} MB.")
    rows = max(1, min(rows, _LIST_BYTES // (max(repeated, prefixed, 1) * columns)))
    while rows > 1 and _heaviest(found, rows * found.longest) > most:
        rows //= 2
    return rows


def _heaviest(found: _Found, values: int) -> int:
    """What the pages cost that so many values in a row are in, at most."""
    most = cost = inside = first = 0
    for at, (count, size) in enumerate(zip(found.values, found.costs, strict=True)):
        # `inside` are the values of the pages between the first and this one: all of them are among those.
        while first < at and inside >= values:
            cost -= found.costs[first]
            first += 1
            inside -= found.values[first] if first < at else 0
        cost += size
        inside += count if at > first else 0
        most = max(most, cost)
    return most
