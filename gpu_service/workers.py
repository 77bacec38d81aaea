"""A bounded number of predictions at once, and a bounded queue in front of them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.domain.errors import BackendUnavailable

T = TypeVar("T")


class WorkerPool:
    """Runs work in threads, so that the event loop is free for `/ping`; belongs to one event loop."""

    def __init__(self, workers: int, queue_size: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="predict")
        self._limit = workers + queue_size
        self._accepted = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; BackendUnavailable at once if the queue is full."""
        if self._accepted >= self._limit:
            raise BackendUnavailable("The container is at its limit: as much as may wait is waiting.")
        self._accepted += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._accepted -= 1

    def close(self) -> None:
        """Start nothing further."""
        self._threads.shutdown(wait=False, cancel_futures=True)
