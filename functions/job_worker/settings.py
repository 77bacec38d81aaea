"""Settings of the job worker."""

from typing import Annotated

from msgspec import Meta

from shared.bootstrap.job_running import JobSettings


class Settings(JobSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    A job may run as long as the invocation has left less `job_reserve_ms`, which is for writing what came of it; one
    that would have less than `job_least_ms` is given back.
    """

    job_reserve_ms: Annotated[int, Meta(ge=0, le=60_000)] = 5_000
    job_least_ms: Annotated[int, Meta(ge=0, le=300_000)] = 10_000
