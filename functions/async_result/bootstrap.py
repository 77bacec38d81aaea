"""Composition root of what fetches the answers of asynchronous endpoints."""

from collections.abc import Mapping

from botocore.session import Session

from functions.async_result.notices import Handler, notices
from functions.async_result.settings import Settings
from shared.bootstrap.job_running import job_running_on_aws
from shared.domain.settings import load
from shared.web.logs import configure


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    running = job_running_on_aws(settings, Session(), log)
    return notices(running.results, running.lines.begin, log)
