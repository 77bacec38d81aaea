"""One RPC on its HTTP/2 stream: messages in, messages out, a status at the end.

Source: gRPC, "gRPC over HTTP2"; RFC 9113, sections 5 and 6.9.
"""

from collections import deque
from typing import TYPE_CHECKING

from gpu_service.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    OK_BLOCK,
    OK_HEAD,
    RESPONSE_BLOCK,
    RESPONSE_HEAD,
    ErrorCode,
    frame,
    reset,
    window_update,
)
from gpu_service.grpc.hpack import literals
from gpu_service.grpc.status import RpcError, Status, failure, trailers
from shared.codecs.compression import decompress
from shared.domain.errors import SluiceError

if TYPE_CHECKING:
    from gpu_service.grpc.connection import Connection
    from gpu_service.grpc.head import Head
    from gpu_service.grpc.methods import Conversation
    from gpu_service.inference.request import InferenceRequest

RECEIVE_WINDOW = 1024 * 1024
_PREFIX = 5  # one byte says whether the message is compressed, four its length


class Stream:
    """Belongs to its connection. `request` is dropped from its queue when the caller goes away.

    `work` counts what was begun for it and is not finished: until that is 0 it takes one of the connection's places,
    even if the caller has reset it. `window` is what may be sent, `began` the tick of its headers.
    """

    __slots__ = (
        "_buffer",
        "_held",
        "_message",
        "_offset",
        "_out",
        "_received",
        "_started",
        "_trailers",
        "began",
        "closed",
        "connection",
        "conversation",
        "ended",
        "head",
        "id",
        "paused",
        "request",
        "status",
        "window",
        "work",
    )

    def __init__(self, connection: "Connection", number: int, head: "Head") -> None:
        self.connection = connection
        self.id = number
        self.head = head
        self.window = connection.initial_window
        self.began = connection.server.tick
        self.request: InferenceRequest | None = None
        self.conversation: Conversation | None = None
        self.work = 0
        self.ended = False
        self.closed = False
        self.paused = False
        self.status = Status.CANCELLED
        self._received = 0
        self._held = 0
        self._buffer: bytearray | None = None
        self._message: bytes | None = None
        self._out: deque[bytes] | None = None
        self._offset = 0
        self._trailers: bytes | None = None
        self._started = False

    # What the connection calls.

    def receive(self, payload: bytes, size: int) -> None:
        """Take a piece of the request; `size` is what it takes of the window."""
        self._received += size
        if self._received > RECEIVE_WINDOW:
            self.abort(ErrorCode.FLOW_CONTROL_ERROR)
            return
        if self._buffer is None and not self.paused:
            length = len(payload) - _PREFIX
            if length >= 0 and int.from_bytes(payload[1:_PREFIX]) == length:
                if length > self.connection.server.max_message_bytes:
                    self._too_large(length)
                else:
                    self._deliver(payload[0], payload[_PREFIX:])
                    self.grant()
                return
        self._hold(payload)
        self.cut()
        self.grant()

    def end(self) -> None:
        """The caller has said all."""
        self.ended = True
        if self.closed:
            return
        if self.conversation is not None:
            if not self.paused:
                self._finish_reading()
            return
        if self._buffer:
            self.fail(RpcError(Status.INTERNAL, "The request ends inside a message."))
        elif self._message is None:
            self.fail(RpcError(Status.INTERNAL, "The request holds no message."))
        else:
            message, self._message = self._message, None
            self.connection.server.begin(self, message)

    def cut(self) -> None:
        """Deliver the whole messages that have come, as long as they are wanted."""
        buffer, start = self._buffer, 0
        if buffer is None:
            return
        while not self.paused and not self.closed and len(buffer) - start >= _PREFIX:
            begin = start + _PREFIX
            length = int.from_bytes(buffer[start + 1 : begin])
            if length > self.connection.server.max_message_bytes:
                self._too_large(length)
                return
            if len(buffer) < begin + length:
                break
            with memoryview(buffer) as view:
                message = bytes(view[begin : begin + length])
            flag, start = buffer[start], begin + length
            self._deliver(flag, message)
        if self.closed:
            return
        if start == len(buffer):
            self._release()
        elif start:
            del buffer[:start]
            self.connection.server.release(start)
            self._held -= start

    def grant(self) -> None:
        """Let the caller send more once half of the window is used up, unless it should wait."""
        if self._received >= RECEIVE_WINDOW // 2 and not self.paused and not self.ended and not self.closed:
            self.connection.write(window_update(self.id, self._received))
            self._received = 0

    # What methods call.

    def reply(self, message: bytes) -> None:
        """Answer a unary RPC."""
        if self.closed:
            return
        self.status = Status.OK
        connection = self.connection
        size = len(message) + _PREFIX
        connection.server.stats.bytes_out += size
        if size > self.window or size > connection.window or size > connection.max_frame or connection.writing_paused:
            self.send(message)
            self.finish()
            return
        connection.window -= size
        number = self.id.to_bytes(4)
        connection.write(
            b"".join(
                (
                    RESPONSE_HEAD,
                    number,
                    RESPONSE_BLOCK,
                    size.to_bytes(3),
                    b"\0\0",  # DATA without flags
                    number,
                    b"\0",
                    (size - _PREFIX).to_bytes(4),
                    message,
                    OK_HEAD,
                    number,
                    OK_BLOCK,
                )
            )
        )
        self._end_of_answer()

    def send(self, message: bytes) -> None:
        """Send one message of several, as soon as the caller takes it."""
        if self.closed:
            return
        if not self._started:
            self._started = True
            self.connection.write(RESPONSE_HEAD + self.id.to_bytes(4) + RESPONSE_BLOCK)
        if self._out is None:
            self._out = deque()
        self._out.append(b"\0" + len(message).to_bytes(4) + message)
        self.connection.pump(self)

    def finish(self) -> None:
        """End well, after what is still to be sent."""
        self.status = Status.OK
        self._end_with(OK_BLOCK)

    def fail(self, error: RpcError) -> None:
        """End with an error, after what is still to be sent."""
        if self.closed or self._trailers is not None:
            return
        self.status = error.status
        block = trailers(error)
        if not self._started:
            block = literals([(b":status", error.http), (b"content-type", b"application/grpc")]) + block
        self._end_with(block)

    def abort(self, code: ErrorCode) -> None:
        """End at once."""
        if not self.closed:
            self.connection.write(reset(self.id, code))
            self.abandon()

    def abandon(self) -> None:
        """Nobody waits for it any more: what was begun for it need not run."""
        if self.closed:
            return
        self.closed = True
        if self.request is not None:
            self.request.cancelled = True
        if self.conversation is not None:
            self.conversation.abandoned()
        self._release()
        self._out = None
        self._message = None
        self.connection.forget(self)
        if not self.work:
            self.connection.leave()

    def begun(self) -> None:
        """Something was begun for it."""
        self.work += 1

    def finished(self) -> None:
        """What was begun is finished, whether or not somebody still waits for it."""
        self.request = None
        if self.work:
            self.work -= 1
            if self.closed and not self.work:
                self.connection.leave()

    def resume(self) -> None:
        """Take further messages; `paused` was set when there were enough."""
        self.paused = False
        self.cut()
        if self.closed or self.paused:
            return
        if self.ended:
            self._finish_reading()
        else:
            self.grant()

    @property
    def backlog(self) -> int:
        """Messages that the caller has not taken yet."""
        return len(self._out) if self._out else 0

    def write_some(self) -> bool:
        """Send one frame of what waits; whether it could."""
        connection = self.connection
        while self._out:
            item = self._out[0]
            size = min(len(item) - self._offset, self.window, connection.window, connection.max_frame)
            if size <= 0 or connection.writing_paused:
                return False
            connection.write(frame(DATA, 0, self.id, item[self._offset : self._offset + size]))
            self.window -= size
            connection.sent(size)
            self._offset += size
            if self._offset == len(item):
                self._out.popleft()
                self._offset = 0
                if self.conversation is not None:
                    self.conversation.taken()
            return True
        if self._trailers is not None and not self.closed:
            self.connection.write(frame(HEADERS, END_HEADERS | END_STREAM, self.id, self._trailers))
            self._end_of_answer()
        return False

    def _deliver(self, flag: int, message: bytes) -> None:
        if flag:
            try:
                message = self._decompressed(flag, message)
            except SluiceError as error:
                self.fail(failure(error))
                return
            except RpcError as error:
                self.fail(error)
                return
        self.connection.server.stats.bytes_in += len(message)
        if self.conversation is not None:
            self.conversation.message(message)
        elif self._message is None:
            self._message = message
        else:
            self.fail(RpcError(Status.INTERNAL, "The request holds more than one message."))

    def _decompressed(self, flag: int, message: bytes) -> bytes:
        encoding = self.head.encoding
        if flag != 1 or encoding == "identity":
            raise RpcError(Status.INTERNAL, "A message is marked as compressed, and the headers name no encoding.")
        return decompress(message, encoding, self.connection.server.max_message_bytes)

    def _finish_reading(self) -> None:
        if self._buffer:
            self.fail(RpcError(Status.INTERNAL, "The request ends inside a message."))
        elif self.conversation is not None:
            self.conversation.ended()

    def _too_large(self, length: int) -> None:
        limit = self.connection.server.max_message_bytes
        self.fail(RpcError(Status.RESOURCE_EXHAUSTED, f"A message has {length} bytes; the limit is {limit}."))

    def _hold(self, payload: bytes) -> None:
        if not self.connection.server.hold(len(payload)):
            detail = "The messages that are being read at this moment take all the memory that they may."
            self.fail(RpcError(Status.RESOURCE_EXHAUSTED, detail))
            return
        self._held += len(payload)
        if self._buffer is None:
            self._buffer = bytearray()
        self._buffer += payload

    def _release(self) -> None:
        if self._buffer is not None:
            self._buffer = None
            self.connection.server.release(self._held)
            self._held = 0

    def _end_with(self, block: bytes) -> None:
        if self.closed or self._trailers is not None:
            return
        self._trailers = block
        self.connection.pump(self)

    def _end_of_answer(self) -> None:
        if not self.ended:
            self.connection.write(reset(self.id, ErrorCode.NO_ERROR))
        self.abandon()
