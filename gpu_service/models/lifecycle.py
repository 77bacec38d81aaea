"""One version at a time: into memory, out of it, and room for it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from gpu_service.logs import fields
from gpu_service.models.errors import ModelUnavailable, OutOfMemory
from gpu_service.models.loading import Package, PackageLoader, close_quietly
from shared.domain.errors import BackendTimeout, InvalidPackage, SluiceError

if TYPE_CHECKING:
    from gpu_service.models.memory import MemoryBudget
    from gpu_service.models.repository import Entry, ModelRepository
    from gpu_service.models.served_model import ModelKey, ServedModel
    from gpu_service.models.sources.source import Found

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FETCHERS = 4
_EVICTED = "evicted: the next request loads it again"


class Room(Enum):
    """What to do when a model does not fit: evict others, leave it to the first request, or refuse."""

    EVICT = auto()
    DEFER = auto()
    REFUSE = auto()


class Lifecycle:
    """Belongs to the event loop. Packages are fetched side by side; models are loaded one after another, in one thread.

    `pinned` names models that are never evicted. `drain_seconds` bounds how long an unloading is waited for; what runs
    longer gives its memory back later. `gone` is called with a version that is unloaded, or that another revision
    replaces: what is kept for its callers is of no use any more. Of one that is evicted they learn nothing.
    """

    def __init__(
        self,
        repository: "ModelRepository",
        loader: PackageLoader,
        budget: "MemoryBudget",
        *,
        pinned: frozenset[str] = frozenset(),
        drain_seconds: float = 30.0,
        gone: "Callable[[ModelKey], None]" = lambda _: None,
    ) -> None:
        self.budget = budget
        self._repository = repository
        self._loader = loader
        self._pinned = pinned
        self._drain_seconds = drain_seconds
        self._gone = gone
        self._turn = asyncio.Lock()
        self._loading = ThreadPoolExecutor(1, "model-load")
        self._fetching = ThreadPoolExecutor(_FETCHERS, "model-fetch")
        self._closing = ThreadPoolExecutor(1, "model-close")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that must not end with its caller: await the task shielded."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # Ours are in the log already, and with whoever waits for the task.
        if error is not None and not isinstance(error, SluiceError):
            _log.error("changing the models failed", exc_info=error)

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run something short that blocks, such as a listing."""
        return await asyncio.get_running_loop().run_in_executor(self._fetching, work, *arguments)

    async def load(self, found: "Found", room: Room, *, given: bool = False) -> bool:
        """Serve a package in place of what its key has now; False if it is not for containers.

        If it fails, whatever was served is served on. Raises InvalidPackage, DigestMismatch, BackendError, OutOfMemory,
        and ModelUnavailable if it was unloaded meanwhile.
        """
        begun = perf_counter()
        entry = self._repository.begin(found, given=given)
        epoch = entry.epoch
        names = {"model": found.key.name, "version": found.key.version}
        try:
            package = await self.in_thread(self._loader.prepare, found)
            if package is None:
                if not entry.loaded:
                    self._repository.forget(entry)
                return False
            async with self._turn:
                await self._bring_in(package, entry, epoch, room)
        except SluiceError as error:
            if room is Room.DEFER and isinstance(error, OutOfMemory) and entry.cost <= self.budget.limit:
                self._repository.defer(entry, found, f"{error.detail} The first request loads it.")
                _log.warning("model left for its first request", extra=fields(**names, reason=error.detail))
                return True
            refused = found.revision if isinstance(error, InvalidPackage) else None
            self._repository.fail(entry, error, refused=refused)
            _log.error(
                "model not loaded",
                extra=fields(**names, error=error.detail),
                exc_info=error if error.__cause__ else None,
            )
            raise
        ms = round((perf_counter() - begun) * 1e3, 1)
        _log.info("model loaded", extra=fields(**names, ms=ms, memory_bytes=entry.cost))
        return True

    def withdraw(self, entry: "Entry", reason: str, *, evicted: bool = False) -> "asyncio.Task[None] | None":
        """Give a version no further request; the task ends once it has given its memory back."""
        served = self._repository.withdraw(entry, reason, evicted=evicted)
        if not evicted:
            self._gone(entry.key)
        return None if served is None else self._retire(served, entry)

    async def unload(self, entry: "Entry", reason: str) -> None:
        """Withdraw a version and wait for its memory; BackendTimeout if requests are still running on it."""
        task = self.withdraw(entry, reason)
        if task is None:
            return
        await asyncio.wait([task], timeout=self._drain_seconds)
        if not task.done():
            raise BackendTimeout("Requests are still running on the model; its memory is given back once they end.")

    async def stop(self) -> None:
        """Load nothing further; what a thread has begun ends with the process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self._loading, self._fetching, self._closing):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _bring_in(self, package: Package, entry: "Entry", epoch: int, room: Room) -> None:
        _check_wanted(entry, epoch)
        revision = package.found.revision
        if entry.measured != revision:
            entry.cost = package.nbytes
        await self._make_room(entry, entry.cost, room)
        loop = asyncio.get_running_loop()
        served, entry.cost = await loop.run_in_executor(self._loading, self._loader.load, package)
        entry.measured = revision
        self.budget.take(served, entry.cost)
        try:
            await self._make_room(entry, 0, room)
            _check_wanted(entry, epoch)
        except SluiceError:
            await self._close(served)
            raise
        changed = entry.found.revision != revision
        before = self._repository.serve(entry, served, package.found)
        if changed:
            self._gone(entry.key)
        if before is not None:
            self._retire(before, entry)

    async def _make_room(self, entry: "Entry", nbytes: int, room: Room) -> None:
        """Return once `nbytes` are free; OutOfMemory if they cannot be had."""
        budget = self.budget
        if entry.cost > budget.limit:
            raise OutOfMemory(f"The model takes {entry.cost} bytes; all models together may take {budget.limit}.")
        if nbytes > budget.free:
            await self._wait_for_retiring()
        if nbytes > budget.free and room is Room.EVICT:
            for victim in self._victims(entry, nbytes - budget.free):
                self.withdraw(victim, _EVICTED, evicted=True)
                _log.info("model evicted", extra=fields(model=victim.key.name, version=victim.key.version))
            await self._wait_for_retiring()
        if nbytes > budget.free:
            raise OutOfMemory(f"The model takes {entry.cost} bytes; of {budget.limit}, {budget.used} are taken.")

    def _victims(self, entry: "Entry", nbytes: int) -> "list[Entry]":
        """The least recently used models that nobody uses now; none if all together would not do."""
        idle = [
            (other.served.last_used, index, other, self.budget.cost(other.served))
            for index, other in enumerate(self._repository.entries())
            if other is not entry
            and other.served
            and other.served.idle
            and not other.served.needs  # a pipeline takes no memory of its own
            and other.key.name not in self._pinned
        ]
        victims: list[Entry] = []
        for _, _, victim, cost in sorted(idle):
            if nbytes <= 0:
                break
            victims.append(victim)
            nbytes -= cost
        return victims if nbytes <= 0 else []

    async def _wait_for_retiring(self) -> None:
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=self._drain_seconds)

    def _retire(self, served: "ServedModel", entry: "Entry") -> asyncio.Task[None]:
        task = self.spawn(self._drain(served, entry))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _drain(self, served: "ServedModel", entry: "Entry") -> None:
        await served.drain()
        await self._close(served)
        self._repository.settle(entry)

    async def _close(self, served: "ServedModel") -> None:
        await asyncio.get_running_loop().run_in_executor(self._closing, close_quietly, served)
        self.budget.give_back(served)


def _check_wanted(entry: "Entry", epoch: int) -> None:
    if entry.epoch != epoch:
        raise ModelUnavailable("It was unloaded while it was being loaded.")
