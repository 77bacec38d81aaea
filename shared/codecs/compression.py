"""Content codings of HTTP bodies: gzip and deflate. Source: RFC 9110, sections 8.4 and 12.5.3; RFC 1950 and 1952.

A compressed body is read in steps and never beyond its bound, so a bomb costs no more memory than the bound itself.
"""

import zlib
from functools import lru_cache

from shared.codecs.media_types import parse_list
from shared.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

_GZIP = 16 + zlib.MAX_WBITS
_CODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}
_MAX_STACKED = 3
_MAX_MEMBERS = 64  # what follows a member is copied, so many small ones take long
_MIN_SIZE = 1024  # bytes: below a packet or so, compression saves nothing
_LEVEL = 1  # the answer of a model is numbers: higher levels take several times as long for a few percent


def decompress(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """The body without its content codings, at most `max_bytes` long after each of them.

    Raises PayloadTooLarge, InvalidRequest for what is damaged, cut off or followed by other bytes, UnsupportedMediaType
    for a coding that is not known.
    """
    for window in _codings(content_encoding):
        body = _inflate(body, window, max_bytes)
    return body


def compress(body: bytes, accept_encoding: str, min_size: int = _MIN_SIZE) -> tuple[bytes, str | None]:
    """The body in the coding that the client likes best, and its name; as it is, and None, where that is as good."""
    if len(body) < min_size:
        return body, None
    coding = _best_coding(accept_encoding)
    if coding is None:
        return body, None
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _CODINGS[coding])
    packed = packer.compress(body) + packer.flush()
    return (packed, coding) if len(packed) < len(body) else (body, None)


@lru_cache(maxsize=64)
def _codings(content_encoding: str) -> tuple[int, ...]:
    """The zlib windows of the codings, the last applied first."""
    names = [name for name in (part.strip().lower() for part in content_encoding.split(",")) if name != "identity"]
    names = [name for name in names if name]
    unknown = [name for name in names if name not in _CODINGS]
    if unknown:
        raise UnsupportedMediaType(f"The content coding {unknown[0][:100]!r} is not read here; send gzip or deflate.")
    if len(names) > _MAX_STACKED:
        raise UnsupportedMediaType(f"At most {_MAX_STACKED} content codings are read, not {len(names)}.")
    return tuple(_CODINGS[name] for name in reversed(names))


@lru_cache(maxsize=64)
def _best_coding(accept_encoding: str) -> str | None:
    qualities = {name: quality for name, _, quality in reversed(parse_list(accept_encoding))}
    others = qualities.get("*", 0.0)
    ranked = [(qualities.get(name, others), name) for name in ("gzip", "deflate")]
    quality, name = max(ranked, key=lambda item: item[0])
    return name if quality > 0 and quality >= qualities.get("identity", 0.0) else None


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = max_bytes
    rest = body
    for _ in range(_MAX_MEMBERS):
        piece, rest = _member(rest, window, left, max_bytes)
        pieces.append(piece)
        left -= len(piece)
        if not rest:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if window != _GZIP:
            raise InvalidRequest(f"The compressed body is followed by {len(rest)} other bytes.")
    raise InvalidRequest(f"The compressed body has more than {_MAX_MEMBERS} gzip members.")


def _member(body: bytes, window: int, left: int, max_bytes: int) -> tuple[bytes, bytes]:
    """The content of one stream, at most `left` bytes, and what follows it."""
    stream = zlib.decompressobj(window)
    try:
        piece = stream.decompress(body, left + 1)
        if len(piece) > left:
            raise PayloadTooLarge(f"The body has more than {max_bytes} bytes once it is decompressed.")
        if not stream.eof:
            # All may have been read but the check sum, which gives no more bytes.
            piece += stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error:
        raise InvalidRequest("The body is not in the content coding that its header says, or it is damaged.") from None
    if len(piece) > left:
        raise PayloadTooLarge(f"The body has more than {max_bytes} bytes once it is decompressed.")
    if not stream.eof:
        raise InvalidRequest("The compressed body is cut off.")
    return piece, stream.unused_data
