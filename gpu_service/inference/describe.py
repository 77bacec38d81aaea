"""What the Open Inference Protocol tells of a server and its models, as plain values for any transport.

The names are those of the protocol's JSON and of its messages alike.
Sources: Open Inference Protocol, "Server Metadata", "Model Metadata"; Triton Inference Server, "Model Configuration
Extension", "Statistics Extension", "Trace Extension", "Logging Extension".
"""

import logging
from typing import TYPE_CHECKING, Any

from gpu_service.inference.pipelines import JoinedPipeline
from gpu_service.inference.request import DEFAULT_PRIORITY, LEAST_PRIORITY
from shared.codecs import v2_metadata
from shared.codecs.v2_metadata import PLATFORM, dims
from shared.domain.dtypes import DType
from shared.domain.errors import ModelNotFound
from shared.domain.signature import Signature, TensorSpec
from shared.schemas.pipeline import PipelineDocument

if TYPE_CHECKING:
    from gpu_service.models.repository import ModelRepository
    from gpu_service.models.served_model import ServedModel
    from gpu_service.telemetry.measures import Duration
    from gpu_service.telemetry.stats import ModelStats

EXTENSIONS = (
    "binary_tensor_data",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
    "trace",
)
_INFER_TIMES = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of this server."""
    return v2_metadata.server_metadata(EXTENSIONS)


def model_metadata(model: "ServedModel", repository: "ModelRepository") -> dict[str, Any]:
    """The outer signature of a model, and the versions that are served; -1 is a dimension of any size."""
    name = model.key.name
    versions = [entry.key.version for entry in repository.entries(name) if entry.offered]
    return v2_metadata.model_metadata(name, versions, model.signature)


def model_config(model: "ServedModel") -> dict[str, Any]:
    """How a model is run. `dims` leave out the first axis where it counts rows."""
    signature, serving = model.signature, model.serving
    config: dict[str, Any] = {
        "name": model.key.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": signature.max_batch if signature.batched else 0,
        "input": [
            {**_tensor_config(spec, signature), **({"optional": True} if spec.optional else {})}
            for spec in signature.inputs
        ],
        "output": [_tensor_config(spec, signature) for spec in signature.outputs],
        "instance_group": [
            {
                "name": f"{model.key.name}_0",
                "kind": "KIND_GPU" if model.device == "gpu" else "KIND_CPU",
                "count": model.instances,
            }
        ],
        "default_model_filename": "model.onnx",
        "model_transaction_policy": {"decoupled": False},
        "response_cache": {"enable": serving.cache is not None},
    }
    if isinstance(model, JoinedPipeline):
        config |= _pipeline_config(model)
    elif signature.batched and serving.batching:
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
            "priority_levels": LEAST_PRIORITY,
            "default_priority_level": DEFAULT_PRIORITY,
        }
    return config


def _pipeline_config(model: JoinedPipeline) -> dict[str, Any]:
    """What differs for a pipeline; its steps are a parameter, in the form that its manifest has."""
    steps = PipelineDocument.from_pipeline(model.joined.pipeline).model_dump_json(exclude_none=True)
    return {
        "platform": "ensemble",
        "backend": "",
        "default_model_filename": "",
        "parameters": {"pipeline": {"string_value": steps}},
    }


def statistics(repository: "ModelRepository", name: str | None = None, version: int | None = None) -> dict[str, Any]:
    """The counters of what is served: of all models, of all versions of one, or of one version.

    Raises what `ModelRepository.get` raises if a named one is not served.
    """
    models = [
        entry.served
        for entry in repository.entries(name)
        if entry.served is not None and (version is None or entry.key.version == version)
    ]
    if name is not None and not models:
        models.append(repository.get(name, version))
    if name is None and version is not None:
        raise ModelNotFound("A version needs the name of its model.")
    return {"model_stats": [_model_statistics(model) for model in models]}


def trace_settings(*, traced: bool) -> dict[str, list[str]]:
    """What is traced: every request once an exporter is set, none otherwise."""
    level = "TIMESTAMPS" if traced else "OFF"
    return {"trace_level": [level], "trace_rate": ["1"], "trace_count": ["-1"], "trace_mode": ["opentelemetry"]}


def log_settings() -> dict[str, bool | int | str]:
    """What is logged; lines are JSON and go to the standard output."""
    level = logging.getLogger().getEffectiveLevel()
    return {
        "log_file": "",
        "log_info": level <= logging.INFO,
        "log_warning": level <= logging.WARNING,
        "log_error": level <= logging.ERROR,
        "log_verbose_level": int(level <= logging.DEBUG),
        "log_format": "json",
    }


def _tensor_config(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    kind = "STRING" if spec.dtype is DType.BYTES else spec.dtype.value
    shape = spec.shape[1:] if signature.has_rows(spec) else spec.shape
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": dims(shape)}


def _model_statistics(model: "ServedModel") -> dict[str, Any]:
    stats: ModelStats = model.stats
    return {
        "name": model.key.name,
        "version": model.version_text,
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {name: _duration(getattr(stats, name)) for name in _INFER_TIMES},
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _duration(duration)}
            for rows, duration in sorted(stats.batches.items())
        ],
        "memory_usage": [{"type": "CPU" if model.device == "cpu" else "GPU", "id": 0, "byte_size": model.memory_bytes}],
    }


def _duration(duration: "Duration") -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
