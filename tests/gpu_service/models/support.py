"""Served models without a scheduler: what the repository needs of them, and a count of what runs on them."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, get_ident
from typing import Any

import numpy as np
import psutil

from gpu_service.models.lifecycle import Lifecycle
from gpu_service.models.loading import LoadModel, PackageLoader
from gpu_service.models.manager import ModelManager
from gpu_service.models.memory import MemoryBudget
from gpu_service.models.multi_model import MultiModel, fetch_folder
from gpu_service.models.policy import parse_policies
from gpu_service.models.repository import ModelRepository
from gpu_service.models.served_model import ModelKey, ServedModel
from gpu_service.models.sources.folder import FolderSource
from gpu_service.models.sources.source import ModelSource
from gpu_service.models.sync import SourceSync
from shared.adapters.onnx.package import OnnxPackage

MB = 1_000_000


class FakeServed(ServedModel):
    """`begin` and `end` stand for a request on it; a real package runs when there is one."""

    def __init__(self, key: ModelKey, nbytes: int = 1, package: OnnxPackage | None = None) -> None:
        self.key = key
        self.last_used = 0.0
        self.nbytes = nbytes
        self.package = package
        self.running = 0
        self.closed = False
        self.closed_in = 0
        self._ended = asyncio.Event()

    @property
    def memory_bytes(self) -> int:
        return self.nbytes

    @property
    def idle(self) -> bool:
        return self.running == 0

    def begin(self) -> None:
        assert not self.closed
        self.running += 1

    def end(self) -> None:
        assert not self.closed
        self.running -= 1
        self._ended.set()

    async def drain(self) -> None:
        while self.running:
            self._ended.clear()
            await self._ended.wait()

    def close(self) -> None:
        assert not self.running
        self.closed = True
        self.closed_in = get_ident()
        self.package = None

    async def predict(self, x: float) -> float:
        """One row through the real graph in a thread, as a request that holds the model while it runs."""
        self.begin()
        package = self.package
        assert package is not None
        inputs = {"x": np.full((1, 2), x, np.float32)}
        outputs = await asyncio.get_running_loop().run_in_executor(None, package.run, inputs)
        self.end()
        return float(outputs["y"][0, 0])


@dataclass
class Factory:
    """A `LoadModel`: `sizes` by name and version, else by name; an exception in `errors` is raised once for its key."""

    sizes: dict[Any, int] = field(default_factory=dict)
    errors: dict[ModelKey, Exception] = field(default_factory=dict)
    loaded: list[ModelKey] = field(default_factory=list)
    made: list[FakeServed] = field(default_factory=list)
    real: bool = False
    before: Callable[[ModelKey], None] = lambda key: None
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, folder: Path, key: ModelKey) -> ServedModel:
        assert self._lock.acquire(blocking=False), "models are loaded one at a time"
        try:
            self.before(key)
            if key in self.errors:
                raise self.errors.pop(key)
            package = OnnxPackage.load(folder, threads=1, name=key.name, version=key.version) if self.real else None
            size = self.sizes.get((key.name, key.version), self.sizes.get(key.name, 1))
            self.loaded.append(key)
            self.made.append(FakeServed(key, size, package))
            return self.made[-1]
        finally:
            self._lock.release()


class House:
    """Everything joined, as the composition root does it."""

    def __init__(
        self,
        factory: LoadModel,
        source: ModelSource | Path | None,
        *,
        budget: int = 100 * MB,
        policy: str = "",
        pinned: frozenset[str] = frozenset(),
        drain_seconds: float = 30.0,
        root: Path = Path("/opt/ml/models"),
    ) -> None:
        self.repository = ModelRepository()
        self.budget = MemoryBudget(budget)
        self.gone: list[ModelKey] = []  # versions whose callers' sessions are to be forgotten
        source = FolderSource(source) if isinstance(source, Path) else source
        fetch = fetch_folder if source is None else source.fetch
        self.lifecycle = Lifecycle(
            self.repository,
            PackageLoader(fetch, factory, named=source is not None),
            self.budget,
            pinned=pinned,
            drain_seconds=drain_seconds,
            gone=self.gone.append,
        )
        policies = parse_policies(policy)
        sync = None if source is None else SourceSync(self.repository, self.lifecycle, source, policies, 0.01)
        self.manager = ModelManager(self.repository, self.lifecycle, sync)
        self.multi = MultiModel(self.repository, self.lifecycle, policies, root)

    async def __aenter__(self) -> "House":
        self.manager.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.manager.stop()

    async def ready(self) -> "House":
        await until(lambda: self.repository.readiness().ready)
        return self

    def served(self) -> dict[str, list[int]]:
        """Versions in memory by name."""
        found: dict[str, list[int]] = {}
        for entry in self.repository.entries():
            if entry.served:
                found.setdefault(entry.key.name, []).append(entry.key.version)
        return found

    def states(self) -> dict[str, str]:
        return {f"{row['name']}/{row['version']}": row["state"] for row in self.manager.index()}

    def model(self, name: str | None = None, version: int | None = None) -> FakeServed:
        served = self.repository.get(name, version)
        assert isinstance(served, FakeServed)
        return served


async def until(condition: Callable[[], object]) -> None:
    """Wait until it is true; the test's own time limit ends the wait."""
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


def memory_in_use() -> int:
    """The resident set of this process, without the garbage of other tests."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)
