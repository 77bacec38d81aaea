"""One request and its answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpu_service.http.responses import JSON, prefix, stream_prefix

if TYPE_CHECKING:
    from gpu_service.http.connection import Connection
    from gpu_service.http.head import Head
    from gpu_service.http.streaming import StreamedPrediction
    from gpu_service.inference.request import InferenceRequest

Headers = Sequence[tuple[str, str]]

# Below this a copy is cheaper than a second write.
_JOIN_BYTES = 64 * 1024


class Exchange:
    """Answered exactly once; after the caller has gone an answer goes nowhere.

    `request` is the queued inference request, if there is one: it is cancelled when the connection is lost. `headers`
    go with a successful answer.
    """

    __slots__ = ("body", "connection", "head", "headers", "request", "request_id", "status")

    def __init__(self, connection: "Connection", head: "Head", body: bytes) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        self.request: InferenceRequest | StreamedPrediction | None = None
        self.request_id = b""
        self.headers: Headers = ()
        self.status = 0

    @property
    def gone(self) -> bool:
        """Whether nobody is there to read the answer."""
        return self.connection.lost

    def answer(self, status: int, body: bytes, media_type: str = JSON, headers: Headers = ()) -> None:
        """Send the whole answer."""
        self.status = status
        connection = self.connection
        if connection.lost:
            connection.done(self)
            return
        server = connection.server
        more = server.common_headers
        if self.request_id:
            more = b"\r\nX-Request-Id: %b%b" % (self.request_id, more)
        if headers:
            more = _lines(headers) + more
        if server.draining or not self.head.keep_alive:
            more += b"\r\nConnection: close"
        start = prefix(status, media_type)
        if self.head.method == "HEAD":
            connection.write(b"%b%d%b\r\n\r\n" % (start, len(body), more))
        elif len(body) < _JOIN_BYTES:
            connection.write(b"%b%d%b\r\n\r\n%b" % (start, len(body), more, body))
        else:
            connection.write(b"%b%d%b\r\n\r\n" % (start, len(body), more))
            connection.write(body)
        connection.done(self)

    def start_stream(self, status: int, media_type: str, headers: Headers = ()) -> None:
        """Send the head of an answer whose length is not known yet."""
        self.status = status
        more = _lines(headers) + self.connection.server.common_headers
        if self.request_id:
            more = b"\r\nX-Request-Id: %b%b" % (self.request_id, more)
        if self.connection.server.draining or not self.head.keep_alive:
            more += b"\r\nConnection: close"
        self.connection.write(b"%b%b\r\n\r\n" % (stream_prefix(status, media_type), more))

    async def send(self, chunk: bytes) -> None:
        """Send a part of the answer, as soon as the caller reads; ConnectionResetError if there is none any more."""
        if self.connection.lost:
            raise ConnectionResetError("The caller has gone.")
        if chunk:
            self.connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await self.connection.writable()

    def end_stream(self) -> None:
        """The answer is whole."""
        if not self.connection.lost:
            self.connection.write(b"0\r\n\r\n")
        self.connection.done(self)

    def break_off(self) -> None:
        """The rest of a streamed answer cannot be given: the missing end tells the caller so."""
        self.connection.hang_up()
        self.connection.done(self)


def _lines(headers: Headers) -> bytes:
    return "".join(f"\r\n{name}: {value}" for name, value in headers).encode("latin-1")
