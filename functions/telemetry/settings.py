"""Settings of telemetry."""

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.domain.audit import MAX_SHARDS
from shared.web.logs import LogLevel

MIB = 1024 * 1024

Seconds = Annotated[float, Meta(gt=0, le=30)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    The audit chain has `audit_shards` shards: more of them let more batches be written at the same time, and their
    number may be changed at any time. The head of a shard is anchored every `anchor_seconds`. A batch may have
    `max_batch_bytes` once it is decompressed. The timeouts are those of one attempt.
    """

    audit_table: str
    usage_table: str
    traffic_table: str
    audit_bucket: str
    audit_shards: Annotated[int, Meta(ge=1, le=MAX_SHARDS)] = 4
    anchor_seconds: Annotated[float, Meta(ge=1, le=604_800)] = 3600.0
    max_batch_bytes: Annotated[int, Meta(ge=1, le=64 * MIB)] = 16 * MIB
    connect_timeout_s: Seconds = 1.0
    read_timeout_s: Seconds = 5.0
    service: str = msgspec.field(default="telemetry", name="POWERTOOLS_SERVICE_NAME")
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")
