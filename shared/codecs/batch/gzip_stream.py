"""gzip as a stream, in and out. Source: RFC 1952; several members one after the other are one file."""

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from shared.domain.batch_formats import Bounds
from shared.domain.errors import InvalidRequest, PayloadTooLarge

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 20
_LEVEL = 1  # predictions are numbers: higher levels take several times as long for a few percent
_SLACK = 1 << 20  # bytes that any file may unpack to, however small it is
# An empty member has 20 bytes and takes 20 to 40 µs, as 10 KB of content do: a gigabyte of them takes half an hour. So
# many take 40 s at most. Those who pack in blocks of 64 KiB, to find them again, have a quarter of that in 16 GiB.
_MOST_MEMBERS = 1 << 20


def unpack(pieces: Iterable[bytes], bounds: Bounds) -> Iterator[bytes]:
    """The content in pieces of at most 1 MiB; it is never unpacked beyond the bounds.

    Raises PayloadTooLarge at the bounds' `max_unpacked` or `max_ratio`, or for too many members; InvalidRequest for
    what is damaged, cut off or followed by anything but zeros.
    """
    stream = zlib.decompressobj(_GZIP)
    taken = given = members = 0
    begun = ended = False
    for rest in chain(pieces, [b""]):  # the last has the stream give what it holds back
        taken += len(rest)
        while rest or begun:
            if not begun:
                rest = rest.lstrip(b"\0") if ended else rest  # noqa: PLW2901 - padding after a member
                begun = bool(rest)
                members += begun
                if members > _MOST_MEMBERS:
                    raise PayloadTooLarge(f"The gzip file has more than {_MOST_MEMBERS} members: pack it as one.")
                continue
            content, rest = _step(stream, rest)  # noqa: PLW2901 - what is left of it
            given += len(content)
            if given > bounds.max_unpacked or given > taken * bounds.max_ratio + _SLACK:
                raise PayloadTooLarge(f"The file unpacks to more than may be read: {given} bytes of {taken} and more.")
            if content:
                yield content
            if stream.eof:
                stream, begun, ended = zlib.decompressobj(_GZIP), False, True
            elif not rest and not content:
                break
    if begun or not taken:
        raise InvalidRequest("The gzip file is cut off.")


def _step(stream: "zlib._Decompress", packed: bytes) -> tuple[bytes, bytes]:
    """The next content, and the bytes that are not yet read."""
    try:
        content = stream.decompress(packed, _PIECE)
    except zlib.error:
        raise InvalidRequest("The file is no gzip file, or it is damaged.") from None
    return content, stream.unused_data if stream.eof else stream.unconsumed_tail


def pack(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces as one gzip member."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        packed = stream.compress(piece)
        if packed:
            yield packed
    yield stream.flush()
