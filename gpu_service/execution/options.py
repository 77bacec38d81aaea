"""How models are run: what the container's settings say about it, the same for all models."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.adapters.onnx.session import CPU

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """`fp16` lets TensorRT compute in half precision; `workspace_bytes` bounds its scratch memory (0: its own choice).

    Source: ONNX Runtime, "TensorRT Execution Provider".
    """

    fp16: bool = False
    workspace_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """`providers` in order of preference, each of which must load; `cpus` bounds the threads of one run.

    `gpu_mem_limit` bounds CUDA's arena in bytes (0: no bound). `tf32` allows 19-bit products of FP32 matrices.
    `cuda_graphs` replays captured runs where all shapes but the rows are fixed; batches are then filled up to one of
    `row_buckets`. `cache_dir` keeps TensorRT's engines and timings between starts. `instances` is how many batches of a
    model run at once (None: as many as there are CPUs, or two on a GPU: one is copied while the other runs).
    """

    providers: tuple[str, ...] = (CPU,)
    cpus: int = 1
    device_id: int = 0
    gpu_mem_limit: int = 0
    tf32: bool = True
    cuda_graphs: bool = False
    row_buckets: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)
    cache_dir: Path | None = None
    instances: int | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether any provider computes on a GPU."""
        return any(provider in (CUDA, TENSORRT) for provider in self.providers)
