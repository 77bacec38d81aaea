"""A text file cut into parts of whole rows in one pass, its blocks of whole rows, and its parts' blocks."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shared.codecs.batch.gzip_stream import unpack
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.row_ends import Places, csv_ends, csv_filled, line_ends, lines_filled
from shared.domain.batch_formats import Bounds, FileType, PartSpec
from shared.domain.errors import InvalidRequest, PayloadTooLarge

Filled = npt.NDArray[np.bool_]
Store = Callable[[int, bytes], None]

CHUNK = 1 << 20
_PACKED_PART = 16 << 20


class TextBlock:
    """Whole rows of text; where they end is looked for when it is asked."""

    def __init__(self, text: bytes, kind: FileType, ends: Places | None = None) -> None:
        self.text = text
        self._kind = kind
        if ends is not None:
            self.ends = ends

    @cached_property
    def ends(self) -> Places:
        """The offsets after the rows."""
        return (csv_ends if self._kind.format == "csv" else line_ends)(self.text, final=True)

    @cached_property
    def filled(self) -> Filled:
        """Which rows are no blank lines."""
        return (csv_filled if self._kind.format == "csv" else lines_filled)(self.text, self.ends)

    @property
    def count(self) -> int:
        """How many rows hold data."""
        return int(np.count_nonzero(self.filled))

    def pieces(self, cuts: int) -> Iterator["TextBlock"]:
        """The block in so many pieces with about as many lines each; those that hold a row."""
        start = first = 0
        for piece in range(1, cuts + 1):
            last = piece * len(self.ends) // cuts
            end = int(self.ends[last - 1]) if last else 0
            part = TextBlock(self.text[start:end], self._kind, self.ends[first:last] - start)
            if part.count:
                yield part
            start, first = end, last

    def of(self, text: bytes) -> "TextBlock":
        """Other rows of the same kind."""
        return TextBlock(text, self._kind)

    def rows(self) -> list[bytes]:
        """The rows that hold data, without their line breaks."""
        starts = np.concatenate(([0], self.ends[:-1]))[self.filled].tolist()
        return [
            self.text[start:end].rstrip(b"\r\n")
            for start, end in zip(starts, self.ends[self.filled].tolist(), strict=True)
        ]


def content(ranges: Ranges, kind: FileType, bounds: Bounds, offset: int = 0, chunk: int = CHUNK) -> Iterator[bytes]:
    """The file's content from `offset` on, unpacked."""
    if not kind.packed:
        yield from ranges.stream(offset, ranges.size - offset, chunk)
        return
    for piece in unpack(ranges.stream(0, ranges.size, chunk), bounds):
        kept = piece[offset:]
        offset -= len(piece) - len(kept)
        if kept:
            yield kept


def blocks(pieces: Iterable[bytes], kind: FileType, max_line: int | None = None) -> Iterator[TextBlock]:
    """The text in blocks of whole rows; InvalidRequest for a row of more than `max_line` bytes."""
    rest = b""
    done = 0
    for piece in pieces:
        text = rest + piece if rest else piece
        block = _whole_rows(text, kind)
        rest = text[len(block.text) :] if block else text
        if max_line is not None:
            done += _checked(block, done, max_line) if block else 0
            if len(rest) > max_line:
                raise _too_long(done, max_line)
        if block is not None:
            yield block
    if rest:
        block = TextBlock(rest, kind)
        if max_line is not None:
            _checked(block, done, max_line)
        yield block


def _whole_rows(text: bytes, kind: FileType) -> TextBlock | None:
    """The rows of a text that are whole, None if none is."""
    if kind.format == "csv" and (b'"' in text or b"\r" in text):
        ends = csv_ends(text, final=False)
        return TextBlock(text[: int(ends[-1])], kind, ends) if len(ends) else None
    cut = text.rfind(b"\n") + 1
    return TextBlock(text[:cut], kind) if cut else None


def _checked(block: TextBlock, done: int, max_line: int) -> int:
    """How many rows of a block hold data; InvalidRequest if one is too long."""
    lengths = np.diff(block.ends, prepend=0)
    if lengths.max() > max_line:
        at = int(np.argmax(lengths > max_line))
        raise _too_long(done + int(np.count_nonzero(block.filled[:at])), max_line)
    return block.count


def _too_long(row: int, max_line: int) -> InvalidRequest:
    return InvalidRequest(
        f"Row {row} (from 0) has more than {max_line} bytes; does a quote open there that is never closed?"
    )


class Cutter:
    """Collects blocks into parts; with `store`, keeps their text and hands it over as each part is whole."""

    def __init__(self, bounds: Bounds, size: int, offset: int, store: Store | None) -> None:
        self._bounds = bounds
        self._store = store
        self._target = bounds.part_bytes(size) if store is None else min(bounds.target_bytes, _PACKED_PART)
        self._offset = offset
        self._number = 0
        self._first_row = 0
        self._bytes = 0
        self._rows = 0
        self._kept: list[bytes] = []

    def feed(self, block: TextBlock) -> Iterator[PartSpec]:
        """The parts that end in a block."""
        before = np.concatenate(([0], np.cumsum(block.filled)))
        row = start = 0
        while row < len(block.ends):
            growth = self._bounds.growth(self._number)
            size = self._target * (growth if self._store is None else 1)
            by_size = int(np.searchsorted(block.ends, start + size - self._bytes))
            wanted = self._bounds.target_rows * growth - self._rows
            by_rows = int(np.searchsorted(before, before[row] + wanted)) - 1
            last = max(min(by_size, by_rows), row)
            ends_here = last < len(block.ends)
            last = min(last, len(block.ends) - 1)
            end = int(block.ends[last])
            self._add(block.text, start, end, int(before[last + 1] - before[row]))
            if ends_here:
                yield from self.close()
            row, start = last + 1, end

    def close(self) -> Iterator[PartSpec]:
        """The part so far, if it holds a row."""
        if not self._rows:
            self._forget()
            return
        if self._number >= self._bounds.max_parts:
            raise PayloadTooLarge(f"The file has more than {self._bounds.max_parts} parts of {self._target} bytes.")
        part = PartSpec(self._number, self._first_row, self._rows, self._offset, self._bytes)
        if self._store is not None:
            self._store(self._number, b"".join(self._kept))
            part = PartSpec(self._number, self._first_row, self._rows, 0, self._bytes)
        self._number += 1
        self._first_row += self._rows
        self._forget()
        yield part

    def _add(self, text: bytes, start: int, end: int, rows: int) -> None:
        self._bytes += end - start
        self._rows += rows
        if self._first_row + self._rows > self._bounds.max_rows:
            raise PayloadTooLarge(f"The file has more than {self._bounds.max_rows} rows.")
        if self._store is not None:
            self._kept.append(text[start:end])

    def _forget(self) -> None:
        self._offset += self._bytes
        self._bytes = self._rows = 0
        self._kept = []


def cut_text(
    ranges: Ranges, kind: FileType, start: int, bounds: Bounds, store: Store | None = None
) -> Iterator[PartSpec]:
    """The parts of the rows from the offset `start` of the content on."""
    cutter = Cutter(bounds, ranges.size, start, store)
    for block in blocks(content(ranges, kind, bounds, start), kind, bounds.max_line):
        yield from cutter.feed(block)
    yield from cutter.close()
