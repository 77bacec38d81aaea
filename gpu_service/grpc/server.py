"""The gRPC server: listens, counts what its connections hold, and ends in good order.

Python's gRPC library has an event loop and threads of its own, which every RPC crosses several times. With `h2load`
and other work on the same two cores, 30 numbers in, thousands of RPCs a second: `grpc.aio` 2.2 to 2.5 and its server
with threads 1.7 to 2.5, neither running a model; this one 8 to 10 over 64 connections and 15 to 26 over 64 streams of
fewer connections, with a model run for each. Of 24 µs of Python for an RPC, 14 lead to the queue. What is left at one
stream a connection are the system calls: one to read and one to write for each RPC.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from os import urandom
from typing import TYPE_CHECKING, Any

from gpu_service.grpc.connection import Connection
from gpu_service.grpc.control import Health, methods_of
from gpu_service.grpc.frames import ErrorCode
from gpu_service.grpc.head import Head
from gpu_service.grpc.hpack import Header
from gpu_service.grpc.methods import Method
from gpu_service.grpc.predictions import InferDoor
from gpu_service.grpc.status import RpcError, Status
from gpu_service.logs import fields
from gpu_service.telemetry.stats import ServerStats

if TYPE_CHECKING:
    from gpu_service.grpc.stream import Stream
    from gpu_service.inference.dataplane import DataPlane
    from gpu_service.models.manager import ModelManager
    from gpu_service.telemetry.tracing import Tracer

_log = logging.getLogger(__name__)

# How long streams are still taken after SIGTERM, so that clients see the notice before they are refused.
_LAME_DUCK_S = 0.5
_MAX_HEADS = 1024
_MAX_HEAD_HEADERS = 32


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a whole request to arrive, for an answer to be read, without any RPC, after an error.

    A client with RPCs that is silent for `alive_s` is asked whether it is there, and has `answer_s` to say so.
    """

    read_s: float = 60
    write_s: float = 60
    idle_s: float = 600
    linger_s: float = 2
    alive_s: float = 60
    answer_s: float = 20


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds of what clients may make the server hold; streams are for one connection."""

    max_message_bytes: int
    max_held_bytes: int = 1024 * 1024 * 1024
    max_connections: int = 1024
    max_streams: int = 512


class GrpcServer:
    """Belongs to one event loop; what connections read is public to them."""

    def __init__(
        self, methods: Mapping[str, Method], limits: GrpcLimits, stats: ServerStats, timeouts: Timeouts | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.max_message_bytes = limits.max_message_bytes
        self.timeouts = timeouts or Timeouts()
        self.stats = stats
        self.tick = 0
        self.port = 0
        self._methods = methods
        self._heads: dict[tuple[Header, ...], Head] = {}
        self._held = 0
        self._connections: set[Connection] = set()
        self._gone = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int) -> None:
        """Take connections; OSError if the port is taken. Port 0 takes a free one, see `port`."""
        self._every_second()
        self._listener = await self.loop.create_server(lambda: Connection(self), host, port, backlog=2048)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self, grace_s: float) -> None:
        """Answer what has been accepted, for at most `grace_s` seconds, then end."""
        deadline = self.loop.time() + grace_s
        for connection in tuple(self._connections):
            connection.warn()
        await asyncio.sleep(min(_LAME_DUCK_S, grace_s / 2))
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.drain()
        if self._connections:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._gone.wait()
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        if self._connections:
            await self._gone.wait()

    # What connections call.

    def admit(self, connection: Connection) -> bool:
        """Take a connection, unless there are too many."""
        self._connections.add(connection)
        self._gone.clear()
        self.stats.opened("grpc")
        if len(self._connections) > self.limits.max_connections:
            self.stats.shed("too_many_connections")
            return False
        return True

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()
        self.stats.closed("grpc")

    def broken(self, code: ErrorCode) -> None:
        """Count a connection that is ended because its client broke the protocol or a bound."""
        self.stats.shed(f"http2_{code.name.lower()}")

    def hold(self, size: int) -> bool:
        """Account for bytes of a message that is not whole; False if all of them together would take too much."""
        if self._held + size > self.limits.max_held_bytes:
            self.stats.shed("too_many_bytes")
            return False
        self._held += size
        return True

    def release(self, size: int) -> None:
        """Such bytes are gone."""
        self._held -= size

    def head(self, headers: list[Header] | None) -> Head:
        """What headers say; equal ones are read once. Raises Malformed."""
        if headers is None or len(headers) > _MAX_HEAD_HEADERS:
            return Head(headers, self._methods)
        key = tuple(headers)
        head = self._heads.get(key)
        if head is None:
            head = Head(headers, self._methods)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def open(self, stream: "Stream") -> None:
        """An RPC begins."""
        self.stats.in_flight += 1
        head = stream.head
        if head.refusal is not None:
            stream.fail(head.refusal)
        elif head.method is not None and head.method.converse is not None:
            stream.conversation = head.method.converse(stream)

    def begin(self, stream: "Stream", message: bytes) -> None:
        """The one message of an RPC is whole."""
        method = stream.head.method
        if method is None or method.unary is None:
            raise AssertionError("an RPC without a method was refused when it was opened")
        try:
            method.unary(stream, message)
        except Exception:  # noqa: BLE001 - a fault of one method must not end the connection of all
            _log.exception("unexpected error", extra=fields(method=method.name))
            stream.fail(RpcError(Status.INTERNAL, "The container failed to answer."))

    def answered(self, stream: "Stream") -> None:
        """Count an RPC that is over."""
        self.stats.in_flight -= 1
        method = stream.head.method
        self.stats.answered(method.name if method is not None else "unknown", stream.status.name)

    def _every_second(self) -> None:
        self.tick += 1
        for connection in tuple(self._connections):
            connection.check(self.tick)
        self._timer = self.loop.call_later(1.0, self._every_second)


class Tasks:
    """Work that answers later, kept until it is done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside the rest."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


async def start_grpc(
    dataplane: "DataPlane",
    manager: "ModelManager",
    health: Health,
    stats: ServerStats,
    *,
    host: str,
    port: int,
    max_message_bytes: int,
    tracer: "Tracer | None" = None,
    access_log: bool = False,
    limits: GrpcLimits | None = None,
    timeouts: Timeouts | None = None,
) -> GrpcServer:
    """Serve `inference.GRPCInferenceService` and gRPC's health checks; OSError if the port is taken."""
    prefix, ids = urandom(6).hex(), count(1)
    tasks = Tasks()
    door = InferDoor(dataplane, lambda: f"{prefix}-g{next(ids):x}", tasks.spawn, tracer=tracer, access_log=access_log)
    methods = methods_of(door, dataplane, manager, health, tasks.spawn, traced=tracer is not None)
    server = GrpcServer(methods, limits or GrpcLimits(max_message_bytes), stats, timeouts)
    await server.listen(host, port)
    return server
