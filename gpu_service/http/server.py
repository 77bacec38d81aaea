"""The HTTP server: listens, counts what its connections hold, and ends in good order."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from itertools import count
from os import urandom
from typing import Any

from gpu_service.http.connection import Connection
from gpu_service.http.exchange import Exchange
from gpu_service.http.head import Head, HeadCache
from gpu_service.http.refusals import Refusal
from gpu_service.http.router import Router
from gpu_service.telemetry.stats import ServerStats

# How long connections are still taken after SIGTERM: a balancer needs that long to see that `/ping` is not 200.
_LAME_DUCK_S = 0.5


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a whole request to arrive, without a request, for an answer to be read, after a refusal."""

    read_s: float = 60
    # Longer than callers keep idle connections: they end them, not the server, so no request meets a reset.
    idle_s: float = 75
    write_s: float = 60
    linger_s: float = 2


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of what clients may make the server hold."""

    max_body_bytes: int
    max_held_bytes: int = 1024 * 1024 * 1024
    max_connections: int = 4096


class HttpServer:
    """Belongs to one event loop; what connections read is public to them."""

    def __init__(
        self, router: Router, limits: HttpLimits, stats: ServerStats, timeouts: Timeouts | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.max_body_bytes = limits.max_body_bytes
        self.timeouts = timeouts or Timeouts()
        self.heads = HeadCache()
        self.tick = 0
        self.draining = False
        self.common_headers = b""
        self.route: Callable[[Head], None] = router.route
        self._limits = limits
        self.stats = stats
        self._held = 0
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = count(1)
        self._id_prefix = urandom(6).hex().encode()

    async def listen(self, host: str, port: int) -> None:
        """Take connections; OSError if the port is taken."""
        self._every_second()
        self._listener = await self.loop.create_server(lambda: Connection(self), host, port, backlog=2048)

    async def stop(self, grace_s: float) -> None:
        """Answer what has been accepted, for at most `grace_s` seconds, then end."""
        self.draining = True
        await asyncio.sleep(min(_LAME_DUCK_S, grace_s / 2))
        if self._listener is not None:
            self._listener.close()
        deadline = self.loop.time() + grace_s - _LAME_DUCK_S
        for connection in tuple(self._connections):
            connection.check(self.tick)
        await self._until_empty(deadline - self.loop.time())
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        await self._until_empty(1)

    async def _until_empty(self, seconds: float) -> None:
        """Return once the last connection has ended, or after `seconds`."""
        if self._connections and seconds > 0:
            self._empty = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()

    def admit(self, connection: Connection) -> bool:
        """Take a connection, unless there are too many."""
        self._connections.add(connection)
        self.stats.opened("http")
        return len(self._connections) <= self._limits.max_connections

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self.stats.closed("http")

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that are being read."""
        return self._held

    def hold(self, size: int) -> bool:
        """Account for `size` bytes of a body; False if all bodies together would take too much."""
        if self._held + size > self._limits.max_held_bytes:
            return False
        self._held += size
        return True

    def release(self, size: int) -> None:
        """A body is gone."""
        self._held -= size

    def answered(self, exchange: Exchange) -> None:
        """Count an answer."""
        self.stats.in_flight -= 1
        answers = exchange.head.route.answers
        status = exchange.status
        answers[status] = answers.get(status, 0) + 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer later: `work` ends with an answer."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refused(self, refusal: Refusal) -> None:
        """Count a request that was not read."""
        self.stats.shed(refusal.reason)

    def new_request_id(self) -> bytes:
        """An id for a request that came without one."""
        return b"%b-%x" % (self._id_prefix, next(self._ids))

    def _every_second(self) -> None:
        self.tick += 1
        self.common_headers = f"\r\nDate: {formatdate(usegmt=True)}".encode("ascii")
        for connection in tuple(self._connections):
            connection.check(self.tick)
        self._timer = self.loop.call_later(1.0, self._every_second)
