"""The SHA-256 of a file, on the way of what is read from it anyway."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from shared.codecs.batch.ranges import Ranges

_CHUNK: Final = 1024 * 1024


class HashedRanges:
    """Ranges that hash what is streamed in order, and read the rest for it at the end."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._hash = sha256()
        self._hashed = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return self._ranges.size

    def read(self, offset: int, length: int) -> bytes:
        """See `Ranges`."""
        return self._ranges.read(offset, length)

    def stream(self, offset: int, length: int, chunk: int) -> Iterator[bytes]:
        """See `Ranges`."""
        at = offset
        for piece in self._ranges.stream(offset, length, chunk):
            self._note(at, piece)
            at += len(piece)
            yield piece

    def rest(self) -> Iterator[None]:
        """Read what was not streamed, a piece at a time, so that the caller can stop."""
        for piece in self._ranges.stream(self._hashed, self.size - self._hashed, _CHUNK):
            self._hash.update(piece)
            self._hashed += len(piece)
            yield

    @property
    def sha256(self) -> str:
        """The digest in hexadecimal, of all of the file once `rest` has ended."""
        return self._hash.hexdigest()

    def _note(self, at: int, piece: bytes) -> None:
        if self._hashed < at <= self._hashed + _CHUNK:  # a head that was not streamed
            self._hash.update(self._ranges.read(self._hashed, at - self._hashed))
            self._hashed = at
        end = at + len(piece)
        if at <= self._hashed < end:
            self._hash.update(memoryview(piece)[self._hashed - at :])
            self._hashed = end
