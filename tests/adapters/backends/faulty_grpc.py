"""A faulty gRPC server in front of a model server: ModelInfer only, as bytes."""

import asyncio
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import grpc

from tests.adapters.backends.faults import MUTATIONS, Fault, Switch
from tests.adapters.backends.mutations import mutate_grpc

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
PATIENCE_S: Final = 60.0
_LARGE: Final = 64 << 20


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, owner: "FaultyGrpc") -> None:
        self._owner = owner

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(self._owner.infer)


class FaultyGrpc:
    """A relay of bytes, which can reset connections, before a server that changes answers, before the upstream."""

    def __init__(self, switch: Switch, upstream: str) -> None:
        self._switch = switch
        self._upstream = upstream
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._relay: asyncio.Server | None = None
        self._port = 0

    async def start(self, port: int = 0) -> int:
        """Listen; the port."""
        self._loop = asyncio.get_running_loop()
        self._channel = grpc.insecure_channel(self._upstream, options=[("grpc.max_receive_message_length", -1)])
        self._forward: Any = self._channel.unary_unary(METHOD)
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            handlers=[_Handler(self)],
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
            compression=grpc.Compression.NoCompression,
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._relay = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=256)
        return int(self._relay.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Let go of everything, whatever still waits."""
        if self._relay is not None:
            self._relay.close()
        self._reset_all()
        await asyncio.to_thread(lambda: self._server.stop(0).wait(5))
        self._channel.close()

    def infer(self, request: bytes, context: Any) -> bytes:
        """Serve a call, in a thread of gRPC's."""
        fault = self._switch.take()
        match fault.kind:
            case "reset" | "reset-unread" | "closed":
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._reset_all)
                self._wait(context, PATIENCE_S)
            case "hang":
                self._wait(context, PATIENCE_S)
            case "status":
                _fail(context, fault)
            case "nonsense" | "garbage":
                return b"\xff\xff\xff this is no message"
            case "endless":
                return bytes(_LARGE)
            case "bomb":
                context.set_compression(grpc.Compression.Gzip)
                return bytes(_LARGE)
            case "slow":
                self._wait(context, fault.seconds)
        return self._passed(request, context, fault)

    def _passed(self, request: bytes, context: Any, fault: Fault) -> bytes:
        given = [(name, text) for name, text in context.invocation_metadata() if name != "user-agent"]
        try:
            answer = bytes(self._forward(request, timeout=context.time_remaining(), metadata=given))
        except grpc.RpcError as error:
            # One of the client's side has both, which the type of the error does not say.
            failed: Any = error
            context.set_trailing_metadata(tuple(failed.trailing_metadata() or ()))
            context.abort(failed.code(), failed.details() or "")
        if fault.kind == "truncated":
            return answer[: len(answer) // 2]
        return mutate_grpc(answer, fault.kind) if fault.kind in MUTATIONS else answer

    @staticmethod
    def _wait(context: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while context.is_active() and time.monotonic() < end:
            time.sleep(0.005)

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        server: asyncio.StreamWriter | None = None
        try:
            if self._switch.peek() == "reset-unread":
                self._switch.take()
                self._reset_all()
                return
            back, server = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(_copy(reader, server), self._back(back, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            for each in (writer, server):
                if each is not None:
                    each.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy answers; a dripping one byte by byte."""
        while data := await reader.read(65_536):
            if self._switch.peek() == "drip":
                for position in range(len(data)):
                    writer.write(data[position : position + 1])
                    await writer.drain()
                    await asyncio.sleep(0.02)
            elif self._switch.peek() == "garbage":
                writer.write(b"this is no HTTP/2 at all\r\n")
            else:
                writer.write(data)
            await writer.drain()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def _fail(context: Any, fault: Fault) -> NoReturn:
    context.set_trailing_metadata(tuple((name.lower(), text) for name, text in fault.headers.items()))
    context.abort(grpc.StatusCode[str(fault.status)], fault.body)
    raise AssertionError("abort raises")
