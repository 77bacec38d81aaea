"""Events of a CloudWatch Logs subscription.

Source: AWS Lambda Developer Guide, "Using Lambda with CloudWatch Logs": `awslogs.data` is a gzip'd JSON document in
base64; a `CONTROL_MESSAGE` only probes the destination.
"""

import zlib
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.domain.request_line import LogBatch, LogEvent

_GZIP = 31
# The year 2100: what is later is no time in milliseconds, and may be none that a datetime can hold.
_LATEST_MS = 4_102_444_800_000


class NotALogEvent(ValueError):
    """The event is not one that CloudWatch Logs sends, or it is too large."""


class _Line(msgspec.Struct):
    id: str
    timestamp: Annotated[int, Meta(ge=0, lt=_LATEST_MS)]
    message: str


class _Data(msgspec.Struct, rename="camel"):
    message_type: str
    log_group: str = ""
    log_stream: str = ""
    log_events: list[_Line] = []


_decode = msgspec.json.Decoder(_Data).decode


def read_event(event: Mapping[str, Any], max_bytes: int) -> LogBatch | None:
    """The lines of an event of at most `max_bytes` bytes decompressed; None for a control message.

    Raises NotALogEvent.
    """
    match event:
        case {"awslogs": {"data": str() as text}}:
            content = _unpack(text, max_bytes)
        case _:
            raise NotALogEvent("The event has no awslogs.data: only CloudWatch Logs may invoke this function.")
    try:
        data = _decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise NotALogEvent(f"The event's data is not a batch of log events: {error}") from error
    if data.message_type != "DATA_MESSAGE":
        return None
    return LogBatch(
        data.log_group,
        data.log_stream,
        [
            LogEvent(line.id, datetime.fromtimestamp(line.timestamp / 1000, UTC), line.message)
            for line in data.log_events
        ],
    )


def _unpack(text: str, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        content = unpacker.decompress(b64decode(text, validate=True), max_bytes + 1)
    except (ValueError, zlib.error) as error:
        raise NotALogEvent("The event's data is not gzip in base64.") from error
    if len(content) > max_bytes:
        raise NotALogEvent(f"The event's data has more than {max_bytes} bytes (SLUICE_MAX_BATCH_BYTES).")
    if not unpacker.eof:
        raise NotALogEvent("The event's data ends too early.")
    return content
