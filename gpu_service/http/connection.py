"""One HTTP/1.1 connection: bytes in, one exchange at a time, bytes out.

Source: RFC 9112. Requests sent ahead (pipelining) wait for the answer before them; how much may wait is bounded, since
reading stops meanwhile.
"""

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from gpu_service.http.exchange import Exchange
from gpu_service.http.head import MAX_HEAD_BYTES, Head, is_host_valid, origin_form
from gpu_service.http.refusals import Refusal
from gpu_service.inference.calls import request_id_of

if TYPE_CHECKING:
    from gpu_service.http.server import HttpServer

_MAX_BACKLOG_BYTES = 64 * 1024
# An offer of another protocol is passed over (RFC 9110, section 7.8); the parser would take the body for that protocol.
_UPGRADE = re.compile(rb"^(?:upgrade|http2-settings)[ \t]*:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_NOWHERE = Head("GET", b"/", {}, content_length=0, keep_alive=False)


class Connection(asyncio.Protocol):
    """`tick` is when something last moved, `began` when the request that is being read began, in the server's ticks."""

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self._stats = server.stats
        self.tick = server.tick
        self.began: int | None = None
        self.lost = False
        self.closing = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._last = False
        self._waiting: deque[tuple[Head, bytes] | Refusal] = deque()
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        self._held_bytes = 0
        self._reading = True
        self._resume: asyncio.Future[None] | None = None
        self._writable = True
        self._raw_head = b""
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._head = _NOWHERE
        self._chunks: list[bytes] = []
        self._size = 0
        self._unsent = 0
        self._read_at = server.tick

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse at once if there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        if not self.server.admit(self):
            self._refuse(Refusal.too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody reads any more: what waits for this caller need not run."""
        del exc
        self.lost = True
        self.server.forget(self)
        self._release_body()
        if self._exchange is not None and self._exchange.request is not None:
            self._exchange.request.cancelled = True
        if self._resume is not None and not self._resume.done():
            self._resume.set_result(None)

    def data_received(self, data: bytes) -> None:
        """The quick way for a whole request whose head is known; the parser for all others."""
        self.tick = self.server.tick
        if self.closing:
            return  # lingering: what still comes is not read
        if self._exchange is None and self.began is None and not self._backlog:
            end = data.find(b"\r\n\r\n") + 4
            if end > 3:
                head = self.server.heads.get(data[:end])
                if head is not None and len(data) - end == head.content_length:
                    self._serve(head, data[end:])
                    return
                if b"pgrade" in data[:end]:
                    data = _UPGRADE.sub(b"", data[:end]) + data[end:]
                else:
                    self._raw_head = data[:end]
        self._feed(data)

    def eof_received(self) -> bool:
        """A client that has said all may still read: its answers are sent before the connection ends.

        It may as well have gone; `_probe` finds out.
        """
        if self._exchange is None:
            return False
        self._last = True
        return True

    def _feed(self, data: bytes) -> None:
        if self._exchange is not None:
            self._backlog.append(data)
            self._backlog_bytes += len(data)
            if self._backlog_bytes > _MAX_BACKLOG_BYTES and self._reading:
                self._reading = False
                self._transport.pause_reading()
            return
        try:
            self._parser.feed_data(data)
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Refusal):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError:
            self._refuse(Refusal.malformed())

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request line is about to come."""
        self.began = self.server.tick
        self._head = _NOWHERE
        self._target = b""
        self._headers = []
        self._head_bytes = 0
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """The target, perhaps in pieces."""
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header line."""
        self._headers.append((name, value))
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._head_bytes += size + 4
        if self._head_bytes > MAX_HEAD_BYTES:
            raise Refusal.head_too_large(MAX_HEAD_BYTES)

    def on_headers_complete(self) -> None:
        """The body comes next: whether it may is decided here."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self._headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        length = headers.get("content-length", "0")
        head = Head(
            self._parser.get_method().decode("latin-1"),
            origin_form(self._target),
            headers,
            content_length=int(length) if length.isdecimal() and len(length) < 19 else 0,
            keep_alive=self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1",
            is_http_1_1=self._parser.get_http_version() == "1.1",
        )
        self._head = head
        if not is_host_valid(self._headers, required=head.is_http_1_1):
            raise Refusal.bad_host()
        self.server.route(head)
        if head.content_length > self.server.max_body_bytes:
            raise Refusal.body_too_large(head.content_length, self.server.max_body_bytes)
        if headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._size += len(body)
        if self._size > self.server.max_body_bytes:
            raise Refusal.body_too_large(None, self.server.max_body_bytes)
        if self._size > self._held_bytes:
            self._hold(self._size - self._held_bytes)
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.began = None
        head, chunks = self._head, self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        if self._raw_head:
            self.server.heads.keep(self._raw_head, head, len(self._headers))
            self._raw_head = b""
        if self._exchange is None:
            self._serve(head, body)
        else:
            self._waiting.append((head, body))

    def _hold(self, size: int) -> None:
        """Account for bytes of a body that is being read: all connections together have a bound."""
        if not self.server.hold(size):
            raise Refusal.busy()
        self._held_bytes += size

    def _release_body(self) -> None:
        self.server.release(self._held_bytes)
        self._held_bytes = 0

    # What exchanges call.

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        self._stats.bytes_out += len(data)
        self._transport.write(data)

    def done(self, exchange: Exchange) -> None:
        """The answer is given: on to the next request, or to the end."""
        self.server.answered(exchange)
        if self._exchange is not exchange:
            return
        if not self._waiting:
            self._release_body()
        more = (self._waiting or self._backlog) and not self.lost
        if not more:
            self._exchange = None
            if self.lost:
                return
        if not exchange.head.keep_alive or self.server.draining or (self._last and not more):
            self.hang_up()
        elif more:
            # Until then this exchange keeps what arrives behind what waits.
            self.server.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Serve what was sent ahead."""
        self._exchange = None
        if self.lost or self.closing:
            return
        if self._waiting:
            following = self._waiting.popleft()
            if isinstance(following, Refusal):
                self._refuse(following)
            else:
                self._serve(*following)
        elif self._backlog:
            data = b"".join(self._backlog)
            self._backlog.clear()
            self._backlog_bytes = 0
            self.data_received(data)
            if not self._reading and not self._backlog:
                self._reading = True
                self._transport.resume_reading()
            if self._last and self._exchange is None and not self.closing:
                self.hang_up()  # what was sent last is no whole request

    async def writable(self) -> None:
        """Return once the caller has read enough for more to be sent."""
        if not self._writable and not self.lost:
            self._resume = self.server.loop.create_future()
            await self._resume

    def pause_writing(self) -> None:
        """The caller reads more slowly than we write."""
        self._writable = False

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._writable = True
        if self._resume is not None and not self._resume.done():
            self._resume.set_result(None)

    def hang_up(self) -> None:
        """End the connection once what was written is sent."""
        self.closing = True
        self._transport.close()

    def abort(self) -> None:
        """End the connection without a word."""
        self.closing = True
        self._transport.abort()

    def check(self, tick: int) -> None:
        """Called once a second: end what does not move."""
        limits = self.server.timeouts
        unsent = self._transport.get_write_buffer_size()
        if self.closing:
            # An answer that is still being read is left to the rule below.
            if not unsent and tick - self.tick > limits.linger_s:
                self._transport.abort()
        elif self.began is not None:
            if tick - self.began > limits.read_s:
                self._refuse(Refusal.too_slow(limits.read_s))
        elif self._exchange is None:
            if tick - self.tick > limits.idle_s or self.server.draining:
                self._transport.close()
        elif self._last:
            self._probe(self._exchange)
        if unsent < self._unsent or not unsent:
            self._read_at = tick
        self._unsent = unsent
        if tick - self._read_at > limits.write_s:
            self._transport.abort()

    def _probe(self, exchange: Exchange) -> None:
        """Write what a client that still reads passes over (RFC 9110, section 15.2); writing fails if it has gone."""
        if not exchange.status and exchange.head.is_http_1_1:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve(self, head: Head, body: bytes) -> None:
        self._exchange = exchange = Exchange(self, head, body)
        stats = self._stats
        stats.in_flight += 1
        stats.bytes_in += len(body)
        head.route.handler(exchange)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be read further, then read on without looking for a while.

        Closing at once would make the kernel send a reset, which can overtake the answer.
        """
        if self.closing or self.lost:
            return
        if self._exchange is not None or self._waiting:
            self._waiting.append(refusal)  # the requests before it are answered first
            self.began = None
            return
        self.closing = True
        self.tick = self.server.tick
        self.server.refused(refusal)
        self._release_body()
        request_id = request_id_of(self._head.headers)
        self._transport.write(refusal.response(self.server.common_headers, request_id))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
