"""Settings of the container."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MIB = 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    Models come from the folder `model_dir`, or from `model_uri` (`s3://bucket/prefix/`), which is polled every
    `poll_seconds` and kept in `cache_dir` (empty: a folder below the system's temporary one). At most `workers`
    predictions run at once, each on `threads` threads (0: every CPU that this process may use); `queue_size` more wait,
    and what comes on top is refused. `providers` are ONNX Runtime's, in order, comma-separated. After SIGTERM, requests
    that were accepted have `drain_seconds` to be answered; SageMaker kills after 30.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a container is reached from outside of it
    port: Annotated[int, Meta(ge=1, le=65_535)] = msgspec.field(default=8080, name="SAGEMAKER_BIND_TO_PORT")
    model_dir: Path = Path("/opt/ml/model")
    model_uri: Annotated[str, Meta(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?)?$")] = ""
    poll_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    cache_dir: Path | None = None
    max_package_bytes: Annotated[int, Meta(ge=1)] = 16 * 1024 * MIB
    workers: Annotated[int, Meta(ge=1, le=64)] = 2
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    queue_size: Annotated[int, Meta(ge=0, le=10_000)] = 128
    providers: Annotated[str, Meta(pattern=r"^[A-Za-z]+(,[A-Za-z]+)*$")] = "CPUExecutionProvider"
    max_body_bytes: Annotated[int, Meta(ge=1, le=1024 * MIB)] = 6 * MIB
    max_json_depth: Annotated[int, Meta(ge=3, le=256)] = 32
    max_json_values: Annotated[int, Meta(ge=1, le=10_000_000)] = 2_000_000
    drain_seconds: Annotated[int, Meta(ge=1, le=28)] = 25
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
