"""A faulty HTTP server in front of a model server: the Open Inference routes, SageMaker's own and the container's."""

import asyncio
import json
import re
import socket
import struct
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import aiohttp
from yarl import URL

from tests.adapters.backends.faults import MUTATIONS, Fault, Switch
from tests.adapters.backends.mutations import mutate_http

CONTROL: Final = "/-/faults"
PATIENCE_S: Final = 60.0
_HEADER_LENGTH = "inference-header-content-length"
_SIZE = re.compile(r"(.*;\s*json-header-size=)(\d+)(.*)")
_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "host"})
_BEYOND = 1 << 40
_ZEROS = bytes(65_536)

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class FaultyHttp:
    """Serves connections on the loop that it is started on; `/-/faults` reads (GET) and turns (PUT) the switch."""

    def __init__(self, switch: Switch, upstream: str) -> None:
        self._switch = switch
        self._upstream = upstream.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> int:
        """Listen; the port."""
        self._session = aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout(total=PATIENCE_S), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=256)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Let go of everything, whatever still waits."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: Reader, writer: Writer) -> bool:
        """Serve a request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = line.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        control = path == CONTROL
        fault = Fault() if control or method != "POST" else self._switch.take()
        if fault.kind == "reset-unread":
            return _reset(writer)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if control:
            return await self._controlled(method, body, writer)
        if fault.kind in {"reset", "closed", "hang"}:
            if fault.kind == "hang":
                await asyncio.sleep(PATIENCE_S)
            return _reset(writer) if fault.kind == "reset" else False
        return await self._answer(fault, method, path, headers, body, writer)

    async def _controlled(self, method: str, body: bytes, writer: Writer) -> bool:
        status = 200
        if method == "PUT":
            try:
                self._switch.apply(body)
            except (TypeError, ValueError) as error:
                await _send(writer, 400, {"content-type": "text/plain"}, str(error).encode())
                return True
        await _send(writer, status, {"content-type": "application/json"}, self._switch.state())
        return True

    async def _answer(
        self, fault: Fault, method: str, path: str, headers: Mapping[str, str], body: bytes, writer: Writer
    ) -> bool:
        plain = {"content-type": "application/json"}
        match fault.kind:
            case "status":
                await _send(writer, int(fault.status), {**plain, **fault.headers}, fault.body.encode())
            case "garbage":
                writer.write(b"\x00\xffthis is no HTTP\r\n\r\n")
                await writer.drain()
                return False
            case "nonsense":
                await _send(writer, 200, plain, b'{"outputs": 7}')
            case "redirect":
                await _send(writer, 307, {"location": path}, b"")
            case "bomb":
                packed = zlib.compress(bytes(64 << 20), 9)
                await _send(writer, 200, {**plain, "content-encoding": "deflate"}, packed)
            case "endless":
                return await _endless(writer, fault)
            case _:
                return await self._passed(fault, method, path, headers, body, writer)
        return True

    async def _passed(
        self, fault: Fault, method: str, path: str, headers: Mapping[str, str], body: bytes, writer: Writer
    ) -> bool:
        assert self._session is not None
        sent = {name: value for name, value in headers.items() if name not in _HOP}
        url = URL(self._upstream + path, encoded=True)
        async with self._session.request(method, url, headers=sent, data=body, allow_redirects=False) as upstream:
            answer = await upstream.read()
            given = {name.lower(): value for name, value in upstream.headers.items() if name.lower() not in _HOP}
            status = upstream.status
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        if fault.kind in MUTATIONS and status == 200:
            answer, given = _mutated(answer, given, fault.kind)
        if fault.kind == "drip":
            return await _drip(writer, _head(status, given, len(answer)) + answer, fault.seconds)
        if fault.kind == "truncated":
            writer.write(_head(status, given, len(answer)) + answer[: len(answer) // 2])
            await writer.drain()
            return False
        await _send(writer, status, given, answer)
        return True


def _mutated(answer: bytes, headers: dict[str, str], kind: str) -> tuple[bytes, dict[str, str]]:
    size = _SIZE.fullmatch(headers.get("content-type", ""))
    length = headers.get(_HEADER_LENGTH) or (size[2] if size else None)
    body, new = mutate_http(answer, int(length) if length else None, kind)
    if new is None:
        headers.pop(_HEADER_LENGTH, None)
        headers["content-type"] = "application/json"
    elif size:
        headers["content-type"] = f"{size[1]}{new}{size[3]}"
    else:
        headers[_HEADER_LENGTH] = str(new)
    return body, headers


async def _drip(writer: Writer, data: bytes, seconds: float) -> bool:
    for position in range(len(data)):
        writer.write(data[position : position + 1])
        await writer.drain()
        await asyncio.sleep(seconds)
    return True


async def _endless(writer: Writer, fault: Fault) -> bool:
    """More than was ever asked for: said beforehand, or, with the body `chunked`, not."""
    chunked = fault.body == "chunked"
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % _BEYOND
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + length + b"\r\n\r\n")
    part = b"%x\r\n%b\r\n" % (len(_ZEROS), _ZEROS) if chunked else _ZEROS
    for _ in range(_BEYOND // len(_ZEROS)):
        writer.write(part)
        await writer.drain()
    return False


def _head(status: int, headers: Mapping[str, str], length: int) -> bytes:
    reason = HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode("latin-1")


async def _send(writer: Writer, status: int, headers: Mapping[str, str], body: bytes) -> None:
    writer.write(_head(status, headers, len(body)) + body)
    await writer.drain()


def _reset(writer: Writer) -> bool:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def problem(code: str, detail: str = "said the server", **members: object) -> str:
    """A problem document as our container writes it."""
    return json.dumps({"type": f"urn:sluice:problem:{code}", "code": code, "detail": detail, **members})
