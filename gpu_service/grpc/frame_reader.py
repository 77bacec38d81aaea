"""Reads frames: whole ones, in the order that HTTP/2 allows, headers decoded, frames that bring no work counted.

Source: RFC 9113, sections 3.4, 4 and 6; RFC 7541.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gpu_service.grpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADER,
    HEADER_SIZE,
    HEADERS,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    WITH_PRIORITY,
    ConnectionFailure,
    ErrorCode,
)
from gpu_service.grpc.head import Head, Malformed
from gpu_service.grpc.hpack import BadBlock, Decoder

if TYPE_CHECKING:
    from gpu_service.grpc.server import GrpcServer

MAX_HEADER_LIST = 16 * 1024
_MAX_BLOCK = 16 * 1024
_MAX_KEPT_BLOCK = 512
_MAX_KEPT_HEADS = 64
# Frames without work that a client may send in a second; each request and each frame of data sent earns some more.
_CREDIT = 2000
_EARNED = 4
_PRIORITY_SIZE = 5


class FrameReader(ABC):
    """`tick` is when something came, `began` when what is incomplete began (None: nothing is), in the server's seconds.

    The methods `on_…` are for what derives from it.
    """

    def __init__(self, server: "GrpcServer") -> None:
        self.server = server
        self.tick = server.tick
        self.began: int | None = server.tick
        self.settled = False
        self.stopped = False
        self._greeted = False
        self._rest = b""
        self._decoder = Decoder(MAX_HEADER_LIST)
        self._heads: dict[bytes, Head] = {}
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_flags = 0
        self._credit = _CREDIT

    def feed(self, data: bytes) -> None:
        """Handle the frames that are whole. Raises ConnectionFailure."""
        self.tick = self.server.tick
        if self._rest:
            data = self._rest + data
        position = self._frames(data)
        if position == len(data):
            self._rest = b""
            if self._block is None:
                self.began = None
        else:
            self._rest = data[position:]
            if self.began is None or (position and self._block is None):
                self.began = self.tick

    def earn(self) -> None:
        """Something was done that the client may acknowledge with frames that bring no work."""
        self._credit = min(self._credit + _EARNED, 2 * _CREDIT)

    def renew(self) -> None:
        """A second has passed."""
        self._credit = max(self._credit, _CREDIT)

    def spend(self, amount: int = 1) -> None:
        """Count what brings no work. Raises ConnectionFailure if it is too much."""
        self._credit -= amount
        if self._credit < 0:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring no work")

    @abstractmethod
    def on_data(self, number: int, flags: int, payload: bytes) -> None:
        """DATA, with its padding."""

    @abstractmethod
    def on_head(self, number: int, flags: int, head: Head | None) -> None:
        """HEADERS; None if they are not a request's."""

    @abstractmethod
    def on_control(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        """Any other frame."""

    def _frames(self, data: bytes) -> int:
        """Handle whole frames; how many bytes that took."""
        position, end = 0, len(data)
        if not self._greeted:
            if data[: len(PREFACE)] != PREFACE[:end]:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "this port speaks gRPC (HTTP/2 without TLS)")
            if end < len(PREFACE):
                return 0
            self._greeted = True
            position = len(PREFACE)
        unpack = HEADER.unpack_from
        while end - position >= HEADER_SIZE and not self.stopped:
            high, low, kind, flags, number = unpack(data, position)
            start = position + HEADER_SIZE
            position = start + (high << 8 | low)
            if position - start > MAX_FRAME:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame is larger than {MAX_FRAME} bytes")
            if position > end:
                return start - HEADER_SIZE
            number &= MAX_WINDOW
            if self._block is not None and (kind != CONTINUATION or number != self._block_stream):
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            if kind == DATA:
                self.on_data(number, flags, data[start:position])
            elif kind == HEADERS:
                self._on_headers(number, flags, data[start:position])
            else:
                self.spend()
                if kind == CONTINUATION:
                    self._on_continuation(flags, data[start:position])
                else:
                    self.on_control(kind, number, flags, data[start:position])
        return position

    def _on_headers(self, number: int, flags: int, payload: bytes) -> None:
        if not self.settled:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < _PRIORITY_SIZE:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            payload = payload[_PRIORITY_SIZE:]
        if flags & END_HEADERS:
            self._on_block(number, flags, payload)
            return
        self._block = bytearray(payload)
        self._block_stream, self._block_flags = number, flags
        if self.began is None:
            self.began = self.tick

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block += payload
        if len(self._block) > _MAX_BLOCK:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too large")
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._on_block(self._block_stream, self._block_flags, block)

    def _on_block(self, number: int, flags: int, block: bytes) -> None:
        if not number & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that is not the client's")
        try:
            head = self._heads.get(block) or self._decode(block)
        except Malformed:
            self.spend()
            self.on_head(number, flags, None)
        else:
            self.on_head(number, flags, head)

    def _decode(self, block: bytes) -> Head:
        """The head of a block; kept as long as equal blocks stand for equal headers."""
        changes = self._decoder.changes
        try:
            headers = self._decoder.decode(block)
        except BadBlock as error:
            raise ConnectionFailure(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        stable = self._decoder.changes == changes
        if not stable:
            self._heads.clear()
        head = self.server.head(headers)
        if stable and len(block) <= _MAX_KEPT_BLOCK:
            if len(self._heads) >= _MAX_KEPT_HEADS:
                self._heads.clear()
            self._heads[block] = head
        return head


def unpadded(payload: bytes) -> bytes:
    """A payload without its padding."""
    padding = payload[0] if payload else 0
    if padding >= len(payload):
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a frame is shorter than its padding")
    return payload[1 : len(payload) - padding]
