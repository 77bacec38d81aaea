"""One HTTP/2 connection of a gRPC client: frames in, streams, frames out.

What a client can make the server hold or do has a bound: concurrent streams (a stream that was reset counts until its
work is finished), bytes of messages that are being read, header blocks, and frames that bring no work, which covers
resets, pings, settings, empty frames and tiny window updates. While the client does not read, nothing is read from it.
Source: RFC 9113.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from gpu_service.grpc.frame_reader import MAX_HEADER_LIST, FrameReader, unpadded
from gpu_service.grpc.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_STREAM,
    GOAWAY,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFailure,
    ErrorCode,
    Setting,
    frame,
    goaway,
    reset,
    settings,
    window_update,
)
from gpu_service.grpc.status import RpcError, Status
from gpu_service.grpc.stream import RECEIVE_WINDOW, Stream

if TYPE_CHECKING:
    from gpu_service.grpc.head import Head
    from gpu_service.grpc.server import GrpcServer

CONNECTION_WINDOW = 16 * 1024 * 1024
_WRITE_BUFFER = 1024 * 1024
_SETTINGS_COST = 20  # each goes through all streams
_EARNING_FRAME = 2048
_ALIVE_PING = b"sluice-1"
# The exact sizes of payloads; GOAWAY has at least its.
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, GOAWAY: 8, WINDOW_UPDATE: 4}
_OF_CONNECTION = frozenset({SETTINGS, PING, GOAWAY})


class Connection(FrameReader, asyncio.Protocol):
    """`window` is what may be sent on all streams together."""

    def __init__(self, server: "GrpcServer") -> None:
        super().__init__(server)
        self.streams: dict[int, Stream] = {}
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = MAX_FRAME
        self.writing_paused = False
        self._transport: asyncio.Transport
        self._blocked: dict[int, Stream] = {}  # by the connection's window or a client that does not read
        self._occupied = 0
        self._unsent: list[bytes] = []
        self._received = 0
        self._last_stream = 0  # the last that is served
        self._newest = 0  # the last that was seen
        self._stuck_since = 0
        self._stopped_at = 0
        self._pinged = False
        self._draining = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or refuse at once if there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        ours = {
            Setting.MAX_CONCURRENT_STREAMS: self.server.limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        }
        self.write(settings(ours) + window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
        if not self.server.admit(self):
            self._break(ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "as many connections as may be are open"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """Nobody reads any more: what waits for this caller need not run."""
        self.stopped = True
        self._unsent.clear()
        for stream in tuple(self.streams.values()):
            stream.abandon()
        self.server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are whole."""
        if self.stopped:
            return  # what still comes is not read
        try:
            self.feed(data)
        except ConnectionFailure as failure:
            self._break(failure)

    def pause_writing(self) -> None:
        """The caller reads more slowly than we write: it gets nothing further done until it has caught up."""
        self.writing_paused = True
        self._stuck_since = self.server.tick
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self.writing_paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._pump_blocked()

    # What streams and the server call.

    def write(self, data: bytes) -> None:
        """Send; where several streams are open, what one pass of the event loop writes goes out together."""
        if self._unsent:
            self._unsent.append(data)
        elif len(self.streams) > 1:
            self._unsent.append(data)
            self.server.loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def pump(self, stream: Stream) -> None:
        """Send what waits on a stream as far as the windows let it."""
        if stream.id in self._blocked:
            return
        while stream.write_some():
            pass
        if stream.backlog and stream.window > 0:
            self._blocked[stream.id] = stream

    def sent(self, size: int) -> None:
        """Data was sent."""
        self.window -= size
        if size >= _EARNING_FRAME:
            self.earn()

    def forget(self, stream: Stream) -> None:
        """A stream is closed."""
        self.streams.pop(stream.id, None)
        self._blocked.pop(stream.id, None)
        self.server.answered(stream)
        if self._draining and not self.streams and not self.stopped:
            self._close()

    def leave(self) -> None:
        """A stream gives its place back."""
        self._occupied -= 1

    def warn(self) -> None:
        """Say that the server will stop; what is on its way is still taken. Source: RFC 9113, section 6.8."""
        if not self.stopped:
            self.write(goaway(MAX_WINDOW, ErrorCode.NO_ERROR))

    def drain(self) -> None:
        """Take no further streams, and end once there are none."""
        if self.stopped or self._draining:
            return
        self._draining = True
        self.write(goaway(self._last_stream, ErrorCode.NO_ERROR))
        for stream in tuple(self.streams.values()):
            if stream.conversation is not None:
                stream.conversation.drain()
        if not self.streams and not self.stopped:
            self._close()

    def abort(self) -> None:
        """End without a word."""
        self._transport.abort()

    def check(self, tick: int) -> None:
        """Called once a second: end what does not move, ask whether a silent client is still there."""
        times = self.server.timeouts
        silent = tick - self.tick
        self.renew()
        if self.stopped:
            if tick - self._stopped_at > times.linger_s:
                self.abort()
        elif self.writing_paused:
            if tick - self._stuck_since > times.write_s:
                self.abort()
        elif self.began is not None and tick - self.began > times.read_s:
            detail = f"a frame did not arrive within {times.read_s:g} seconds"
            self._break(ConnectionFailure(ErrorCode.PROTOCOL_ERROR, detail))
        elif not self.streams:
            if silent > times.idle_s:
                self.drain()
        elif silent > times.alive_s + times.answer_s:
            self.abort()
        else:
            self._check_streams(tick, asks=silent > times.alive_s)

    def _check_streams(self, tick: int, *, asks: bool) -> None:
        if asks and not self._pinged:
            self.write(frame(PING, 0, 0, _ALIVE_PING))
        self._pinged = asks
        limit = self.server.timeouts.read_s
        for stream in tuple(self.streams.values()):
            if not stream.ended and stream.conversation is None and tick - stream.began > limit:
                stream.fail(RpcError(Status.DEADLINE_EXCEEDED, f"The request did not arrive within {limit:g} seconds."))

    # Frames.

    def on_data(self, number: int, flags: int, payload: bytes) -> None:
        """Give a piece of a message to its stream."""
        size = len(payload)
        self._received += size
        if self._received >= CONNECTION_WINDOW // 2:
            if self._received > CONNECTION_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window of the connection")
            self.write(window_update(0, self._received))
            self._received = 0
        if not size and not flags & END_STREAM:
            self.spend()
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            # On its way when we ended the stream, or a fault.
            self._known(number)
            self.spend()
            if stream is not None:
                stream.abort(ErrorCode.STREAM_CLOSED)
            return
        if flags & PADDED:
            payload = unpadded(payload)
        if size:
            stream.receive(payload, size)
        if flags & END_STREAM:
            stream.end()

    def on_head(self, number: int, flags: int, head: "Head | None") -> None:
        """Open a stream, or end one: gRPC has no trailers in requests, but allows them."""
        stream = self.streams.get(number)
        if stream is not None:
            if stream.ended or not flags & END_STREAM:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "HEADERS in the middle of a stream")
            stream.end()
            return
        if number <= self._newest:
            # They may have been on their way when we ended the stream.
            self.spend()
            return
        self._newest = number
        if self._draining:
            self.spend()  # above the last stream of our GOAWAY: the client sends it to another server
            return
        self._last_stream = number
        if head is None:
            self.write(reset(number, ErrorCode.PROTOCOL_ERROR))
        elif self._occupied >= self.server.limits.max_streams:
            self.spend()
            self.write(reset(number, ErrorCode.REFUSED_STREAM))
        else:
            self.earn()
            self._occupied += 1
            stream = self.streams[number] = Stream(self, number, head)
            self.server.open(stream)
            if flags & END_STREAM:
                stream.end()

    def on_control(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        """Frames that bring no work."""
        size = _SIZES.get(kind, len(payload))
        if len(payload) != size and (kind != GOAWAY or len(payload) < size):
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "a frame of a size that it cannot have")
        if kind in _OF_CONNECTION and number:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a frame of the connection on a stream")
        if kind == WINDOW_UPDATE:
            self._on_window_update(number, int.from_bytes(payload) & MAX_WINDOW)
        elif kind == SETTINGS:
            self._on_settings(flags, payload)
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self._known(number)
            if number in self.streams:
                self.streams[number].abandon()
        elif kind == PUSH_PROMISE:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if len(payload) % SETTING.size or (flags & ACK and payload):
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a size that they cannot have")
        if flags & ACK:
            return
        self.spend(_SETTINGS_COST)
        self.settled = True
        for key, value in SETTING.iter_unpack(payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
                change = value - self.initial_window
                self.initial_window = value
                for stream in self.streams.values():
                    stream.window += change
            elif key == Setting.MAX_FRAME_SIZE:
                if not MAX_FRAME <= value < 2**24:
                    raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a frame size that may not be")
                self.max_frame = min(value, 4 * MAX_FRAME)
            elif key == Setting.ENABLE_PUSH and value > 1:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        self.write(frame(SETTINGS, ACK, 0))
        for stream in tuple(self.streams.values()):
            if stream.backlog:
                self.pump(stream)

    def _on_window_update(self, number: int, increment: int) -> None:
        if not number:
            self.window += increment
            if not increment or self.window > MAX_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a window that may not be")
            self._pump_blocked()
            return
        self._known(number)
        stream = self.streams.get(number)
        if stream is None:
            return
        stream.window += increment
        if not increment or stream.window > MAX_WINDOW:
            stream.abort(ErrorCode.FLOW_CONTROL_ERROR)
        elif stream.backlog:
            self.pump(stream)

    def _pump_blocked(self) -> None:
        """A frame of each stream in turn, as long as the connection's window lasts."""
        while self._blocked and self.window > 0 and not self.writing_paused:
            stream = self._blocked.pop(next(iter(self._blocked)))
            stream.write_some()
            if not stream.backlog:
                stream.write_some()  # the status, once all else is sent
            elif stream.window > 0:
                self._blocked[stream.id] = stream  # at the end of the line

    def _known(self, number: int) -> None:
        if not number or number > self._newest:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a frame on a stream that was not opened")

    def _break(self, failure: ConnectionFailure) -> None:
        """Say why, then end; the answers of all streams are lost.

        Closing at once would make the kernel send a reset, which can overtake what was said.
        """
        self._stop()
        self.server.broken(failure.code)
        self.write(goaway(self._last_stream, failure.code, failure.detail))
        for stream in tuple(self.streams.values()):
            stream.abandon()
        self._flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _flush(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._transport.write(data)

    def _close(self) -> None:
        self._stop()
        self._flush()
        self._transport.close()

    def _stop(self) -> None:
        self.stopped = True
        self._stopped_at = self.server.tick
