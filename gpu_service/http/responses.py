"""The bytes of an answer's head."""

from functools import lru_cache
from http import HTTPStatus

JSON = "application/json"


@lru_cache(maxsize=256)
def prefix(status: int, media_type: str) -> bytes:
    """The first lines of a head, up to the value of Content-Length."""
    phrase = HTTPStatus(status).phrase
    kind = f"Content-Type: {media_type}\r\n" if media_type else ""
    return f"HTTP/1.1 {status} {phrase}\r\n{kind}Content-Length: ".encode("latin-1")


@lru_cache(maxsize=64)
def stream_prefix(status: int, media_type: str) -> bytes:
    """The first lines of the head of an answer in chunks (RFC 9112, section 7.1)."""
    phrase = HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked".encode("latin-1")
