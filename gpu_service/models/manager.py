"""What the transports ask of the model repository, beside looking models up.

Source of the V2 part: Triton Inference Server, "Model Repository Extension".
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from gpu_service.models.errors import ModelEvicted, ModelUnavailable
from gpu_service.models.lifecycle import Lifecycle, Room
from gpu_service.models.repository import ModelRepository, State
from shared.domain.errors import BackendTimeout, InvalidRequest

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey, ServedModel
    from gpu_service.models.sync import SourceSync

_MAX_WAITING = 4096
_ATTEMPTS = 3


class ModelManager:
    """Belongs to the event loop. Without `sync` (a multi-model endpoint) nothing is given at start."""

    def __init__(self, repository: ModelRepository, lifecycle: Lifecycle, sync: "SourceSync | None") -> None:
        self._repository = repository
        self._lifecycle = lifecycle
        self._sync = sync
        self._reloads: dict[ModelKey, asyncio.Task[None]] = {}
        self._waiting = 0

    def start(self) -> None:
        """Begin to load; the event loop runs."""
        if self._sync is None:
            self._repository.pending(None)
        else:
            self._lifecycle.spawn(self._sync.watch())

    async def stop(self) -> None:
        """Load nothing further."""
        await self._lifecycle.stop()

    async def ensure(self, name: str | None, version: int | None, deadline: float = inf) -> "ServedModel":
        """As `ModelRepository.get`, but loads what was evicted; callers of the same version wait for one load.

        `deadline` is a time of `time.monotonic`. Raises what `get` raises, BackendTimeout at the deadline, and what the
        load raises.
        """
        attempts: Counter[ModelKey] = Counter()
        while True:
            try:
                return self._repository.get(name, version)
            except ModelEvicted as evicted:
                key = evicted.key  # of a pipeline that of a step, one after the other
            if attempts[key] == _ATTEMPTS:
                break
            attempts[key] += 1
            if self._waiting >= _MAX_WAITING:
                raise ModelUnavailable(f"{self._waiting} requests are waiting for models to be loaded already.")
            self._waiting += 1
            try:
                async with asyncio.timeout(None if deadline == inf else deadline - monotonic()):
                    await asyncio.shield(self._reload(key))
            except TimeoutError:
                raise BackendTimeout("The deadline passed while the model was being loaded.") from None
            finally:
                self._waiting -= 1
        raise ModelUnavailable(f"Model {key.name!r} version {key.version} is evicted as soon as it is loaded.")

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Every version known, or those that are READY, with its state and why it is in it."""
        return [
            {
                "name": entry.key.name,
                "version": str(entry.key.version),
                "state": entry.state.value,
                "reason": entry.reason,
            }
            for entry in self._repository.entries()
            if not ready or entry.state is State.READY
        ]

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Look into the source again for a model, load what is new or changed, unload what is gone.

        Raises InvalidRequest for parameters, ModelNotFound and VersionNotFound if the source has nothing to serve,
        BackendUnavailable if it cannot be read, VersionConflict if an immutable version has changed, and what the first
        load that failed raises; the other versions are loaded then, and what was served is served on.
        """
        sync = self._source_only("POST /models loads models")
        if parameters:
            raise InvalidRequest(
                f"Loading takes no parameters ({', '.join(sorted(parameters))[:200]}): a model is served as its "
                "package says, so neither its configuration nor its files can be overridden."
            )
        await asyncio.shield(self._lifecycle.spawn(sync.load(name)))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Serve a model no more and give its memory back; it stays in the index.

        A pipeline with it as a step is not ready until it is loaded again. With `unload_dependents`, the models that
        are steps of this one go too, unless another pipeline has them as steps. Raises ModelNotFound, and
        BackendTimeout if requests still run on it.
        """
        sync = self._source_only("DELETE /models/{name} unloads them")
        steps = self._repository.steps_of(name) if unload_dependents else ()
        await asyncio.shield(self._lifecycle.spawn(sync.unload(name)))
        for step in steps:
            if not self._repository.is_step(step):
                await asyncio.shield(self._lifecycle.spawn(sync.unload(step)))

    def _source_only(self, instead: str) -> "SourceSync":
        if self._sync is None:
            raise InvalidRequest(f"This is a multi-model endpoint: {instead}.")
        return self._sync

    def _reload(self, key: "ModelKey") -> "asyncio.Task[None]":
        task = self._reloads.get(key)
        if task is None:
            task = self._reloads[key] = self._lifecycle.spawn(self._bring_back(key))
            task.add_done_callback(lambda _: self._reloads.pop(key, None))
        return task

    async def _bring_back(self, key: "ModelKey") -> None:
        entry = self._repository.entry(key)
        if entry is not None and entry.evicted:
            await self._lifecycle.load(entry.found, Room.EVICT)
