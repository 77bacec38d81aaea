"""Begins runs over files: for a request, and for an object that was dropped."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import time
from typing import Final
from urllib.parse import unquote_plus

from shared.domain.batch_formats import FileType, file_type
from shared.domain.batch_ports import BatchObjects, BatchQueue, Stored
from shared.domain.batches import (
    DEFAULT_ERROR_SHARE,
    SHARE_METADATA,
    BatchState,
    answers_later,
    batch_id,
    check_model,
    read_drop,
    read_share,
    tenant_of,
)
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import BackendError, Conflict, SluiceError, SourceNotFound
from shared.domain.jobs import (
    KEPT_S,
    OVERDUE_S,
    START_WITHIN_S,
    Job,
    JobProblem,
    JobRequest,
    ObjectRef,
    Outcome,
    new_job_id,
)
from shared.domain.ports import JobStore, ModelRegistry, TenantStore

# In the place of a credential: a drop has none but the permission to write there.
DROPPED: Final = "s3"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A run over a file; `kind` is what the file is."""

    tenant: str
    key_id: str
    model: str
    source: ObjectRef
    size: int
    name: str
    kind: FileType
    request_id: str
    version: int | str | None = None
    max_error_share: float = DEFAULT_ERROR_SHARE
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """Tells at once of what the plan of a run would refuse; the plan looks again, at what is configured then."""

    registry: ModelRegistry
    config_of: Callable[[str], EndpointConfig]

    def __call__(self, model: str, wanted: int | str | None) -> None:
        """Raise ModelNotFound, VersionNotFound or VersionNotAllowed, or InvalidRequest where all backends answer later.

        One read of the registry, more only for a version that the request names. BackendError if they fail.
        """
        try:
            config = self.config_of(model)
        except BackendError:  # logged where it is read; what cannot be told now does not keep a run from the queue
            config = None
        if config is not None and wanted is not None:
            backends = [self._pinned(model, wanted, config)]
        else:
            _ = self.registry.get(model, wanted) if isinstance(wanted, int) else self.registry.latest(model)
            backends = [] if config is None else _any_of(config)
        if config is None or not config.backends:
            return
        from shared.usecases.route import is_async

        if backends and all(is_async(backend, config) for backend in backends):
            raise answers_later(model, backends[0])

    def _pinned(self, model: str, wanted: int | str, config: EndpointConfig) -> str:
        """The backend of the version that a request names."""
        # Imported here: few requests come so far, and a cold start is to be quick.
        from shared.domain.endpoint.latency import Latencies
        from shared.domain.endpoint.traffic import Caller
        from shared.usecases.route import Route

        route = Route(self.registry, Latencies(), lambda *_: 0.0)  # nothing is chosen by time or price here
        return route(model, wanted, config, Caller("", "", lambda _name: None)).target.backend


@dataclass(frozen=True, slots=True)
class StartBatch:
    """Takes runs on: one write, and one message."""

    jobs: JobStore
    queue: BatchQueue
    now: Callable[[], float] = time

    def __call__(self, asked: Asked) -> Job:
        """The job of a run; raises BackendError where it could not be taken on."""
        at = self.now()
        state = BatchState(
            source=asked.source.uri,
            name=asked.name,
            format=asked.kind.format,
            packed=asked.kind.packed,
            max_error_share=asked.max_error_share,
            size=asked.size,
        )
        job = _job(new_job_id(at), asked.tenant, asked.key_id, asked.model, asked.source, state, at, asked.request_id)
        job = _with_request(job, asked.version, asked.traceparent)
        self.jobs.add(job)
        self.ask(job)
        return job

    def ask(self, job: Job) -> None:
        """Have a job planned; where the queue fails, the sweep has it."""
        try:
            self.queue.send(job, "plan")
        except BackendError:
            fields = {"job_id": job.job_id}
            _log.warning("a batch has no message yet: the sweep sends it", extra={"fields": fields}, exc_info=True)


@dataclass(frozen=True, slots=True)
class DropBatch:
    """Takes runs on for objects under `batch/in/`; the same however often an object is told of."""

    start: StartBatch
    jobs: JobStore
    objects: BatchObjects
    tenants: TenantStore
    registry: ModelRegistry
    now: Callable[[], float] = time

    def __call__(self, ref: ObjectRef, event_id: str) -> Job | None:
        """The job of an object, a failed one where no run can come of it.

        None, and a line in the log, for a folder, for what is not there any more, and where no tenant could be told.
        Raises BackendError where it is to be tried again.
        """
        if ref.key.endswith("/"):  # a folder that the console has made
            return None
        tenant = tenant_of(ref.key)
        known = None if tenant is None else self.tenants.get(tenant)
        if known is None or known.suspended:
            _ignored(ref, "its key names no tenant that may have batches")
            return None
        try:
            stored = self._stat(ref)
        except SourceNotFound:
            _ignored(ref, "it is gone")
            return None
        try:
            job, problem = self._asked(stored, event_id), None
        except BackendError:
            raise
        except SluiceError as error:
            job, problem = self._refused(stored, known.name, event_id), error
        return self._taken(job, problem)

    def _stat(self, ref: ObjectRef) -> Stored:
        """What is there; also under a key that came percent-encoded, as S3's own notifications have it."""
        try:
            return self.objects.stat(ref)
        except SourceNotFound:
            decoded = unquote_plus(ref.key)
            if decoded == ref.key or tenant_of(decoded) != tenant_of(ref.key):
                raise
            return self.objects.stat(replace(ref, key=decoded))

    def _asked(self, stored: Stored, event_id: str) -> Job:
        drop = read_drop(stored.ref.key)
        self.registry.latest(check_model(drop.model))
        kind = file_type(drop.name, stored.media_type)
        state = BatchState(
            source=stored.ref.uri,
            name=drop.name,
            format=kind.format,
            packed=kind.packed,
            max_error_share=read_share(stored.metadata.get(SHARE_METADATA)),
            size=stored.size,
        )
        job_id, at = batch_id(stored.ref, stored.stored_at), self.now()
        return _job(job_id, drop.tenant, DROPPED, drop.model, stored.ref, state, at, event_id)

    def _refused(self, stored: Stored, tenant: str, event_id: str) -> Job:
        parts = stored.ref.key.split("/")
        model = parts[3] if len(parts) > 4 else "-"
        state = BatchState(source=stored.ref.uri, name=parts[-1], size=stored.size)
        job_id, at = batch_id(stored.ref, stored.stored_at), self.now()
        return _job(job_id, tenant, DROPPED, model[:64], stored.ref, state, at, event_id)

    def _taken(self, job: Job, problem: SluiceError | None) -> Job:
        """Store the job and have it planned, or ended; what is there already goes on from where it is."""
        try:
            self.jobs.add(job)
        except Conflict:
            there = self.jobs.find(job.job_id)
            if there is None or there.finished or there.started_at is not None:
                return there or job
            job = there
        if problem is None:
            self.start.ask(job)
        else:
            self.jobs.finish(job.job_id, Outcome("failed", problem=JobProblem.of(problem)), self.now())
        return job


def _any_of(config: EndpointConfig) -> list[str]:
    """The backends of the variants that a request without a version may get."""
    arms = {} if config.experiment is None else config.experiment.arms
    return [variant.backend for variant in config.variants if variant.weight > 0 or arms.get(variant.name, 0.0) > 0]


def _ignored(ref: ObjectRef, why: str) -> None:
    _log.warning("no batch for a dropped object: %s", why, extra={"fields": {"uri": ref.uri}})


def _job(
    job_id: str,
    tenant: str,
    key_id: str,
    model: str,
    source: ObjectRef,
    state: BatchState,
    at: float,
    request_id: str,
) -> Job:
    return Job(
        job_id=job_id,
        kind="batch",
        tenant=tenant,
        key_id=key_id,
        model=model,
        request=JobRequest(None, {}, source=source),
        created_at=at,
        start_by=at + START_WITHIN_S,
        expires_at=int(at) + KEPT_S,
        request_id=request_id,
        due_at=at + OVERDUE_S,
        batch=state.encode(),
    )


def _with_request(job: Job, version: int | str | None, traceparent: str | None) -> Job:
    return replace(job, request=replace(job.request, version=version), traceparent=traceparent)
