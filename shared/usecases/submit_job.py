"""Takes jobs on: after that they are done, or failed with a reason, whatever becomes of this process."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Final

from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import BackendError
from shared.domain.jobs import (
    KEPT_S,
    MAX_INLINE_BODY,
    OVERDUE_S,
    START_WITHIN_S,
    Job,
    JobRequest,
    ObjectRef,
    new_job_id,
)
from shared.domain.ports import JobObjects, JobQueue, JobStore
from shared.domain.principal import Principal

# What gives a body its meaning, its answer its form, and says whether that may be a kept one. No others are stored.
_KEPT: Final = ("content-type", "content-encoding", "accept", "inference-header-content-length", "cache-control")
# Never stored, whatever an endpoint's traffic is split by.
_SECRET: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-amz-security-token"})
# The gateway lets all headers of a request have some 10 KB.
_MAX_HEADER: Final = 4096
_HEADER: Final = "header:"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be done: the head of a request (names of headers in lower case), and its body or an object.

    `version` is a version, a label, or None; `rows_total` how many instances there are, None where that is not known.
    """

    model: str
    version: int | str | None
    headers: Mapping[str, str]
    request_id: str
    traceparent: str | None = None
    body: bytes = b""
    source: ObjectRef | None = None
    rows_total: int | None = None


class SubmitJob:
    """Stores a job and asks for it to be run; `now` gives seconds since 1970."""

    def __init__(self, store: JobStore, queue: JobQueue, objects: JobObjects, now: Callable[[], float] = time) -> None:
        self._store = store
        self._queue = queue
        self._objects = objects
        self._now = now

    def __call__(self, principal: Principal, wanted: Submission, config: EndpointConfig) -> Job:
        """The job, queued; `config` is that of the endpoint, which says what keeps a caller with its variant.

        The object of a large body first, then the item, then the message: what is left behind when this ends in between
        is an object that nothing names, or a job that the sweep asks for. Two AWS calls, three for a large body.
        Raises InsufficientScope, and BackendError where no job was stored.
        """
        principal.require("predict", f"predict:{wanted.model}")
        now = round(self._now(), 3)  # as it is stored
        job_id = new_job_id(now)
        source, inline = wanted.source, None
        if source is None:
            if len(wanted.body) > MAX_INLINE_BODY:
                media_type = wanted.headers.get("content-type", "")[:_MAX_HEADER] or "application/octet-stream"
                source = self._objects.put_body(principal.tenant, job_id, wanted.body, media_type)
            else:
                inline = wanted.body
        job = Job(
            job_id=job_id,
            kind="prediction",
            tenant=principal.tenant,
            key_id=principal.key_id,
            model=wanted.model,
            request=JobRequest(wanted.version, _kept(wanted.headers, config), inline, source),
            created_at=now,
            start_by=now + START_WITHIN_S,
            expires_at=int(now) + KEPT_S,
            request_id=wanted.request_id,
            traceparent=wanted.traceparent,
            due_at=now + OVERDUE_S,
            rows_total=wanted.rows_total,
        )
        self._store.add(job)
        try:
            self._queue.send(job.tenant, job.job_id)
        except BackendError:
            fields = {"fields": {"job_id": job.job_id}}
            _log.warning("a job has no message yet: the sweep sends it", extra=fields, exc_info=True)
        return job


def _kept(headers: Mapping[str, str], config: EndpointConfig) -> dict[str, str]:
    """The headers that the job's run reads."""
    units = [config.sticky] + ([] if config.experiment is None else [config.experiment.unit])
    sticky = [unit.removeprefix(_HEADER) for unit in units if unit.startswith(_HEADER)]
    names = [*_KEPT, *(name for name in sticky if name not in _SECRET)]
    return {name: headers[name][:_MAX_HEADER] for name in names if headers.get(name)}
