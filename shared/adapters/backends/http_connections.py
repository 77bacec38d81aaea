"""HTTP/1.1 calls over kept connections, every one of which ends at its deadline, however slowly bytes arrive.

The standard library's parser reads the answers; the sockets are ours, since the clients at hand bound each single read
only: a server that sends a byte a second would hold a call for ever.
"""

import select
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from threading import Lock
from time import monotonic
from typing import Final, NoReturn

from shared.adapters.backends.addresses import ForbiddenAddress, dial
from shared.adapters.backends.http_wire import STEP, Wire, left
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable

WHO: Final = "The model server"
# As many calls of one backend may be under way, see `shared.usecases.deadline`.
MAX_IDLE: Final = 8
# Shorter than what load balancers keep (60 s), and what networks forget without a word (350 s).
MAX_IDLE_S: Final = 30.0
_MAX_ERROR_BYTES: Final = 65_536


class _Unanswered(Exception):
    """The connection was closed before a byte of an answer came."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers by lower-case names (of one given twice the first), and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Where calls go; `tls` also says that certificates are checked."""

    host: str
    port: int
    tls: bool


class HttpConnections:
    """Calls of one origin; at most eight connections are kept between calls, none for longer than half a minute.

    A call is made again, once and at once, if it went out on a kept connection that was closed without a byte of an
    answer: that is how a server closes connections that it no longer wants. Redirects are answers like any other.
    """

    def __init__(
        self, origin: Origin, *, connect_timeout_s: float, max_answer_bytes: int, allow_loopback: bool = False
    ) -> None:
        self._origin = origin
        self._allow_loopback = allow_loopback
        self._connect_timeout_s = connect_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._idle: list[tuple[socket.socket, float]] = []
        self._lock = Lock()
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def call(self, request: bytes, deadline: float) -> HttpAnswer:
        """Send a whole request and give its answer; `deadline` is a time of `monotonic`.

        BackendUnavailable if the server cannot be reached or closes the connection without an answer, BackendTimeout at
        the deadline, BackendError for an answer that is none, is cut off, compressed or too long.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, request, deadline)
            except _Unanswered:
                pass
        try:
            return self._exchange(self._connect(deadline), request, deadline)
        except _Unanswered as error:
            raise BackendUnavailable(f"{WHO} closed the connection without an answer.") from error

    def close(self) -> None:
        """Close what is kept; calls under way go on, and their connections are not kept."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _take(self) -> socket.socket | None:
        """A kept connection that is still open and silent; what has come unasked would pass for an answer."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            if monotonic() - since < MAX_IDLE_S and not _has_news(connection):
                return connection
            connection.close()

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append((connection, monotonic()))
                return
        connection.close()

    def _connect(self, deadline: float) -> socket.socket:
        origin = self._origin
        try:
            timeout = min(self._connect_timeout_s, left(deadline))
            connection = dial(origin.host, origin.port, timeout, allow_loopback=self._allow_loopback)
        except ForbiddenAddress as error:
            raise BackendUnavailable(f"The address of {origin.host} {error}.", retryable=False) from error
        except (OSError, UnicodeError) as error:  # the latter for what is no name
            _not_connected(error, deadline)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._secured(connection) if self._origin.tls else connection
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise BackendError(f"{WHO}'s certificate does not hold: {error.verify_message}.") from error
        except OSError as error:
            connection.close()
            _not_connected(error, deadline)

    def _secured(self, connection: socket.socket) -> socket.socket:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls.wrap_socket(connection, server_hostname=self._origin.host)

    def _exchange(self, connection: socket.socket, request: bytes, deadline: float) -> HttpAnswer:
        wire = Wire(connection, deadline)
        keep = False
        try:
            whole = wire.send(request)
            # The parser asks a socket for nothing but its reading end.
            response = HTTPResponse(wire, method="POST")  # type: ignore[arg-type]
            response.begin()
            answer = self._read(response)
            # Bytes after the answer would pass for the answer to the next request.
            keep = whole and response.isclosed() and not response.will_close and not wire.has_more
        except TimeoutError as error:
            raise BackendTimeout(f"{WHO} did not answer in time.") from error
        except OSError as error:  # among them RemoteDisconnected
            if not wire.received:
                raise _Unanswered from error
            raise BackendError(f"{WHO} closed the connection within its answer.") from error
        except (HTTPException, ValueError) as error:
            raise BackendError(f"{WHO}'s answer is not whole, or no HTTP ({type(error).__name__}).") from error
        finally:
            if keep:
                self._keep(connection)
            else:
                connection.close()
        return answer

    def _read(self, response: HTTPResponse) -> HttpAnswer:
        headers: dict[str, str] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), value)
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in {"", "identity"}:
            raise BackendError(f"{WHO} answered with the content coding {coding[:50]!r}, which nobody asked for.")
        limit = self._max_answer_bytes if response.status == 200 else _MAX_ERROR_BYTES
        if (response.length or 0) > limit:
            raise _too_long(limit)
        if response.length is not None:
            return HttpAnswer(response.status, headers, response.read())
        parts: list[bytes] = []
        size = 0
        while part := response.read(min(STEP, limit - size + 1)):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _too_long(limit)
        return HttpAnswer(response.status, headers, b"".join(parts))


def _has_news(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _not_connected(error: Exception, deadline: float) -> NoReturn:
    if isinstance(error, TimeoutError) and monotonic() >= deadline:
        raise BackendTimeout(f"{WHO} could not be reached in time.") from error
    raise BackendUnavailable(f"{WHO} cannot be reached.") from error


def _too_long(limit: int) -> BackendError:
    return BackendError(f"{WHO}'s answer has more than {limit} bytes.")
