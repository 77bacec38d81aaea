"""A gRPC server in a thread, with methods that need no model."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvloop

from gpu_service.grpc.methods import Method
from gpu_service.grpc.server import GrpcLimits, GrpcServer, Timeouts
from gpu_service.grpc.status import RpcError, Status
from gpu_service.grpc.stream import Stream
from gpu_service.telemetry.stats import ServerStats


class Repeat:
    """Streams each message back, at most `bound` at a time; with `held` none until the caller has said all."""

    def __init__(self, stream: Stream, *, bound: int = 4, held: bool = False) -> None:
        self.stream = stream
        self.bound = bound
        self.held = held

    def message(self, data: bytes) -> None:
        if not self.held:
            self.stream.send(data)
        self.stream.paused = self.stream.backlog >= self.bound

    def ended(self) -> None:
        self.stream.finish()

    def taken(self) -> None:
        if self.stream.paused and self.stream.backlog < self.bound:
            self.stream.connection.server.loop.call_soon(self.stream.resume)

    def abandoned(self) -> None:
        pass

    def drain(self) -> None:
        self.stream.fail(RpcError(Status.UNAVAILABLE, "stopping"))


class Methods:
    def __init__(self) -> None:
        self.kept: list[Stream] = []

    def table(self) -> Mapping[str, Method]:
        return {
            "/echo": Method("echo", unary=lambda stream, data: stream.reply(data)),
            "/large": Method("large", unary=lambda stream, data: stream.reply(bytes(int(data)))),
            "/keep": Method("keep", unary=self.keep),
            "/fail": Method("fail", unary=self.fail),
            "/bug": Method("bug", unary=self.bug),
            "/repeat": Method("repeat", converse=Repeat),
        }

    def keep(self, stream: Stream, data: bytes) -> None:
        """Answered by `release`."""
        stream.begun()
        self.kept.append(stream)

    def release(self) -> None:
        for stream in self.kept:
            stream.finished()
            stream.reply(b"released")
        self.kept.clear()

    def fail(self, stream: Stream, data: bytes) -> None:
        stream.fail(RpcError(Status.ABORTED, data.decode()))

    def bug(self, stream: Stream, data: bytes) -> None:
        raise ZeroDivisionError


class Echo:
    def __init__(self, runner: asyncio.Runner, server: GrpcServer, methods: Methods) -> None:
        self._loop = runner.get_loop()
        self.server = server
        self.stats: ServerStats = server.stats
        self.methods = methods
        self.port = server.port

    def do(self, work: Any) -> Any:
        """Run a coroutine on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def release(self) -> None:
        async def release() -> None:
            self.methods.release()

        self.do(release())


@contextmanager
def echo_server(timeouts: Timeouts | None = None, **limits: int) -> Iterator[Echo]:
    methods = Methods()
    chosen = GrpcLimits(**({"max_message_bytes": 4 * 1024 * 1024} | limits))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def start() -> GrpcServer:
            server = GrpcServer(methods.table(), chosen, ServerStats(), timeouts)
            await server.listen("127.0.0.1", 0)
            return server

        server = runner.run(start())
        echo = Echo(runner, server, methods)
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield echo
        finally:
            echo.do(server.stop(0.1))
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
