"""Models served in this process: the real factory, executor and data plane on an event loop of their own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import numpy as np
import uvloop

from gpu_service.inference.dataplane import DataPlane
from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.model_factory import ModelFactory
from gpu_service.models.lifecycle import Lifecycle
from gpu_service.models.loading import PackageLoader
from gpu_service.models.manager import ModelManager
from gpu_service.models.memory import MemoryBudget
from gpu_service.models.policy import parse_policies
from gpu_service.models.repository import ModelRepository
from gpu_service.models.sources.folder import FolderSource
from gpu_service.models.sync import SourceSync
from gpu_service.scheduling.executor import Executor
from gpu_service.settings import Settings
from shared.codecs.content.decoded import Decoded
from shared.domain.validation import Inputs

T = TypeVar("T")


class Serving:
    def __init__(self, dataplane: DataPlane, executor: Executor, manager: ModelManager, lifecycle: Lifecycle) -> None:
        self.dataplane = dataplane
        self.lifecycle = lifecycle
        self.executor = executor
        self.manager = manager

    async def infer(self, model: str, outputs: tuple[str, ...] = (), **call: Any) -> InferenceRequest:
        """Predict; keywords that are arrays are inputs, the others belong to the call."""
        tensors = {name: call.pop(name) for name in list(call) if isinstance(call[name], np.ndarray)}
        parameters = call.pop("parameters", {})
        decoded = Decoded(Inputs(tensors), outputs, parameters=parameters)
        return await self.dataplane.infer(Call(model, **call), lambda served: decoded)

    def model(self, name: str) -> Any:
        return self.dataplane.repository.get(name, None)


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Serving]:
    """Serve the models of a folder, once all are loaded."""
    chosen = Settings(model_dir=folder, **settings)
    executor = Executor(asyncio.get_running_loop(), cpus=chosen.threads or 2)
    repository = ModelRepository()
    source = FolderSource(folder)
    factory = ModelFactory(chosen, executor, chosen.threads or 2)
    lifecycle = Lifecycle(repository, PackageLoader(source.fetch, factory), MemoryBudget(1 << 40))
    manager = ModelManager(
        repository, lifecycle, SourceSync(repository, lifecycle, source, parse_policies("all"), poll_seconds=1)
    )
    manager.start()
    deadline = monotonic() + 60
    while not repository.readiness().ready:
        assert monotonic() < deadline, repository.readiness().reason
        await asyncio.sleep(0.005)
    try:
        yield Serving(DataPlane(repository, manager), executor, manager, lifecycle)
    finally:
        await manager.stop()
        executor.close()


def on_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function on the event loop that the container uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


async def outcome(work: Awaitable[T]) -> T | Exception:
    """What it gives, or its error."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the caller looks at it
        return error
