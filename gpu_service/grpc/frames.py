"""Frames of HTTP/2, and the only bytes that a gRPC server repeats.

Source: RFC 9113, sections 4 to 7; gRPC, "gRPC over HTTP2".
"""

from enum import IntEnum
from struct import Struct

from gpu_service.grpc.hpack import literals

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9
MAX_FRAME = 16384
DEFAULT_WINDOW = 65535
MAX_WINDOW = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

# Length in 16 and 8 bits, type, flags, stream.
HEADER = Struct(">HBBBI")
SETTING = Struct(">HI")
_WORD = Struct(">I")


class Setting(IntEnum):
    """Parameters of SETTINGS."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFailure(Exception):
    """The peer broke the protocol or a bound in a way that ends the connection."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def window_update(stream: int, size: int) -> bytes:
    """Let the peer send `size` bytes more; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(size))


def reset(stream: int, code: ErrorCode) -> bytes:
    """End a stream at once."""
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def goaway(last_stream: int, code: ErrorCode, detail: str = "") -> bytes:
    """Take no streams above `last_stream`."""
    return frame(GOAWAY, 0, 0, _WORD.pack(last_stream) + _WORD.pack(code) + detail.encode("utf-8")[:256])


def settings(values: dict[Setting, int]) -> bytes:
    """What we ask of the peer."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*item) for item in values.items()))


RESPONSE_BLOCK = literals(
    [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,deflate,gzip"),
    ]
)
OK_BLOCK = literals([(b"grpc-status", b"0")])

# These frames up to their stream's number, which is all that is missing.
RESPONSE_HEAD = frame(HEADERS, END_HEADERS, 0, RESPONSE_BLOCK)[:5]
OK_HEAD = frame(HEADERS, END_HEADERS | END_STREAM, 0, OK_BLOCK)[:5]
