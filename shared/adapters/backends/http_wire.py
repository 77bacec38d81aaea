"""One exchange on a connection: every send and every read ends at the deadline."""

import io
import socket
import ssl
from time import monotonic
from typing import Any, Final

STEP: Final = 262_144


def left(deadline: float) -> float:
    """Seconds until a time of `monotonic`; TimeoutError if there are none."""
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


class Wire:
    """A connection for one exchange, until `deadline`."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._reader = _Reader(connection, deadline)
        self._buffer = _Buffer(self._reader)

    @property
    def received(self) -> int:
        """Bytes that have come."""
        return self._reader.received

    @property
    def has_more(self) -> bool:
        """Whether more has come than the parser took, which has closed its end."""
        return self._buffer.has_more or (isinstance(self._connection, ssl.SSLSocket) and self._connection.pending() > 0)

    def send(self, data: bytes) -> bool:
        """Send all of it; False if the server did not take it all, as one that answers before it has read everything.

        TimeoutError at the deadline.
        """
        view = memoryview(data)
        while view:
            self._connection.settimeout(left(self._deadline))
            try:
                view = view[self._connection.send(view[:STEP]) :]
            except ConnectionError:
                return False
        return True

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What the parser reads from."""
        return self._buffer


class _Reader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self.received = 0
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        self._connection.settimeout(left(self._deadline))
        count = self._connection.recv_into(buffer)
        self.received += count
        return count


class _Buffer(io.BufferedReader):
    """What the parser reads from; tells whether something was left in it when it was closed."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader, 65_536)
        self._reader = reader
        self.has_more = False

    def close(self) -> None:
        if not self.closed:
            self._reader.ended = True  # to peek is to look at what has come, and not to wait for more
            self.has_more = bool(self.peek(1))
        super().close()
