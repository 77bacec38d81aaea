"""Predictions that are answered later: handed to an asynchronous backend, and fetched from it."""

from collections.abc import Callable
from time import perf_counter, time
from typing import Protocol, cast

from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import AsyncRequired, BackendUnavailable, SluiceError
from shared.domain.jobs import KEPT_S, Job, new_job_id
from shared.domain.model import ModelVersion
from shared.domain.ports import AsyncBackend, Backends, JobStore
from shared.domain.tensors import Tensors
from shared.usecases.answer import Ready
from shared.usecases.route import is_async

# As long as SageMaker lets an asynchronous invocation run.
_JOB_MS = 3_600_000


class Bounded(Protocol):
    """Runs a call, and raises BackendTimeout once it has taken the seconds that it may."""

    def __call__(self, call: Callable[[], object], seconds: float, /) -> object:
        """What the call gives; whatever it raises passes through."""


class Jobs:
    """Takes jobs on and tells what came of them; `within` bounds a call of a backend by the request's deadline."""

    def __init__(self, store: JobStore, backends: Backends, within: Bounded, now: Callable[[], float] = time) -> None:
        self._store = store
        self._backends = backends
        self._within = within
        self._now = now

    def submit(self, ready: Ready) -> Job:
        """A job for a request; AsyncRequired if its endpoint has no asynchronous backend, BackendError."""
        config, target = ready.config, ready.target
        name = target.backend if is_async(target.backend, config) else _first_async(config)
        if name is None:
            raise AsyncRequired(
                f"{config.endpoint} has no asynchronous backend that could take a job: ask for fewer instances at once."
            )
        backend = cast("AsyncBackend", self._backends.get(name, config))
        context = ready.now()
        seconds = context.deadline_ms / 1e3
        patient = context.within(_JOB_MS)
        ticket = self._within(lambda: backend.hand_in(target.version, ready.inputs, patient), seconds)
        now = int(self._now())
        job = Job(
            job_id=new_job_id(),
            tenant=context.tenant,
            model=target.version.model,
            version=target.version.version,
            variant=target.variant,
            backend=name,
            rows=ready.rows if target.version.signature.batched else None,
            created_at=now,
            expires_at=now + KEPT_S,
            ticket=cast("dict[str, str]", ticket),
        )
        self._within(lambda: self._store.add(job), max(0.0, ready.ends_at - perf_counter()))
        return job

    def find(self, tenant: str, job_id: str) -> Job:
        """A job of the tenant; JobNotFound, BackendError."""
        return self._store.get(tenant, job_id)

    def outcome(
        self, job: Job, version: ModelVersion, config: EndpointConfig, seconds: float
    ) -> Tensors | SluiceError | None:
        """The outer outputs of a job, None while there are none, or the error that came of it; raises BackendError."""
        if not is_async(job.backend, config):
            raise BackendUnavailable(f"The backend {job.backend} of this job is no longer configured as it was.")
        backend = cast("AsyncBackend", self._backends.get(job.backend, config))
        found = self._within(lambda: backend.fetch(version, job.ticket, job.rows), seconds)
        return cast("Tensors | SluiceError | None", found)


def _first_async(config: EndpointConfig) -> str | None:
    named = [name for name in config.auto.candidates if is_async(name, config)]
    return next(iter(named or [name for name in config.backends if is_async(name, config)]), None)
