"""A client of HTTP/2 that says exactly what a test wants, frame by frame."""

import socket
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple, Self

from gpu_service.grpc.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Setting,
    frame,
    settings,
    window_update,
)
from gpu_service.grpc.hpack import Decoder, Header, literals

LIMIT_S = 20


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def message(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message."""
    return bytes((flag,)) + struct.pack(">I", len(data)) + data


def headers(path: str = "/echo", *more: Header) -> list[Header]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]


class Client:
    """Blocking; belongs to one test."""

    def __init__(self, port: int, *, greet: bool = True, own: Iterable[tuple[Setting, int]] = ()) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = Decoder(1 << 20)
        self.seen: list[Frame] = []
        self._rest = b""
        if greet:
            self.send(PREFACE + settings(dict(own)) + frame(SETTINGS, ACK, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def open(self, stream: int, path: str = "/echo", *more: Header, end: bool = False) -> None:
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream, literals(headers(path, *more))))

    def data(self, stream: int, payload: bytes, *, end: bool = True) -> None:
        """DATA in frames of the largest size that is allowed."""
        pieces = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
        for piece in pieces[:-1]:
            self.send(frame(DATA, 0, stream, piece))
        self.send(frame(DATA, END_STREAM if end else 0, stream, pieces[-1]))

    def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while True:
            if len(self._rest) >= 9:
                high, low, kind, flags, stream = HEADER.unpack_from(self._rest)
                end = 9 + (high << 8 | low)
                if len(self._rest) >= end:
                    got = Frame(kind, flags, stream, self._rest[9:end])
                    self._rest = self._rest[end:]
                    self.seen.append(got)
                    return got
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._rest += data

    def until(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind, on a stream."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            got = self.next()
            assert got is not None, f"the connection ended: {self.seen[-3:]}"
            if got.kind == kind and stream in (None, got.stream):
                return got
        raise AssertionError("the frame did not come")

    def answer(self, stream: int, *, grants: bool = True) -> tuple[int, bytes, dict[str, str]]:
        """Status, all DATA and the metadata of a stream; grants further data as it comes."""
        body = b""
        fields: dict[str, str] = {}
        while True:
            got = self.next()
            assert got is not None, f"the connection ended: {self.seen[-3:]}"
            if got.stream != stream:
                continue
            assert got.kind != RST_STREAM, got
            if got.kind == DATA:
                body += got.payload
                if grants and got.payload:
                    self.send(window_update(0, len(got.payload)) + window_update(stream, len(got.payload)))
            if got.kind == HEADERS:
                decoded = self.decoder.decode(got.payload)
                assert decoded is not None
                fields |= {name.decode(): value.decode() for name, value in decoded}
            if got.flags & END_STREAM and got.kind in (HEADERS, DATA):
                return int(fields["grpc-status"]), body, fields

    def call(self, stream: int, data: bytes, path: str = "/echo", *more: Header) -> tuple[int, bytes, dict[str, str]]:
        """A whole unary RPC."""
        self.open(stream, path, *more)
        self.data(stream, message(data))
        return self.answer(stream)

    def ping(self) -> None:
        """Return once the server has handled all that was sent."""
        self.send(frame(PING, 0, 0, b"12345678"))
        while self.until(PING).payload != b"12345678":
            pass

    def goaway(self) -> ErrorCode:
        """Why the server ends the connection; it must end then."""
        while True:
            got = self.until(GOAWAY)
            code = ErrorCode(int.from_bytes(got.payload[4:8]))
            if code is not ErrorCode.NO_ERROR:
                break
        while self.next() is not None:
            pass
        return code

    def windows(self) -> int:
        """How much the server has granted so far, on all streams."""
        return sum(int.from_bytes(got.payload) for got in self.seen if got.kind == WINDOW_UPDATE and got.stream)
