"""Settings of the functions that predict."""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.bootstrap.settings import FunctionSettings

MIB = 1024 * 1024


def _cache_dir() -> Path:
    return Path(gettempdir(), "sluice", "models")


class DataPlaneSettings(FunctionSettings, frozen=True, kw_only=True):
    """Settings of every function that has the data plane.

    `cache_bytes` bounds the packages below `cache_dir`; Lambda gives /tmp 512 MB by default. A version that was just
    published may be missed for `registry_ttl_s`. What is set for an endpoint is in force `endpoints_ttl_s` later; the
    first reading of it is waited for `endpoints_wait_s`. `container_instance_type` and `container_concurrency` tell
    what a call of the container costs; `answers_bytes` bounds the answers that are kept in memory.
    """

    models_table: str
    model_bucket: str
    endpoints_table: str
    guards_table: str
    answers_table: str
    features_table: str
    data_bucket: str
    endpoint_name: str = ""
    container_instance_type: Annotated[str, Meta(max_length=64)] = ""
    container_concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 1
    cache_dir: Path = msgspec.field(default_factory=_cache_dir)
    cache_bytes: Annotated[int, Meta(ge=MIB, le=10_240 * MIB)] = 400 * MIB
    threads: Annotated[int, Meta(ge=1, le=6)] = 1
    registry_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    endpoints_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 4.0
    endpoints_wait_s: Annotated[float, Meta(gt=0, le=30)] = 0.9
    answers_bytes: Annotated[int, Meta(ge=0, le=1024 * MIB)] = 32 * MIB
