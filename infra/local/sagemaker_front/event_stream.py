"""Messages of `application/vnd.amazon.eventstream`.

A message is its length, the length of its headers and the CRC-32 of these two, the headers, the payload, and the
CRC-32 of all that; numbers are 4 bytes, big-endian. A header is the length of its name (1 byte), the name, the type
(7: text), the length of the value (2 bytes), and the value. Source: "Event stream encoding" of the AWS documentation
(Amazon Transcribe developer guide, Smithy's specification of `amazon.eventstream`).
"""

import json
import struct
from binascii import crc32
from collections.abc import Mapping
from typing import Final

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_TEXT: Final = 7


def payload_part(content: bytes) -> bytes:
    """The event PayloadPart."""
    headers = {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    return _message(headers, content)


def exception(kind: str, members: Mapping[str, str]) -> bytes:
    """An exception of the service model, after which the stream ends."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return _message(headers, json.dumps(members).encode())


def _message(headers: Mapping[str, str], payload: bytes) -> bytes:
    encoded = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = struct.pack("!II", 12 + len(encoded) + len(payload) + 4, len(encoded))
    prelude += struct.pack("!I", crc32(prelude))
    message = prelude + encoded + payload
    return message + struct.pack("!I", crc32(message))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack("!B", len(name)) + name + struct.pack("!BH", _TEXT, len(value)) + value
