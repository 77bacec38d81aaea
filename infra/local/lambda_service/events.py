"""Asynchronous invocations: accepted at once, run later, tried again when the function fails.

Source: "How Lambda handles errors and retries with asynchronous invocation" of the Lambda developer guide. Lambda waits
one minute, then two; here it is seconds. What has failed for good is handed to `FailedEvents`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from infra.local.lambda_service.errors import ServiceError, TooManyRequestsError
from infra.local.lambda_service.invocation import Invocation, InvokeResult
from infra.local.lambda_service.pool import Pool
from infra.local.stack import FunctionSpec

RETRY_DELAYS_S: Final = (1.0, 2.0)
_THROTTLED_S: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event that its function has failed on `attempts` times; `result` is that of the last one."""

    function: FunctionSpec
    payload: bytes
    result: InvokeResult
    attempts: int


class FailedEvents(Protocol):
    """Where failed events go: a dead-letter queue, a destination."""

    async def __call__(self, event: FailedEvent) -> None:
        """Keep one event; it must not raise."""


class Events:
    """The asynchronous invocations of all functions, `limit` at most under way or waiting."""

    def __init__(
        self,
        run: Callable[[Pool, Invocation], Awaitable[InvokeResult]],
        *,
        limit: int,
        retry_delays_s: Sequence[float],
        failed: FailedEvents | None,
    ) -> None:
        self._run = run
        self._limit = limit
        self._retry_delays_s = tuple(retry_delays_s)
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, pool: Pool, invocation: Invocation) -> None:
        """Run it later.

        Raises:
            TooManyRequestsError: there are `limit` already.

        """
        if len(self._tasks) >= self._limit:
            raise TooManyRequestsError("Rate Exceeded.")
        task = asyncio.get_running_loop().create_task(self._live(pool, invocation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, limit_s: float) -> None:
        """Wait until none is under way or waiting, but no longer than `limit_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Give all of them up; returns the tasks to be awaited."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _live(self, pool: Pool, invocation: Invocation) -> None:
        with contextlib.suppress(ServiceError):  # closing, or reported in the function's log
            result, attempts = await self._admitted(pool, invocation), 1
            for delay in self._retry_delays_s[: pool.spec.event_retries]:
                if result.function_error is None:
                    return
                await asyncio.sleep(delay)
                again = asyncio.get_running_loop().create_future()
                invocation = replace(invocation, result=again, deadline_at=0.0)
                result, attempts = await self._admitted(pool, invocation), attempts + 1
            if result.function_error is not None:
                event = FailedEvent(pool.spec, invocation.payload, result, attempts)
                _log.warning("%s has failed on the event %s for good", pool.spec.logical_id, invocation.request_id)
                if self._failed is not None:
                    await self._failed(event)

    async def _admitted(self, pool: Pool, invocation: Invocation) -> InvokeResult:
        # Lambda keeps a throttled event and tries again; the number of events that do so is bounded by `limit`.
        while True:
            try:
                return await self._run(pool, invocation)
            except TooManyRequestsError:
                await asyncio.sleep(_THROTTLED_S)
