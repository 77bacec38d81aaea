"""JSON documents from untrusted bytes: limits first, then one fast parser.

Source of the format: RFC 8259. `NaN` and `Infinity` are not JSON; they get an error of their own, because they are the
commonest reason why a Python client's body is refused.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from shared.domain.errors import NotFinite, NotJson, PayloadTooLarge, TextTooLong, TooDeep, UnknownField


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Bounds that hold before a byte is parsed: bytes of the body, nesting of arrays and objects, number of values.

    Arrays and objects count as values too. Commas and brackets in strings count as well: that saves a look at each.
    `max_string` bounds the bytes between two quotes, escapes as they are written. The bytes of `{"b64": …}` are bounded
    by the body alone: an encoded image is as long as it is, and has limits of its own where it is decoded.
    """

    max_bytes: int = 6 * 1024 * 1024
    max_depth: int = 32
    max_values: int = 2_000_000
    max_string: int = 1024 * 1024


_ALL_BUT_MARKS = bytes(set(range(256)) - set(b",[{"))  # what is left: one for each value but the first
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level down, one level up
_B64_BEFORE = re.compile(rb'"b64"[ \t\r\n]*:[ \t\r\n]*\Z')
_NEAR = 64  # bytes before a string in which the name of its member is looked for
_NOT_A_NUMBER = re.compile(r"\b(NaN|Infinity|inf|nan)\b")


def loads(body: bytes, limits: JsonLimits) -> Any:
    """Parse `body`; raises PayloadTooLarge, TooDeep, TextTooLong, NotFinite or NotJson.

    Where an object holds a name twice, the last one counts, as in most parsers; see `refuse_repeats`.
    """
    check_limits(body, limits)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        around = error.doc[max(error.pos - 1, 0) : error.pos + 10]
        if "infinity" in error.msg or _NOT_A_NUMBER.search(around):
            raise NotFinite(f"The body holds a number that is NaN, infinite or out of range at {place}.") from None
        raise NotJson(f"The body is not JSON: {error.msg.split(':')[0]} at {place}.") from None


def check_limits(body: bytes, limits: JsonLimits) -> None:
    """Raise PayloadTooLarge, TooDeep or TextTooLong for a body over the limits, without parsing it."""
    if len(body) > limits.max_bytes:
        raise PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {limits.max_bytes}.")
    marks = body.translate(None, _ALL_BUT_MARKS)
    if len(marks) >= limits.max_values:
        raise PayloadTooLarge(f"The body holds more than {limits.max_values} values.")
    # The number of opening brackets bounds the depth: most bodies need no closer look.
    if len(marks) - marks.count(b",") > limits.max_depth and _depth(body) > limits.max_depth:
        raise TooDeep(f"Arrays and objects are nested deeper than the limit of {limits.max_depth}.")
    if len(body) > limits.max_string:
        _check_strings(body, limits.max_string)


def refuse_repeats(body: bytes, names: Iterable[str]) -> None:
    """Raise UnknownField if an object of the document in `body` holds one of `names` twice.

    The parser keeps the last value only, so rows of the caller would be dropped in silence.
    """
    # A name may be written with escapes: then only a second parse can tell.
    escaped = b"\\" in body
    suspects = {name for name in names if escaped or body.count(b'"%s"' % name.encode()) > 1}
    if not suspects:
        return

    def check(members: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in members:
            if name in seen and name in suspects:
                raise UnknownField.at("", f'"{name}" is given twice in one object')
            seen.add(name)

    json.loads(body, object_pairs_hook=check)


def dumps(document: Any) -> bytes:
    """Encode a document; NumPy arrays (C-contiguous) and scalars are written natively, NaN and infinity as null."""
    return orjson.dumps(document, default=_scalar, option=orjson.OPT_SERIALIZE_NUMPY)


def _scalar(value: Any) -> Any:
    """NumPy scalars that the encoder does not know: C's `long long`, which ONNX Runtime gives for INT64."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _check_strings(body: bytes, limit: int) -> None:
    """Raise TextTooLong for a string of more than `limit` bytes that is no `b64`.

    Such a string covers a whole stride of the body without a quote, so only one place in each stride is looked at.
    """
    if b"\\" in body:
        body = body.replace(rb"\\", b"__").replace(rb"\"", b"__")  # places stay
    stride = limit // 2 + 1
    seen = inside = begin = 0
    for start in range(0, len(body), stride):
        if start < begin or body.find(b'"', start, start + stride) >= 0:
            continue
        open_quote = body.rfind(b'"', 0, start)
        end = body.find(b'"', start)
        begin = len(body) if end < 0 else end
        # Whether the run between the two quotes is a string or what stands between strings.
        inside += body.count(b'"', seen, open_quote + 1)
        seen = open_quote + 1
        is_string = inside % 2 == 1 and end >= 0
        if is_string and end - seen > limit and not _B64_BEFORE.search(body, max(open_quote - _NEAR, 0), open_quote):
            raise TextTooLong(f"The body holds a string of {end - seen} bytes; the limit is {limit}.")


def _depth(body: bytes) -> int:
    # Without escaped backslashes and quotes, every second piece between quotes is outside of strings. A regular
    # expression for strings is slower, and quadratic on one that never ends unless written with great care.
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(body.split(b'"')[::2])
    steps = np.frombuffer(outside.translate(_STEPS, _ALL_BUT_BRACKETS), dtype=np.int8)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))
