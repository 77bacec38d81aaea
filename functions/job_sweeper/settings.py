"""Settings of the sweeper of jobs."""

from shared.bootstrap.settings import FunctionSettings


class Settings(FunctionSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`."""

    jobs_table: str
    jobs_queue_url: str
    jobs_dead_letters_url: str
    batch_queue_url: str
    batch_dead_letters_url: str
