"""Settings of the batch runner."""

from typing import Annotated

from msgspec import Meta

from shared.bootstrap.data_plane_settings import DataPlaneSettings


class Settings(DataPlaneSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    A step has the time of its invocation less `step_reserve_s`. A read of a file gets `object_timeout_s` for one
    attempt.
    """

    endpoints_wait_s: Annotated[float, Meta(gt=0, le=30)] = 8.0
    jobs_table: str
    tenants_table: str
    batch_queue_url: str
    batch_dead_letters_url: str
    step_reserve_s: Annotated[float, Meta(ge=0, le=120)] = 10.0
    object_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 20.0
