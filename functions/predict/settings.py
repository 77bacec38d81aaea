"""Settings of the data plane over HTTP."""

from typing import Annotated

from msgspec import Meta

from shared.bootstrap.data_plane_settings import MIB, DataPlaneSettings
from shared.bootstrap.settings import Seconds
from shared.domain.uploads import INPUT_PREFIXES


class Settings(DataPlaneSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    A prediction has what the invocation has left less `deadline_reserve_ms`, and never more than `deadline_ms`. A check
    of readiness has `ready_timeout_s`. `input_prefixes` are places in other buckets that jobs may read, as
    `shared.domain.uploads.input_prefixes` reads them. The limiter and the records of idempotency are as in
    `shared.bootstrap.http.WriteSettings`: a struct has one base.
    """

    keys_table: str
    tenants_table: str
    usage_table: str
    jobs_table: str
    jobs_queue_url: str
    input_prefixes: Annotated[str, Meta(pattern=INPUT_PREFIXES, max_length=2048)] = ""
    limits_table: str
    idempotency_table: str
    idempotency_hours: Annotated[int, Meta(ge=1, le=168)] = 24
    idempotency_read_timeout_s: Seconds = 1.0
    ready_timeout_s: Annotated[float, Meta(gt=0, le=30)] = 3.0
    max_body_bytes: Annotated[int, Meta(ge=1, le=6 * MIB)] = 6 * MIB
    max_json_depth: Annotated[int, Meta(ge=3, le=256)] = 32
    max_json_values: Annotated[int, Meta(ge=1, le=10_000_000)] = 2_000_000
    max_string_bytes: Annotated[int, Meta(ge=1, le=6 * MIB)] = MIB
    deadline_ms: Annotated[int, Meta(ge=1, le=27_000)] = 27_000
    deadline_reserve_ms: Annotated[int, Meta(ge=0, le=5_000)] = 300
