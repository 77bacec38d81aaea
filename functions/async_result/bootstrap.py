"""Composition root of what fetches the answers of asynchronous endpoints."""

from collections.abc import Mapping

from botocore.session import Session

from functions.async_result.notices import Handler, notices
from functions.async_result.settings import Settings
from shared.adapters.aws_calls import AwsCalls
from shared.bootstrap.data_plane import data_plane
from shared.bootstrap.job_lines import JobLines
from shared.bootstrap.job_running import job_running, stores_on_aws
from shared.bootstrap.settings import Clients
from shared.domain.settings import load
from shared.web.logs import configure


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session, calls = Session(), AwsCalls()
    calls.watch(session)
    clients = Clients.patient(settings, session)
    lines = JobLines(settings, calls, log)
    running = job_running(data_plane(settings, session, clients), stores_on_aws(settings, session, clients), lines)
    return notices(running.results, lines.begin, log)
