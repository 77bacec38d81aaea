"""Composition root of the job worker."""

from collections.abc import Mapping
from functools import partial

from botocore.session import Session

from functions.job_worker.settings import Settings
from functions.job_worker.worker import Worker
from shared.adapters.aws import client
from shared.adapters.sqs_messages import SqsMessages
from shared.bootstrap.job_running import job_running_on_aws
from shared.domain.settings import load
from shared.web.logs import configure


def build(environ: Mapping[str, str]) -> Worker:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session = Session()
    running = job_running_on_aws(settings, session, log)
    messages = SqsMessages(
        partial(
            client,
            "sqs",
            session=session,
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
        ),
        settings.jobs_queue_url,
        settings.jobs_dead_letters_url,
    )
    return Worker(
        running.run,
        running.hold,
        messages,
        running.lines.begin,
        reserve_ms=settings.job_reserve_ms,
        least_ms=settings.job_least_ms,
    )
