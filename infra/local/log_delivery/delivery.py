"""Carries lines from the logs of functions to the functions that are subscribed to them, as CloudWatch Logs does.

The event is `{"awslogs": {"data": <Base64 of gzipped JSON>}}`; its form and the asynchronous invocation are those of
"Using subscription filters" (CloudWatch Logs user guide) and "Invoke a function with CloudWatch Logs" (Lambda developer
guide). One event holds lines of one log stream, so of one environment. What Lambda does with an event that fails,
retries included, is `LambdaService`'s.

Nothing here holds up a function: whoever logs only leaves the bytes in a bounded queue. Lines beyond the bound are
dropped, with one warning and a count.
"""

import asyncio
import base64
import contextlib
import gzip
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from infra.local.lambda_service.errors import LambdaApiError, TooManyRequestsError
from infra.local.lambda_service.service import LambdaService
from infra.local.log_delivery.pattern import Matcher, compile_pattern
from infra.local.stack import ACCOUNT_ID, LogSubscriptionSpec

BATCH_S: Final = 0.2
BATCH_LINES: Final = 500
BATCH_BYTES: Final = 256 * 1024
MAX_WAITING_LINES: Final = 50_000
MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
DRAIN_S: Final = 3.0
_THROTTLED_S: Final = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Whole lines that one environment logged at once; `first` is the number of the first one."""

    stream: str
    at_ms: int
    first: int
    lines: int
    data: bytes


class LogDelivery:
    """Runs the subscriptions of a stack. Make it, use it and close it in the event loop of its `LambdaService`."""

    def __init__(self, subscriptions: Sequence[LogSubscriptionSpec], service: LambdaService) -> None:
        self._service = service
        self._channels = [_Channel(spec, self._sender(spec)) for spec in subscriptions]
        self._lines = 0
        self._at_ms = 0
        for function in {source for spec in subscriptions for source in spec.sources}:
            self._tap([each for each in self._channels if function in each.spec.sources], function)
        self._tasks = [
            asyncio.get_running_loop().create_task(channel.run(), name=f"log subscription {channel.spec.name}")
            for channel in self._channels
        ]

    @property
    def dropped(self) -> int:
        """Lines that no subscription had room for."""
        return sum(channel.dropped for channel in self._channels)

    async def close(self, limit_s: float = DRAIN_S) -> None:
        """Deliver what has been logged, and wait for the functions that get it, but no longer than `limit_s`."""
        if not self._tasks:
            return
        deadline = asyncio.get_running_loop().time() + limit_s
        for channel in self._channels:
            channel.finish()
        await asyncio.wait(self._tasks, timeout=limit_s)
        await self._service.settle_events(max(0.0, deadline - asyncio.get_running_loop().time()))
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks = []
        if self.dropped:
            _log.warning("%d log lines were not delivered to subscriptions", self.dropped)

    def _tap(self, channels: Sequence["_Channel"], function: str) -> None:
        def take(stream: str, data: bytes) -> None:
            count = data.count(b"\n")
            # A clock that is set back must not make ids decrease.
            self._at_ms = max(self._at_ms, int(time.time() * 1000))
            chunk = _Chunk(stream, self._at_ms, self._lines, count, data)
            self._lines += count
            for channel in channels:
                channel.offer(chunk)

        self._service.tap_log(function, take)

    def _sender(self, spec: LogSubscriptionSpec) -> Callable[[bytes], Awaitable[None]]:
        async def send(payload: bytes) -> None:
            while True:
                try:
                    await self._service.invoke(spec.destination, payload, invocation_type="Event")
                except TooManyRequestsError:
                    await asyncio.sleep(_THROTTLED_S)
                except LambdaApiError as error:
                    _log.warning("%s: %s", spec.name, error)
                    return
                else:
                    return

        return send


class _Channel:
    """One subscription: its queue, and the task that empties it."""

    def __init__(self, spec: LogSubscriptionSpec, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.spec = spec
        self.dropped = 0
        self._send = send
        self._matches = compile_pattern(spec.filter_pattern)
        self._waiting: deque[_Chunk] = deque()
        self._lines = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._finishing = False

    def offer(self, chunk: _Chunk) -> None:
        """Queue lines, or drop them."""
        if self._lines + chunk.lines > MAX_WAITING_LINES or self._bytes + len(chunk.data) > MAX_WAITING_BYTES:
            if not self.dropped:
                _log.warning("the log subscription %s falls behind: lines are dropped", self.spec.name)
            self.dropped += chunk.lines
            return
        self._waiting.append(chunk)
        self._lines += chunk.lines
        self._bytes += len(chunk.data)
        self._arrived.set()
        if self._lines >= BATCH_LINES or self._bytes >= BATCH_BYTES:
            self._full.set()

    def finish(self) -> None:
        """Deliver what waits at once, and end."""
        self._finishing = True
        self._arrived.set()
        self._full.set()

    async def run(self) -> None:
        while self._waiting or not self._finishing:
            await self._arrived.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BATCH_S):
                    await self._full.wait()
            batch = self._take()
            # In a thread: matching and packing must not hold up the gateway, which runs in this loop.
            for payload in await asyncio.to_thread(_payloads, self.spec, self._matches, batch):
                await self._send(payload)

    def _take(self) -> list[_Chunk]:
        batch: list[_Chunk] = []
        lines = size = 0
        while self._waiting and lines < BATCH_LINES and size < BATCH_BYTES:
            chunk = self._waiting.popleft()
            batch.append(chunk)
            lines += chunk.lines
            size += len(chunk.data)
        self._lines -= lines
        self._bytes -= size
        if not self._finishing:
            if not self._waiting:
                self._arrived.clear()
            if self._lines < BATCH_LINES and self._bytes < BATCH_BYTES:
                self._full.clear()
        return batch


def _payloads(spec: LogSubscriptionSpec, matches: Matcher, batch: Sequence[_Chunk]) -> list[bytes]:
    by_stream: dict[str, list[dict[str, Any]]] = {}
    for chunk in batch:
        events = [event for event in _events(chunk) if matches(event["message"].rstrip("\n"))]
        if events:
            by_stream.setdefault(chunk.stream, []).extend(events)
    return [_payload(spec, stream, part) for stream, events in by_stream.items() for part in _parts(events)]


def _events(chunk: _Chunk) -> Iterator[dict[str, Any]]:
    # The line's end belongs to the message, as in AWS.
    for number, line in enumerate(chunk.data.splitlines(keepends=True), chunk.first):
        if line.strip():
            yield {
                "id": f"3{chunk.at_ms:014d}{number:041d}",
                "timestamp": chunk.at_ms,
                "message": line.decode("utf-8", "replace"),
            }


def _parts(events: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for event in events:
        if part and (len(part) == BATCH_LINES or size + len(event["message"]) > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(event)
        size += len(event["message"])
    if part:
        yield part


def _payload(spec: LogSubscriptionSpec, stream: str, events: Sequence[dict[str, Any]]) -> bytes:
    message = {
        "messageType": "DATA_MESSAGE",
        "owner": ACCOUNT_ID,
        "logGroup": spec.log_group,
        "logStream": stream,
        "subscriptionFilters": [spec.name],
        "logEvents": events,
    }
    data = base64.b64encode(gzip.compress(msgspec.json.encode(message), compresslevel=1, mtime=0))
    return msgspec.json.encode({"awslogs": {"data": data.decode("ascii")}})
