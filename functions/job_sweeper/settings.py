"""Settings of the sweeper of jobs."""

from typing import Annotated

from msgspec import Meta

from shared.bootstrap.settings import FunctionSettings


class Settings(FunctionSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`; a sweep takes `sweep_s` seconds at most."""

    jobs_table: str
    jobs_queue_url: str
    jobs_dead_letters_url: str
    batch_queue_url: str
    batch_dead_letters_url: str
    sweep_s: Annotated[float, Meta(gt=0, le=600)] = 45.0
