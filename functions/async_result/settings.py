"""Settings of what fetches the answers of asynchronous endpoints."""

from shared.bootstrap.job_running import JobSettings


class Settings(JobSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`."""
