"""Settings of the container."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MIB = 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    Models come from the folder `model_dir`, which is read at the start, or from `model_uri` (`s3://bucket/prefix/`),
    which is polled every `poll_seconds` and kept in `cache_dir` (empty: a folder below the system's temporary one).
    With `multi_model` there are none at the start: SageMaker loads them from folders below `multi_model_dir`.
    `version_policy` says which versions are served: `all`, `latest:2`, `specific:1|3`, and `<model>=<policy>` for
    single ones, separated by `;`. `memory_budget_bytes` bounds what models take together (0: 80 % of the memory that
    there is).

    `threads` cores run models (0: every one that this process may use). A model's queue holds at most `queue_size`
    requests and `queue_bytes` bytes. A run that takes more than `stuck_seconds` makes `/ping` fail. `providers` are
    ONNX Runtime's, in order, comma-separated; `gpu_memory_limit_bytes` bounds CUDA's arena (0: no bound) on the GPU
    `gpu_device`. `cuda_graphs` replays captured runs of models whose shapes but the rows are fixed; `tensorrt_fp16`
    lets TensorRT compute in half precision.
    After SIGTERM, requests that were accepted have `drain_seconds` to be answered; SageMaker kills after 30.
    `access_log` writes a line for every prediction; what failed here is always written.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a container is reached from outside of it
    port: Annotated[int, Meta(ge=1, le=65_535)] = msgspec.field(default=8080, name="SAGEMAKER_BIND_TO_PORT")
    grpc_port: Annotated[int, Meta(ge=0, le=65_535)] = 8081
    model_dir: Path = Path("/opt/ml/model")
    model_uri: Annotated[str, Meta(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?)?$")] = ""
    multi_model: bool = msgspec.field(default=False, name="SAGEMAKER_MULTI_MODEL")
    multi_model_dir: Path = Path("/")
    poll_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    cache_dir: Path | None = None
    max_package_bytes: Annotated[int, Meta(ge=1)] = 16 * 1024 * MIB
    version_policy: Annotated[str, Meta(max_length=4096)] = "all"
    memory_budget_bytes: Annotated[int, Meta(ge=0)] = 0
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    queue_size: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    queue_bytes: Annotated[int, Meta(ge=MIB)] = 512 * MIB
    stuck_seconds: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    providers: Annotated[str, Meta(pattern=r"^[A-Za-z]+(,[A-Za-z]+)*$")] = "CPUExecutionProvider"
    gpu_memory_limit_bytes: Annotated[int, Meta(ge=0)] = 0
    gpu_device: Annotated[int, Meta(ge=0, le=63)] = 0
    cuda_graphs: bool = False
    tensorrt_fp16: bool = False
    max_body_bytes: Annotated[int, Meta(ge=1, le=1024 * MIB)] = 25 * MIB
    max_connections: Annotated[int, Meta(ge=1, le=65_536)] = 4096
    max_json_depth: Annotated[int, Meta(ge=3, le=256)] = 32
    max_json_values: Annotated[int, Meta(ge=1, le=10_000_000)] = 4_000_000
    read_seconds: Annotated[float, Meta(ge=1, le=600)] = 60.0
    drain_seconds: Annotated[int, Meta(ge=1, le=28)] = 25
    access_log: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
