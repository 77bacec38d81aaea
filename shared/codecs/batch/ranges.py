"""Bytes of a file that lies elsewhere, by ranges."""

import io
from collections.abc import Iterator
from pathlib import Path

from shared.domain.batch_formats import Ranges
from shared.domain.errors import InvalidRequest

__all__ = ["BytesRanges", "FileRanges", "Ranges", "RangesFile", "check_length"]


class BytesRanges:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """See `Ranges`."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """See `Ranges`."""
        return check_length(self._data[offset : offset + length], length)

    def stream(self, offset: int, length: int, chunk: int) -> Iterator[bytes]:
        """See `Ranges`."""
        for start in range(offset, offset + length, chunk):
            yield self.read(start, min(chunk, offset + length - start))


class FileRanges:
    """A local file, opened for each call, so that threads share nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size

    @property
    def size(self) -> int:
        """See `Ranges`."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """See `Ranges`."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return check_length(file.read(length), length)

    def stream(self, offset: int, length: int, chunk: int) -> Iterator[bytes]:
        """See `Ranges`."""
        with self._path.open("rb") as file:
            file.seek(offset)
            left = length
            while left:
                piece = check_length(file.read(min(chunk, left)), min(chunk, left))
                left -= len(piece)
                yield piece


def check_length(piece: bytes, length: int) -> bytes:
    """The piece; InvalidRequest if it is shorter: the file was cut off, or is another one than it was."""
    if len(piece) != length:
        raise InvalidRequest(f"The file ends early: {length} bytes were to be read, and {len(piece)} are there.")
    return piece


class RangesFile(io.RawIOBase):
    """A readable, seekable file over ranges, for libraries that read files."""

    def __init__(self, ranges: Ranges) -> None:
        super().__init__()
        self._ranges = ranges
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ranges.size}[whence]
        self._at = min(max(base + offset, 0), self._ranges.size)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; all that are left if it is negative."""
        left = self._ranges.size - self._at
        length = left if size is None or size < 0 else min(size, left)
        piece = self._ranges.read(self._at, length) if length else b""
        self._at += length
        return piece
