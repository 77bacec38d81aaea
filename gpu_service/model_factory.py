"""From a verified package on the disk to a model that can be served."""

from pathlib import Path

from gpu_service.execution.loaded_model import LoadedModel, load_model
from gpu_service.execution.options import ExecutionOptions, TensorRtOptions
from gpu_service.inference.pipeline_run import PipelineQueue
from gpu_service.inference.pipelines import ServedPipeline
from gpu_service.inference.sharing import Sharing, sharing_for
from gpu_service.models.served_model import ModelKey, ServedModel
from gpu_service.scheduling.cost import CostModel
from gpu_service.scheduling.executor import Executor
from gpu_service.scheduling.model_queue import Batching, ModelQueue, QueueLimits
from gpu_service.settings import Settings
from gpu_service.telemetry.stats import ModelStats
from shared.adapters.onnx.package import MANIFEST_FILE, MODEL_FILE
from shared.adapters.pipeline_package import read_draft
from shared.domain.dtypes import DType
from shared.domain.serving import ServingPolicy
from shared.schemas.manifest import Manifest

_MAX_BATCH_BYTES = 256 * 1024 * 1024
_MAX_LOOK_BYTES = 64 * 1024 * 1024


class ModelFactory:
    """Called in the loader's thread, for one model at a time."""

    def __init__(self, settings: Settings, executor: Executor, cpus: int) -> None:
        self._executor = executor
        self._limits = QueueLimits(settings.queue_size, settings.queue_bytes)
        self._options = ExecutionOptions(
            providers=tuple(settings.providers.split(",")),
            cpus=cpus,
            device_id=settings.gpu_device,
            gpu_mem_limit=settings.gpu_memory_limit_bytes,
            cuda_graphs=settings.cuda_graphs,
            tensorrt=TensorRtOptions(fp16=settings.tensorrt_fp16),
            cache_dir=settings.cache_dir,
        )

    def __call__(self, folder: Path, key: ModelKey) -> ServedModel:
        """The model, loaded and warm, or the pipeline; InvalidPackage or BackendError."""
        draft = read_draft(folder)
        if draft is not None:
            return ServedPipeline(key, draft, (folder / MANIFEST_FILE).stat().st_size, _pipeline_sharing)
        loaded = load_model(folder, key, self._options)
        cost = CostModel()
        for rows, seconds in loaded.warm_up().items():
            cost.observe(rows, seconds)
        serving = loaded.manifest.serving_policy()
        stats = ModelStats()
        batching = _batching(loaded, serving, inline=loaded.device == "cpu" and _has_steady_cost(loaded, folder))
        queue = ModelQueue(self._executor, batching, cost, self._limits, stats)
        sharing = sharing_for(key, loaded.signature, serving, queue, stats)
        return ServedModel(key, loaded, serving, queue, stats, sharing)


def _pipeline_sharing(key: ModelKey, manifest: Manifest, queue: PipelineQueue, stats: ModelStats) -> Sharing | None:
    return sharing_for(key, manifest.signature.to_signature(), manifest.serving_policy(), queue, stats)


def _batching(loaded: LoadedModel, serving: ServingPolicy, *, inline: bool) -> Batching:
    signature = loaded.signature
    return Batching(
        max_rows=serving.max_rows or signature.max_batch,
        max_bytes=serving.max_bytes or _MAX_BATCH_BYTES,
        callers=loaded.instances,
        inline=inline,
        wide=loaded.has_wide,
    )


def _has_steady_cost(loaded: LoadedModel, folder: Path) -> bool:
    """Whether rows alone tell how long a run takes: no axis of any size, nothing pre-processed, and no loop."""
    return all(
        spec.dtype is not DType.BYTES and not spec.takes_images and None not in spec.shape[1:]
        for spec in loaded.signature.inputs
    ) and not _may_loop(folder / MODEL_FILE)


def _may_loop(path: Path) -> bool:
    """Whether a graph may hold a loop, whose length can depend on values; what is too large to look through may.

    `op_type` is field 4 of NodeProto (onnx.proto): its tag, the length and the text stand together in the file.
    """
    if path.stat().st_size > _MAX_LOOK_BYTES:
        return True
    graph = path.read_bytes()
    return any(b"\x22%c%b" % (len(name), name) in graph for name in (b"Loop", b"Scan"))
