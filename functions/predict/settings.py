"""Settings of the data plane."""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.web.bootstrap import WriteSettings

MIB = 1024 * 1024


def _cache_dir() -> Path:
    return Path(gettempdir(), "sluice", "models")


class Settings(WriteSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    `cache_bytes` bounds the packages below `cache_dir`; Lambda gives /tmp 512 MB by default. A version that was just
    published may be missed for `registry_ttl_s`. A prediction has what the invocation has left less
    `deadline_reserve_ms`, and never more than `deadline_ms`. What is set for an endpoint is in force
    `endpoints_ttl_s` later. A check of readiness has `ready_timeout_s`. `container_instance_type` and
    `container_concurrency` tell what a call of the container costs; `answers_bytes` bounds the answers that are kept in
    memory.
    """

    models_table: str
    model_bucket: str
    keys_table: str
    tenants_table: str
    usage_table: str
    endpoints_table: str
    guards_table: str
    answers_table: str
    features_table: str
    jobs_table: str
    endpoint_name: str = ""
    container_instance_type: Annotated[str, Meta(max_length=64)] = ""
    container_concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 1
    cache_dir: Path = msgspec.field(default_factory=_cache_dir)
    cache_bytes: Annotated[int, Meta(ge=MIB, le=10_240 * MIB)] = 400 * MIB
    threads: Annotated[int, Meta(ge=1, le=6)] = 1
    registry_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    endpoints_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 4.0
    ready_timeout_s: Annotated[float, Meta(gt=0, le=30)] = 3.0
    answers_bytes: Annotated[int, Meta(ge=0, le=1024 * MIB)] = 32 * MIB
    max_body_bytes: Annotated[int, Meta(ge=1, le=6 * MIB)] = 6 * MIB
    max_json_depth: Annotated[int, Meta(ge=3, le=256)] = 32
    max_json_values: Annotated[int, Meta(ge=1, le=10_000_000)] = 2_000_000
    max_string_bytes: Annotated[int, Meta(ge=1, le=6 * MIB)] = MIB
    deadline_ms: Annotated[int, Meta(ge=1, le=27_000)] = 27_000
    deadline_reserve_ms: Annotated[int, Meta(ge=0, le=5_000)] = 300
