"""Pipelines as served models: what the repository knows of one, and what it is once its steps are served."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gpu_service.inference.pipeline_run import Joined, PipelineQueue
from gpu_service.models.served_model import Holds, ModelKey, ServedModel
from gpu_service.scheduling.batch import BatchPlan
from gpu_service.telemetry.stats import ModelStats
from shared.adapters.onnx.outputs import Output
from shared.domain.errors import DigestMismatch, InvalidPackage
from shared.domain.input_checker import InputChecker
from shared.domain.pipeline import plan_of
from shared.domain.serving import ServingPolicy

if TYPE_CHECKING:
    from gpu_service.inference.sharing import Sharing
    from shared.adapters.pipeline_package import PipelineDraft
    from shared.schemas.manifest import Manifest

MakeSharing = Callable[[ModelKey, "Manifest", PipelineQueue, ModelStats], "Sharing | None"]


class JoinedPipeline(ServedModel):
    """A pipeline with its steps: what requests are for. Another one takes its place when a step is loaded anew."""

    __slots__ = ("joined",)

    def __init__(
        self,
        key: ModelKey,
        manifest: "Manifest",
        joined: Joined,
        queue: PipelineQueue,
        stats: ModelStats,
        sharing: "Sharing | None",
    ) -> None:
        self.key = key
        self.version_text = str(key.version)
        self.manifest = manifest
        self.joined = joined
        self.signature = joined.checker.signature
        self.serving = manifest.serving_policy()
        self.queue = queue  # type: ignore[assignment]  # the part of a queue that doors use
        self.stats = stats
        self.sharing = sharing
        self.checker = joined.checker
        self.plan = BatchPlan(self.signature, ServingPolicy(batching=False))

    @property
    def last_used(self) -> float:
        """When a step was last used: they are what memory is taken by."""
        return max(model.last_used for model in self.joined.steps.values())

    @last_used.setter
    def last_used(self, now: float) -> None:
        for model in self.joined.steps.values():
            model.last_used = now

    @property
    def needs(self) -> tuple[ModelKey, ...]:
        """The models of its steps."""
        return tuple(model.key for model in self.joined.steps.values())

    @property
    def device(self) -> str:
        """`gpu` if any step runs there."""
        return "gpu" if any(model.device == "gpu" for model in self.joined.steps.values()) else "cpu"

    @property
    def instances(self) -> int:
        """As many as its narrowest step has."""
        return min(model.instances for model in self.joined.steps.values())

    @property
    def memory_bytes(self) -> int:
        """Nothing beside its steps."""
        return 0


class ServedPipeline(ServedModel):
    """A pipeline that is loaded; `join` gives what answers requests, whenever its steps have changed."""

    __slots__ = ("_draft", "_make_sharing", "_memory_bytes", "joined", "running")

    def __init__(self, key: ModelKey, draft: "PipelineDraft", memory_bytes: int, make_sharing: MakeSharing) -> None:
        self.key = key
        self.version_text = str(key.version)
        self.stats = ModelStats()
        self.last_used = 0.0
        self.sharing = None
        self.running = Holds()
        self.joined: JoinedPipeline | None = None
        self._draft = draft
        self._memory_bytes = memory_bytes
        self._make_sharing = make_sharing

    @property
    def needs(self) -> tuple[ModelKey, ...]:
        """The models of its steps."""
        return tuple(ModelKey(step.model, step.version) for step in self._draft.pipeline.steps)

    @property
    def answers(self) -> ServedModel | None:
        """What requests are given to; None while the steps are not in memory."""
        return self.joined

    def join(self, models: Mapping[ModelKey, ServedModel]) -> None:
        """Answer requests with these models as its steps.

        InvalidPackage if they do not fit together, DigestMismatch if one is not what the pipeline was published with.
        """
        pipeline = self._draft.pipeline
        steps = {step.name: models[ModelKey(step.model, step.version)] for step in pipeline.steps}
        if self.joined is not None and all(self.joined.joined.steps[name] is model for name, model in steps.items()):
            return
        self.joined = None
        for step in pipeline.steps:
            label = step.label[0].upper() + step.label[1:]
            if steps[step.name].needs:
                raise InvalidPackage(f"{label} is a pipeline itself: name its steps in its place.")
            if step.digest and steps[step.name].digest != step.digest:
                raise DigestMismatch(f"{label} is not the one that the pipeline was published with.")
        manifest = self._draft.complete({name: model.signature for name, model in steps.items()})
        signature = manifest.signature.to_signature()
        outputs = {spec.name: Output(spec, spec.name) for spec in signature.outputs}
        joined = Joined(pipeline, steps, InputChecker(signature), outputs, plan_of(pipeline))
        queue = PipelineQueue(joined, self.running, self.stats)
        sharing = self._make_sharing(self.key, manifest, queue, self.stats)
        self.joined = JoinedPipeline(self.key, manifest, joined, queue, self.stats, sharing)

    def part(self) -> None:
        """Answer nothing further until the next `join`; what is under way goes on."""
        self.joined = None

    @property
    def device(self) -> str:
        """`gpu` if any step runs there."""
        return "cpu" if self.joined is None else self.joined.device

    @property
    def memory_bytes(self) -> int:
        """Its manifest's bytes: the weights are its steps'."""
        return self._memory_bytes

    @property
    def idle(self) -> bool:
        """Whether no request is on its way."""
        return not self.running.count

    async def drain(self) -> None:
        """Return once no request is on its way."""
        await self.running.none()

    def close(self) -> None:
        """Forget its steps."""
        self.joined = None
