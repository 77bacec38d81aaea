"""A worker's jobs in memory: the real data plane and the real use cases on stores of `tests.fakes`."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import Any

import numpy as np

from shared.adapters.aws_calls import AwsCalls
from shared.bootstrap.data_plane import assemble
from shared.bootstrap.job_lines import JobLines
from shared.bootstrap.job_running import JobSettings, JobStores, job_running
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.jobs import KEPT_S, START_WITHIN_S, Job, JobRequest, ObjectRef, new_job_id
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Tensors
from shared.usecases.run_job import Done, Later, Span
from tests.fakes import FakeBackend, InMemoryModels, MemoryDeadLetters, MemoryJobObjects, MemoryJobQueue, MemoryJobs
from tests.functions.parts import plane_parts, stored
from tests.functions.support import published

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 2)),), outputs=(TensorSpec("y", DType.FP32, (None, 2)),), max_batch=4
)
JSON = {"content-type": "application/json"}


def tenfold(version: ModelVersion, inputs: Tensors) -> Tensors:
    """Ten times the input, and the version."""
    return {"y": inputs["x"] * 10 + np.float32(version.version)}


def job_settings(**values: Any) -> JobSettings:
    """Settings of the worker; its stores have names, and nothing is behind them."""
    tables = ("models", "endpoints", "guards", "answers", "features", "jobs")
    given: dict[str, Any] = {f"{name}_table": name for name in tables}
    given |= {"service": "job-worker", "model_bucket": "models", "data_bucket": "data", "memory_mb": 1024}
    given |= {"jobs_queue_url": "http://queue", "jobs_dead_letters_url": "http://dead"}
    return JobSettings(**{**given, **values})


def job_of(rows: int = 2, *, model: str = "pair", body: bytes | None = None, **more: Any) -> Job:
    """A queued job of so many instances."""
    now = time()
    content = json.dumps({"instances": [[at, -at] for at in range(rows)]}).encode() if body is None else body
    given: dict[str, Any] = {
        "job_id": new_job_id(now),
        "kind": "prediction",
        "tenant": "acme",
        "key_id": "k1",
        "model": model,
        "request": JobRequest(None, JSON, content),
        "created_at": now,
        "start_by": now + START_WITHIN_S,
        "expires_at": int(now) + KEPT_S,
        "request_id": "request-1",
        "due_at": now + 60,
    }
    return Job(**{**given, **more})


class Lines(logging.Handler):
    """What the functions log."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def requests(self) -> list[dict[str, Any]]:
        return [record.fields for record in self.records if record.getMessage() == "request"]  # type: ignore[attr-defined]


@dataclass
class JobEnv:
    """An environment of the worker's."""

    backends: Mapping[str, Backend]
    config: EndpointConfig | None = None
    versions: tuple[ModelVersion, ...] = ()
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    queue: MemoryJobQueue = field(default_factory=MemoryJobQueue)
    dead: MemoryDeadLetters = field(default_factory=MemoryDeadLetters)
    objects: MemoryJobObjects = field(default_factory=MemoryJobObjects)
    lines: Lines = field(default_factory=Lines)

    def __post_init__(self) -> None:
        log = logging.Logger("functions.job-worker")
        log.addHandler(self.lines)
        settings = job_settings()
        configs = () if self.config is None else (self.config,)
        registry = InMemoryModels(*(self.versions or (published(signature=SIGNATURE),)))
        parts = plane_parts(registry, self.backends, endpoints=stored(*configs))
        self.meter = JobLines(settings, AwsCalls(), log)
        stores = JobStores(self.jobs, self.queue, self.dead, self.objects)
        made = job_running(assemble(settings, parts), stores, self.meter)
        self.run, self.results, self.hold = made.run, made.results, made.hold

    def add(self, job: Job) -> Job:
        self.jobs.add(job)
        return job

    def put(self, key: str, content: bytes) -> ObjectRef:
        self.objects.objects[key] = content
        return ObjectRef("data", key)

    def __call__(self, job: Job, *, seconds: float = 20.0, whole: bool = True) -> Done | Later:
        self.meter.begin()
        return self.run(job.job_id, self.hold, Span(monotonic() + seconds, whole))

    def now(self, job: Job) -> Job:
        """The job as it is now."""
        return self.jobs.jobs[job.job_id]

    def lapse(self, job: Job) -> None:
        """Let a job's lease be over."""
        self.jobs.jobs[job.job_id] = _lapsed(self.now(job))

    def predictions(self, job: Job) -> Any:
        result = self.now(job).result
        assert result is not None
        content = result.inline if result.stored is None else self.objects.objects[result.stored.key]
        return json.loads(content or b"")["predictions"]


def _lapsed(job: Job) -> Job:
    return replace(job, lease_until=time() - 1)


def function(run: Callable[[ModelVersion, Tensors], Tensors] = tenfold) -> dict[str, Backend]:
    """Backends with one in this process."""
    return {"function": FakeBackend(run)}
