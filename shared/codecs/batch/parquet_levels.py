"""How long the longest record of a repeated column is, by its repetition levels, and the longest text of a dictionary.

Source: Apache Parquet's format, "Encodings": "Plain", and "Run Length Encoding / Bit-Packing Hybrid". Level 0 begins a
record.
"""

from typing import Final

import numpy as np

from shared.domain.errors import InvalidRequest, PayloadTooLarge

_CODECS: Final = {"SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd", "LZ4": "lz4_raw"}
_PLAIN: Final = "UNCOMPRESSED"
_LENGTH: Final = 4
_FEW: Final = 64  # levels that are looked at without NumPy
# Runs of all pages of a column: each takes some microseconds.
_MOST_RUNS: Final = 1 << 25


class Records:
    """Counts the values of records over the pages of a column, in order."""

    def __init__(self, levels: int, codec: str) -> None:
        self._codec = codec
        self._width = levels.bit_length()
        self._longest = 0
        self._open = 0
        self._runs = 0

    def add(self, content: bytes, unpacked: int, values: int, levels: int | None) -> None:
        """A page's content, as it is stored; `levels` are the bytes of the levels before it, None for the old form.

        Raises InvalidRequest for what is damaged.
        """
        if levels is None:
            plain = unpack(content, unpacked, self._codec)
            start, end = _LENGTH, _LENGTH + int.from_bytes(plain[:_LENGTH], "little")
        else:
            plain, start, end = content, 0, levels
        if len(plain) < end:
            raise _damaged()
        self._levels(plain, start, end, values)

    def longest(self) -> int:
        """Values of the longest record, once all pages were added."""
        return max(self._longest, self._open)

    def _levels(self, data: bytes, at: int, end: int, left: int) -> None:
        width = self._width
        while left:
            header = shift = 0
            while True:
                if at >= end or shift > 28:
                    raise _damaged()
                byte = data[at]
                header |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
            self._runs += 1
            count = min(left, (header >> 1) * (8 if header & 1 else 1))
            taken = (header >> 1) * width if header & 1 else -(-width // 8)
            if not count or at + taken > end:
                # A last group may be cut after the bytes that its values need.
                taken = min(taken, end - at)
                if not count or taken * 8 < count * width:
                    raise _damaged()
            run = data[at : at + taken]
            if header & 1:
                self._packed(run, count)
            else:
                self._run(count, begins=not any(run))
            at, left = at + taken, left - count
        if self._runs > _MOST_RUNS:
            raise PayloadTooLarge("The levels of a column of lists are too many: cut the file into several.")

    def _run(self, count: int, *, begins: bool) -> None:
        if begins:
            self._longest = max(self._longest, self._open)
            self._open = 1
        else:
            self._open += count

    def _packed(self, run: bytes, count: int) -> None:
        if self._width == 1 and count <= _FEW:
            self._few(~int.from_bytes(run, "little") & (1 << count) - 1, count)
            return
        bits = np.unpackbits(np.frombuffer(run, np.uint8), bitorder="little")[: count * self._width]
        starts = np.flatnonzero(~bits.reshape(count, self._width).any(axis=1))
        if not len(starts):
            self._open += count
            return
        inner = int(np.diff(starts).max()) if len(starts) > 1 else 0
        self._longest = max(self._longest, self._open + int(starts[0]), inner)
        self._open = count - int(starts[-1])

    def _few(self, begins: int, count: int) -> None:
        """Bits that are set where a record begins; of records within, all that matters is that they are short."""
        if not begins:
            self._open += count
            return
        first, last = (begins & -begins).bit_length() - 1, begins.bit_length() - 1
        self._longest = max(self._longest, self._open + first, last - first)
        self._open = count - last


def longest_text(plain: bytes, count: int) -> int:
    """Bytes of the longest of so many texts, each behind its length; InvalidRequest if they end early."""
    at = longest = 0
    for _ in range(count):
        length = int.from_bytes(plain[at : at + _LENGTH], "little")
        at += _LENGTH + length
        longest = max(longest, length)
    if at > len(plain):
        raise InvalidRequest("The file is damaged: a dictionary ends early.")
    return longest


def unpack(content: bytes, size: int, codec: str) -> bytes:
    """A page's content as it was before it was compressed; InvalidRequest for what is damaged, or of no known codec."""
    import pyarrow as pa

    if codec == _PLAIN:
        return content
    if codec not in _CODECS:
        raise InvalidRequest(f"Lists and texts that are compressed as {codec} are not read: write them as ZSTD.")
    try:
        plain: bytes = pa.Codec(_CODECS[codec]).decompress(content, decompressed_size=size, asbytes=True)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"The file is damaged: {str(error)[:200]}") from error
    return plain


def _damaged() -> InvalidRequest:
    return InvalidRequest("The file is damaged: the levels of a column of lists end early.")
