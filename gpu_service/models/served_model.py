"""A version of a model that is served: what was loaded, its queue, its figures."""

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


class ServedModel:
    """Belongs to the event loop. `last_used` is a time of `time.monotonic`: what nobody asks for is evicted first."""

    __slots__ = (
        "checker",
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

    @property
    def memory_bytes(self) -> int:
        """What unloading it would give back, as measured when it was loaded."""
        return self.loaded.memory_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self.queue.idle

    async def drain(self) -> None:
        """Return once nothing that was accepted for it is waiting or running."""
        await self.queue.drained()

    def close(self) -> None:
        """Give its memory back; call it in a thread, once it is drained and nobody can find it."""
        self.loaded.close()
