"""A version of a model that is served: what was loaded, its queue, its figures."""

from asyncio import Future, get_running_loop
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_service.scheduling.batch import BatchPlan
from shared.domain.input_checker import InputChecker

if TYPE_CHECKING:
    from gpu_service.execution.loaded_model import LoadedModel
    from gpu_service.inference.sharing import Sharing
    from gpu_service.scheduling.model_queue import ModelQueue
    from gpu_service.telemetry.stats import ModelStats
    from shared.domain.serving import ServingPolicy
    from shared.domain.signature import Signature
    from shared.schemas.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A version of a model."""

    name: str
    version: int


class Holds:
    """A count, and those who wait until it is 0; belongs to the event loop."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[Future[None]] = []

    def take(self) -> None:
        """One more."""
        self.count += 1

    def give(self) -> None:
        """One less."""
        self.count -= 1
        if not self.count:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting.clear()

    async def none(self) -> None:
        """Return once there are none."""
        while self.count:
            waiter: Future[None] = get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter


class ServedModel:
    """Belongs to the event loop. `last_used` is a time of `time.monotonic`: what nobody asks for is evicted first.

    `digest` is that of the package where it is known, else empty. `holds` counts the requests of pipelines that have a
    step on this model and are on their way.
    """

    __slots__ = (
        "checker",
        "digest",
        "holds",
        "key",
        "last_used",
        "loaded",
        "manifest",
        "plan",
        "queue",
        "serving",
        "sharing",
        "signature",
        "stats",
        "version_text",
    )

    def __init__(
        self,
        key: ModelKey,
        loaded: "LoadedModel",
        serving: "ServingPolicy",
        queue: "ModelQueue",
        stats: "ModelStats",
        sharing: "Sharing | None" = None,
    ) -> None:
        self.key = key
        self.version_text = str(key.version)
        self.loaded = loaded
        self.manifest: Manifest = loaded.manifest
        self.signature: Signature = loaded.signature
        self.serving = serving
        self.queue = queue
        queue.model = self
        self.stats = stats
        self.sharing = sharing
        self.checker = InputChecker(loaded.signature)
        self.plan = BatchPlan(loaded.signature, serving)
        self.last_used = 0.0
        self.digest = ""
        self.holds = Holds()

    @property
    def needs(self) -> tuple[ModelKey, ...]:
        """The models without which it cannot answer: none, unless it is a pipeline."""
        return ()

    @property
    def answers(self) -> "ServedModel | None":
        """What requests are given to: itself, unless it is a pipeline."""
        return self

    def join(self, models: "Mapping[ModelKey, ServedModel]") -> None:
        """The models that it `needs` are in memory: nothing, unless it is a pipeline."""

    def part(self) -> None:
        """They are not in memory any more."""

    @property
    def device(self) -> str:
        """`cpu` or `gpu`."""
        return self.loaded.device

    @property
    def instances(self) -> int:
        """How many batches run at once."""
        return self.loaded.instances

    @property
    def memory_bytes(self) -> int:
        """What unloading it would give back, as measured when it was loaded."""
        return self.loaded.memory_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self.queue.idle and not self.holds.count

    async def drain(self) -> None:
        """Return once nothing that was accepted for it is waiting or running."""
        while not self.idle:
            await self.holds.none()
            await self.queue.drained()

    def close(self) -> None:
        """Give its memory back; call it in a thread, once it is drained and nobody can find it."""
        self.loaded.close()
