"""The head of a request: parsed once, and remembered while clients send the very same bytes again.

A client that keeps its connection repeats its headers byte for byte. Equal bytes mean an equal head, so the parser and
all that follows from the head alone (route, media types, custom attributes) need not run again.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

MAX_HEAD_BYTES = 32 * 1024
_MAX_KEPT_BYTES = 2048
_MAX_KEPT = 512
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.]+\]|(?:[-\w.~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?", re.ASCII)
# What differs from request to request: such heads would only push out the others.
_PASSING = ("x-request-id", "traceparent")


class Head:
    """Method, target and headers (names in lower case; of a name given twice the values are joined by commas).

    `prepared` is what the route's door made of it, kept with the head.
    """

    __slots__ = (
        "content_length",
        "headers",
        "is_http_1_1",
        "keep_alive",
        "method",
        "params",
        "path",
        "prepared",
        "query",
        "route",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: Mapping[str, str],
        *,
        content_length: int,
        keep_alive: bool,
        is_http_1_1: bool = True,
    ) -> None:
        path, _, query = target.decode("latin-1").partition("?")
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.content_length = content_length
        self.keep_alive = keep_alive
        self.is_http_1_1 = is_http_1_1
        self.route: Any = None
        self.params: Mapping[str, str] = {}
        self.prepared: Any = None


class HeadCache:
    """Heads by their bytes; bounded, emptied when full."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self.get = self._heads.get

    def keep(self, raw: bytes, head: Head, lines: int) -> None:
        """Remember `head` for the bytes `raw`, which end with the first empty line, if that is sure to be its end.

        `lines` is how many header lines the parser found: had it seen another end than this, they would differ.
        """
        if raw[:1] in (b"\r", b"\n"):
            return  # empty lines before a request: these bytes are not the whole of its head
        if len(raw) > _MAX_KEPT_BYTES or raw.count(b"\r\n") != lines + 2 or raw.count(b"\n") != lines + 2:
            return
        headers = head.headers
        if "transfer-encoding" in headers or "expect" in headers or "upgrade" in headers or not head.keep_alive:
            return
        if any(name in headers for name in _PASSING):
            return
        if "request-id=" in headers.get("x-amzn-sagemaker-custom-attributes", ""):
            return
        if len(self._heads) >= _MAX_KEPT:
            self._heads.clear()
        self._heads[raw] = head


def origin_form(target: bytes) -> bytes:
    """A request target without the scheme and authority that it may begin with (RFC 9112, section 3.2.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def is_host_valid(headers: Sequence[tuple[bytes, bytes]], *, required: bool) -> bool:
    """Whether there is at most one Host header, exactly one if `required`, with a value that it may have.

    Source: RFC 9112, section 3.2, and RFC 3986, section 3.2.2.
    """
    hosts = [value for name, value in headers if name.lower() == b"host"]
    return (len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None) or not (hosts or required)


def segment(text: str) -> str:
    """A path segment with its percent-encoding taken off once."""
    return unquote(text, errors="replace")
