"""JSON Lines files: each line is an instance as in `shared.codecs.json_lines`, and is judged by itself."""

from collections.abc import Iterator
from typing import Any

import orjson

from shared.codecs.batch.cutting import blocks, content
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.rows import Block, Rows, bad_row, gather, reason, unbounded
from shared.codecs.json_documents import JsonLimits, check_limits
from shared.codecs.json_tensors import by_row
from shared.domain.batch_formats import Bounds, FileType, PartSpec
from shared.domain.errors import EmptyBatch, InvalidRequest, NotJson, UnsupportedMediaType
from shared.domain.signature import Signature
from shared.domain.validation import conform

_BLOCK = 1 << 20
_HEAD = 64 << 10
_MARK = b"\xef\xbb\xbf"
_LIMITS = JsonLimits(max_bytes=1 << 40, max_values=1 << 40)


def inspect_lines(ranges: Ranges, kind: FileType, bounds: Bounds) -> dict[str, Any]:
    """Where the lines begin; raises InvalidRequest for a file without any."""
    for block in blocks(content(ranges, kind, bounds, chunk=_HEAD), kind, bounds.max_line):
        if block.text.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UnsupportedMediaType("The file is in UTF-16; JSON is in UTF-8.")
        if block.count:
            return {"start": len(_MARK) if block.text.startswith(_MARK) else 0}
    raise EmptyBatch("The file holds no line.")


def read_lines(ranges: Ranges, kind: FileType, part: PartSpec, signature: Signature, batch_rows: int) -> Iterator[Rows]:
    """The rows of a part."""
    reader = _LineReader(unbounded(signature))
    size = batch_rows if signature.batched else 1
    row = part.first_row
    for block in blocks(ranges.stream(part.offset, part.length, _BLOCK), kind):
        lines = block.rows()
        pieces = -(-len(lines) // size)
        for piece in range(pieces):
            chosen = lines[piece * len(lines) // pieces : (piece + 1) * len(lines) // pieces]
            for found in gather(reader.read(chosen), batched=signature.batched):
                yield from found.batches(row, size, batched=signature.batched)
                row += found.count


class _LineReader:
    """Lines → tensors, many at once where all are good."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def read(self, lines: list[bytes]) -> Iterator[Block]:
        """The rows in order."""
        values: list[Any] = []
        bounded = _is_bounded(b"\n".join(lines))
        for line in lines:
            found = _parse(line, bounded=bounded)
            if isinstance(found, tuple):
                yield from self._blocks(values)
                yield bad_row(found)
                values = []
            else:
                values.append(found)
        yield from self._blocks(values)

    def _blocks(self, values: list[Any]) -> Iterator[Block]:
        """The rows of documents; where one is wrong, it is found by halving, and its neighbours are not."""
        if not values:
            return
        try:
            inputs = by_row(values, self._signature)
            yield Block(len(values), conform(inputs, self._signature), {})
        except InvalidRequest as error:
            if len(values) == 1:
                yield bad_row(reason(error, "/instances/0"))
                return
            middle = len(values) // 2
            yield from self._blocks(values[:middle])
            yield from self._blocks(values[middle:])


def _is_bounded(text: bytes) -> bool:
    """Whether all lines together are within the limits of depth and of strings, so each is."""
    try:
        check_limits(text, _LIMITS)
    except InvalidRequest:
        return False
    return True


def _parse(line: bytes, *, bounded: bool) -> Any:
    """The document on a line; a tuple says what is wrong with it."""
    try:
        if not bounded:
            check_limits(line, _LIMITS)
        return orjson.loads(line)
    except InvalidRequest as error:
        return reason(error)
    except orjson.JSONDecodeError as error:
        return "", f"is not JSON: {error.msg.split(':')[0]} at column {error.colno}", NotJson.code
