"""Where rows of text end. The ends of CSV are those that Python's `csv` module finds (RFC 4180, section 2)."""

import re

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

_LF, _CR, _QUOTE, _COMMA = b'\n\r",'
_IS_BREAK = np.zeros(256, np.bool_)
_IS_BREAK[[_LF, _CR]] = True
_IS_EDGE = np.zeros(256, np.bool_)
_IS_EDGE[[_LF, _CR, _QUOTE, _COMMA]] = True
_IS_SPACE = np.zeros(256, np.bool_)
_IS_SPACE[[_LF, _CR, 9, 32]] = True
# A cell and what ends it: a comma, a line break, or nothing, where the text is not complete.
_CELL = re.compile(
    rb'(?:"(?:[^"]++|"")*+(?:"|\Z)[^,\r\n]*+|[^",\r\n][^,\r\n]*+|)(?:,|(?P<end>\r\n|\n|\r)|\Z)', re.DOTALL
)


def csv_ends(text: bytes, *, final: bool) -> Places:
    """The offsets after the line breaks that end rows of CSV; `text` starts with a row.

    If it is `final`, what stands after the last of them is a row as well.
    """
    codes = np.frombuffer(text, np.uint8)
    if b'"' not in text:
        ends = _breaks(text, codes)
    elif well_quoted(text):
        ends = _breaks(text, codes)
        quotes = np.flatnonzero(codes == _QUOTE)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    else:
        ends = np.array([cell.end() for cell in _CELL.finditer(text) if cell["end"]], np.int64)
    return _closed(ends, text, final=final)


def line_ends(text: bytes, *, final: bool) -> Places:
    """The offsets after line feeds; as `csv_ends`."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _LF) + 1
    return np.append(ends, len(text)) if final and len(text) and not text.endswith(b"\n") else ends


def csv_filled(text: bytes, ends: Places) -> npt.NDArray[np.bool_]:
    """Which rows of CSV are no blank lines."""
    return ~_IS_BREAK[_first(text, ends)]


def lines_filled(text: bytes, ends: Places) -> npt.NDArray[np.bool_]:
    """Which lines hold more than spaces, tabs and carriage returns."""
    filled = ~_IS_SPACE[_first(text, ends)]
    for at in np.flatnonzero(~filled).tolist():
        start = int(ends[at - 1]) if at else 0
        filled[at] = bool(text[start : int(ends[at])].strip(b" \t\r\n"))
    return filled


def well_quoted(text: bytes) -> bool:
    """Whether each quoted cell begins and ends at its edges, so that every second quote opens one."""
    codes = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(codes == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]
    before = codes[opening[opening > 0] - 1]
    after = codes[closing[closing < len(codes) - 1] + 1]
    # A quote before an opening one is that which closed the text before it: the two stand for one quote in the cell.
    return bool(_IS_EDGE[before].all() and _IS_EDGE[after].all())


def _breaks(text: bytes, codes: npt.NDArray[np.uint8]) -> Places:
    """After each CR LF, LF, and CR without an LF; not after a CR at the very end, whose LF may be yet to come."""
    if b"\r" not in text or text.count(b"\r") == text.count(b"\r\n"):
        return np.flatnonzero(codes == _LF) + 1
    places = np.flatnonzero(_IS_BREAK[codes])
    last = len(codes) - 1
    follows = codes[np.minimum(places + 1, last)]
    ends: Places = places[(codes[places] == _LF) | ((follows != _LF) & (places < last))] + 1
    return ends


def _closed(ends: Places, text: bytes, *, final: bool) -> Places:
    if not final:
        return ends[:-1] if len(ends) and ends[-1] == len(text) and text.endswith(b"\r") else ends
    if text and not (len(ends) and ends[-1] == len(text)):
        return np.append(ends, len(text))
    return ends


def _first(text: bytes, ends: Places) -> npt.NDArray[np.uint8]:
    """The first character of each row."""
    starts = np.zeros(len(ends), np.int64)
    starts[1:] = ends[:-1]
    first: npt.NDArray[np.uint8] = np.frombuffer(text, np.uint8)[starts]
    return first
