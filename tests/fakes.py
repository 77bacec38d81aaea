"""The ports of `shared.domain.ports` in memory. The contract suite in `tests/adapters` holds them to what AWS does."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock, RLock
from time import time
from typing import Any

from shared.adapters.package_files import check_paths, has_bytes
from shared.domain.endpoint.config import EndpointState, StoredEndpoint
from shared.domain.errors import (
    BackendTimeout,
    Conflict,
    DigestMismatch,
    JobNotFound,
    KeyNotFound,
    ModelNotFound,
    PayloadTooLarge,
    PreconditionFailed,
    RevisionNotFound,
    SourceNotFound,
    TenantNotFound,
    VersionConflict,
    VersionNotFound,
)
from shared.domain.features import MAX_KEYS, SET_NAME, EntityKey, FeatureRecord
from shared.domain.jobs import (
    KEPT_S,
    OVERDUE_S,
    START_WITHIN_S,
    Claim,
    Job,
    JobFilter,
    JobPage,
    JobProblem,
    JobSummary,
    ObjectRef,
    Outcome,
    Ticket,
)
from shared.domain.model import ModelVersion, PackageFile
from shared.domain.plans import PLAN_NAME, TENANT_NAME, Plan
from shared.domain.ports import ApiKey, InferenceContext, Lease
from shared.domain.tenants import Standing, Tenant
from shared.domain.tensors import Tensors


class InMemoryModels:
    """A `ModelRegistry`; `calls` counts reads, `error` is raised by all of them while it is set."""

    def __init__(self, *versions: ModelVersion) -> None:
        self._versions: dict[str, dict[int, ModelVersion]] = {}
        self._lock = Lock()
        self.calls = 0
        self.error: Exception | None = None
        for version in versions:
            self.add(version)

    def latest(self, model: str) -> ModelVersion:
        return self.versions(model)[0]

    def get(self, model: str, version: int) -> ModelVersion:
        found = {known.version: known for known in self.versions(model)}
        if version not in found:
            raise VersionNotFound(f"The model {model!r} has no version {version}.")
        return found[version]

    def versions(self, model: str) -> Sequence[ModelVersion]:
        self._count()
        known = self._versions.get(model)
        if not known:
            raise ModelNotFound(f"No model {model!r} is published.")
        return [known[number] for number in sorted(known, reverse=True)]

    def models(self) -> Sequence[ModelVersion]:
        self._count()
        return [known[max(known)] for _, known in sorted(self._versions.items())]

    def add(self, version: ModelVersion) -> bool:
        with self._lock:
            known = self._versions.setdefault(version.model, {})
            existing = known.setdefault(version.version, version)
        if existing.digest != version.digest:
            raise VersionConflict(f"{version.model} version {version.version} is published with other content.")
        return existing is version

    def _count(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class InMemoryPackages:
    """A `PackageStore`; `objects` maps keys to bytes and may be damaged by tests, `downloads` counts."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.downloads = 0

    def upload(self, version: ModelVersion, folder: Path) -> None:
        check_paths(version.files, frozenset({"package.json"}))
        for file in version.files:
            if not has_bytes(file, folder):
                raise DigestMismatch(f"{file.path} changed while it was published.")
        for file in version.files:
            content = (folder / file.path).read_bytes()
            if self.objects.setdefault(version.prefix + file.path, content) != content:
                raise VersionConflict(f"{file.path} is stored with other content.")

    def download(self, version: ModelVersion, folder: Path) -> None:
        self.downloads += 1
        check_paths(version.files)
        self._verify(version)
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(folder)
        for file in version.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.objects[version.prefix + file.path])

    def _verify(self, version: ModelVersion) -> None:
        for file in version.files:
            content = self.objects.get(version.prefix + file.path)
            if content is None or package_file(file.path, content) != file:
                raise DigestMismatch(f"{file.path} does not have the bytes that were published.")


class InMemoryKeys:
    """A `KeyStore`; `calls` counts, and `error` is raised by all methods while it is set."""

    def __init__(self, *keys: ApiKey) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._lock = Lock()
        self.calls = 0
        self.error: Exception | None = None

    def get(self, key_id: str) -> ApiKey | None:
        self._count()
        return self._keys.get(key_id)

    def add(self, key: ApiKey) -> None:
        self._count()
        self._check(key)
        with self._lock:
            self._add(key)

    def of_tenant(self, tenant: str) -> Sequence[ApiKey]:
        self._count()
        return [key for _, key in sorted(self._keys.items()) if key.tenant == tenant]

    def revoke(self, key_id: str, at: int) -> ApiKey:
        self._count()
        with self._lock:
            key = self._keys.get(key_id)
            if key is None:
                raise KeyNotFound(f"There is no key {key_id!r}.")
            if key.revoked_at is None:
                key = self._keys[key_id] = replace(key, revoked_at=at)
            return key

    def replace(self, old_key_id: str, new: ApiKey, old_expires_at: int) -> None:
        self._count()
        self._check(new)
        with self._lock:
            old = self._keys.get(old_key_id)
            if new.key_id in self._keys and new.key_id != old_key_id:
                raise Conflict(f"The key id {new.key_id} is taken.")
            if old is None or old.tenant != new.tenant or new.key_id == old_key_id:
                raise KeyNotFound(f"There is no key {old_key_id!r}.")
            ends_before = old.expires_at is not None and old.expires_at < old_expires_at
            if old.revoked_at is not None or old.replaced_by is not None or ends_before:
                raise Conflict(f"The key {old_key_id} is revoked, replaced, or ends before the overlap does.")
            self._add(new)
            self._keys[old_key_id] = replace(old, expires_at=old_expires_at, replaced_by=new.key_id)

    def bind(self, key: ApiKey) -> None:
        self._count()
        if not key.key_id.startswith("iam#"):
            raise ValueError("only the binding of an IAM principal may replace another")
        self._keys[key.key_id] = key

    def _add(self, key: ApiKey) -> None:
        if key.key_id in self._keys:
            raise Conflict(f"The key id {key.key_id} is taken.")
        self._keys[key.key_id] = key

    def _check(self, key: ApiKey) -> None:
        if not key.key_id or not key.key_id.isascii() or len(key.key_id) > 255:
            raise ValueError("a key id has 1 to 255 ASCII characters")

    def _count(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class InMemoryTenants:
    """A `TenantStore`; `used` maps (tenant, period) to requests, `error` is raised by all methods while it is set."""

    def __init__(self, *stored: Tenant | Plan) -> None:
        self._tenants = {tenant.name: tenant for tenant in stored if isinstance(tenant, Tenant)}
        self._plans = {plan.name: plan for plan in stored if isinstance(plan, Plan)}
        self.used: dict[tuple[str, str], int] = {}
        self.calls = 0
        self.error: Exception | None = None

    def get(self, name: str) -> Tenant | None:
        self._count()
        return self._tenants.get(name)

    def add(self, tenant: Tenant) -> None:
        self._count()
        self._check(TENANT_NAME, tenant.name)
        if self._tenants.setdefault(tenant.name, tenant) is not tenant:
            raise Conflict(f"The tenant {tenant.name} exists already.")

    def update(self, tenant: Tenant, before: Tenant | None = None) -> bool:
        self._count()
        self._check(TENANT_NAME, tenant.name)
        if tenant.name not in self._tenants:
            raise TenantNotFound(f"There is no tenant {tenant.name!r}.")
        if before not in (None, self._tenants[tenant.name]):
            return False
        self._tenants[tenant.name] = tenant
        return True

    def list(self) -> Sequence[Tenant]:
        self._count()
        return [tenant for _, tenant in sorted(self._tenants.items())]

    def plan(self, name: str) -> Plan | None:
        self._count()
        return self._plans.get(name)

    def put_plan(self, plan: Plan) -> None:
        self._count()
        self._check(PLAN_NAME, plan.name)
        self._plans[plan.name] = plan

    def plans(self) -> Sequence[Plan]:
        self._count()
        return [plan for _, plan in sorted(self._plans.items())]

    def standing(self, tenant: str, day: str, month: str) -> Standing:
        self._count()
        used = [self.used.get((tenant, period), 0) for period in (day, month)]
        return Standing(self._tenants.get(tenant), *used)

    def _check(self, pattern: str, name: str) -> None:
        if not re.fullmatch(pattern, name):
            raise ValueError(f"a name has the form {pattern}")

    def _count(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class InMemoryEndpoints:
    """An `EndpointStore` and `EndpointReader`; `open_until` maps endpoints to their open circuits.

    `calls` counts reads, `error` is raised by all methods while it is set.
    """

    def __init__(self, *stored: StoredEndpoint) -> None:
        self._revisions: dict[str, dict[int, StoredEndpoint]] = {}
        self._lock = Lock()
        self.open_until: dict[str, dict[str, float]] = {}
        self.calls = 0
        self.error: Exception | None = None
        for given in stored:
            self._revisions[given.config.endpoint] = {given.revision: given}

    def get(self, endpoint: str) -> StoredEndpoint | None:
        self._count()
        known = self._revisions.get(endpoint)
        return known[max(known)] if known else None

    def read(self, endpoint: str) -> EndpointState:
        return EndpointState(self.get(endpoint), dict(self.open_until.get(endpoint, {})))

    def put(self, stored: StoredEndpoint) -> None:
        self._count()
        with self._lock:
            known = self._revisions.setdefault(stored.config.endpoint, {})
            if max(known, default=0) != stored.revision - 1:
                raise PreconditionFailed(f"{stored.config.endpoint} has changed since revision {stored.revision - 1}.")
            known[stored.revision] = stored
            known.pop(stored.revision - 100, None)

    def list(self) -> Sequence[StoredEndpoint]:
        self._count()
        return [known[max(known)] for _, known in sorted(self._revisions.items()) if known]

    def history(self, endpoint: str, *, limit: int = 20, before: int | None = None) -> Sequence[StoredEndpoint]:
        self._count()
        known = self._revisions.get(endpoint, {})
        return [known[number] for number in sorted(known, reverse=True) if before is None or number < before][:limit]

    def revision(self, endpoint: str, revision: int) -> StoredEndpoint:
        self._count()
        found = self._revisions.get(endpoint, {}).get(revision)
        if found is None:
            raise RevisionNotFound(f"There is no revision {revision} of {endpoint}.")
        return found

    def _count(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


@dataclass
class FakeBackend:
    """A `Backend` that answers `run(version, inputs)` and keeps every call."""

    run: Callable[[ModelVersion, Tensors], Tensors]
    calls: list[tuple[ModelVersion, Tensors, InferenceContext]] = field(default_factory=list)

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        if context.deadline_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        self.calls.append((version, inputs, context))
        return self.run(version, inputs)


def package_file(path: str, content: bytes) -> PackageFile:
    """The entry of a file with this content."""
    return PackageFile(path, len(content), sha256(content).hexdigest())


class InMemoryFeatures:
    """A `FeatureStore`; `reads` keeps what `read` was asked for, `error` is raised by all methods while it is set.

    `busy` are entities that `put` does not store.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, EntityKey], FeatureRecord] = {}
        self.reads: list[tuple[str, tuple[EntityKey, ...], tuple[str, ...]]] = []
        self.error: Exception | None = None
        self.busy: frozenset[str] = frozenset()

    def read(
        self, tenant: str, keys: Collection[EntityKey], names: Collection[str], deadline_s: float
    ) -> Mapping[EntityKey, FeatureRecord]:
        assert deadline_s > 0
        if len(keys) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} keys are read at once")
        self.reads.append((tenant, tuple(keys), tuple(names)))
        found = {key: record for key in keys if (record := self.get(tenant, key)) is not None}
        return {
            key: replace(record, values={name: value for name, value in record.values.items() if name in names})
            for key, record in found.items()
        }

    def get(self, tenant: str, key: EntityKey) -> FeatureRecord | None:
        if self.error is not None:
            raise self.error
        return self._records.get(_checked_key(tenant, key))

    def put(self, tenant: str, records: Collection[FeatureRecord]) -> Collection[EntityKey]:
        if self.error is not None:
            raise self.error
        for record in records:
            if record.key.entity not in self.busy:
                self._records[_checked_key(tenant, record.key)] = record
        return list(dict.fromkeys(record.key for record in records if record.key.entity in self.busy))

    def delete(self, tenant: str, key: EntityKey) -> FeatureRecord | None:
        if self.error is not None:
            raise self.error
        return self._records.pop(_checked_key(tenant, key), None)


def _checked_key(tenant: str, key: EntityKey) -> tuple[str, EntityKey]:
    if not re.fullmatch(TENANT_NAME, tenant) or not re.fullmatch(SET_NAME, key.set):
        raise ValueError("no tenant or set of features has such a name")
    return tenant, key


class InMemoryGuards:
    """A `GuardStore`; `open_until` has the open circuits by endpoint, `calls` the names of the methods called.

    While they are set, `error` is raised by all methods, and all of them wait for `stalled`.
    """

    def __init__(self) -> None:
        self.open_until: dict[str, dict[str, float]] = {}
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.stalled: Event | None = None
        self._slots: dict[tuple[str, str, int], float] = {}
        self._lock = Lock()

    def open(self, endpoint: str, circuit: str, until: float) -> None:
        self._check("open")
        circuits = self.open_until.setdefault(endpoint, {})
        circuits[circuit] = max(until, circuits.get(circuit, 0.0))

    def close(self, endpoint: str, circuit: str) -> None:
        self._check("close")
        self.open_until.get(endpoint, {}).pop(circuit, None)

    def acquire(self, endpoint: str, pool: str, slots: int, expires_at: float, now: float) -> Lease | None:
        self._check("acquire")
        with self._lock:
            for slot in range(slots):
                if self._slots.get((endpoint, pool, slot), 0.0) < now:
                    self._slots[endpoint, pool, slot] = expires_at
                    return Lease(endpoint, pool, slot, expires_at)
        return None

    def release(self, lease: Lease) -> None:
        self._check("release")
        with self._lock:
            if self._slots.get((lease.endpoint, lease.pool, lease.slot)) == lease.expires_at:
                del self._slots[lease.endpoint, lease.pool, lease.slot]

    def _check(self, call: str) -> None:
        self.calls.append(call)
        if self.stalled is not None:
            self.stalled.wait(30)
        if self.error is not None:
            raise self.error


class MemoryJobs:
    """A `JobStore`; `now` gives seconds since 1970, `error` is raised by all methods while it is set.

    `before` is called once, before the next change: what happens there happens between a read and that change.
    """

    def __init__(self, now: Callable[[], float] = time) -> None:
        self.jobs: dict[str, Job] = {}
        self.now = now
        self.error: Exception | None = None
        self.before: Callable[[], None] | None = None
        self._lock = RLock()

    def add(self, job: Job) -> None:
        self._check()
        with self._lock:
            if job.job_id in self.jobs:
                raise Conflict(f"There is a job {job.job_id} already.")
            self.jobs[job.job_id] = job

    def get(self, tenant: str, job_id: str) -> Job:
        job = self.find(job_id)
        if job is None or job.tenant != tenant:
            raise JobNotFound("There is no such job.")
        return job

    def find(self, job_id: str) -> Job | None:
        self._check()
        job = self.jobs.get(job_id)
        return job if job is not None and job.expires_at > self.now() else None

    def list(self, tenant: str, which: JobFilter, *, limit: int, after: str | None = None) -> JobPage:
        self._check()
        found = [
            JobSummary(
                job.job_id,
                job.kind,
                job.model,
                job.state,
                job.created_at,
                job.finished_at,
                job.rows_total,
                job.rows_done,
                job.problem.code if job.problem is not None and job.state == "failed" else None,
            )
            for job in sorted(self.jobs.values(), key=lambda job: job.job_id, reverse=True)
            if job.tenant == tenant and job.expires_at > self.now() and _is_asked_for(job, which)
            if after is None or job.job_id < after
        ]
        return JobPage(found[:limit], found[limit - 1].job_id if len(found) > limit else None)

    def claim(self, job_id: str, owner: str, now: float, lease_s: float) -> Claim:
        self._turn()
        with self._lock:
            job = self.find(job_id)
            if job is None:
                return Claim("finished", None)
            if job.finished:
                return Claim("finished", job)
            if job.ticket is not None:
                return Claim("waiting", job)
            if job.state == "running" and (job.lease_until or 0) >= now:
                return Claim("taken", job)
            job = self.jobs[job_id] = replace(
                job,
                state="running",
                owner=owner,
                lease_until=now + lease_s,
                due_at=now + lease_s + OVERDUE_S,
                started_at=now if job.started_at is None else job.started_at,
                attempts=job.attempts + 1,
            )
            return Claim("claimed", job)

    def renew(self, job_id: str, owner: str, lease_until: float, rows_done: int) -> bool:
        return self._change(job_id, _held_by(owner), lease_until=lease_until, rows_done=rows_done)

    def hand_over(self, job_id: str, owner: str, ticket: Mapping[str, str], ran: Outcome, due_at: float) -> bool:
        more = {"ticket": dict(ticket), "due_at": due_at, "owner": None, "lease_until": None, **_told_by(ran)}
        return self._change(job_id, _held_by(owner), **more)

    def requeue(
        self, job_id: str, owner: str | None, problem: JobProblem | None, due_at: float, *, ticket: Ticket | None = None
    ) -> bool:
        def free(job: Job) -> bool:
            if ticket is not None:
                return job.state == "running" and job.ticket == ticket
            lost = job.ticket is not None or (job.lease_until is not None and job.lease_until < self.now())
            return job.state == "running" and lost

        more: dict[str, Any] = {} if problem is None else {"problem": problem}
        more |= {"state": "queued", "due_at": due_at, "owner": None, "lease_until": None, "ticket": None}
        return self._change(job_id, free if owner is None else _held_by(owner), **more)

    def finish(
        self, job_id: str, outcome: Outcome, at: float, *, owner: str | None = None, ticket: Ticket | None = None
    ) -> bool:
        def own(job: Job) -> bool:
            return not job.finished and owner in (None, job.owner) and ticket in (None, job.ticket)

        more = {"state": outcome.state, "finished_at": at, **_told_by(outcome)}
        more |= dict.fromkeys(("due_at", "owner", "lease_until", "ticket"))
        given = {name: getattr(outcome, name) for name in ("result", "problem", "batch")}
        more |= {name: value for name, value in given.items() if value is not None}
        if outcome.state == "succeeded":
            more["problem"] = None
        return self._change(job_id, own, **more)

    def restart(self, tenant: str, job_id: str, now: float) -> Job:
        job = self.get(tenant, job_id)
        more: dict[str, Any] = {"state": "queued", "attempts": 0, "due_at": now + OVERDUE_S}
        more |= {"start_by": now + START_WITHIN_S, "expires_at": int(now) + KEPT_S}
        more |= dict.fromkeys(("problem", "started_at", "finished_at"))
        if job.kind == "prediction":
            more |= {"rows_done": 0, "version": None, "variant": None, "backend": None, "cost_nusd": None}
        if not self._change(job_id, lambda job: job.state in ("failed", "cancelled"), **more):
            raise Conflict(f"The job is {self.jobs[job_id].state}.")
        return self.jobs[job_id]

    def overdue(self, now: float) -> Iterator[Sequence[Job]]:
        self._check()
        due = sorted((job.due_at, job_id) for job_id, job in self.jobs.items() if job.due_at is not None)
        ids = [job_id for due_at, job_id in due if due_at <= now]
        for begin in range(0, len(ids), 100):
            self._check()
            jobs = [self.jobs[job_id] for job_id in ids[begin : begin + 100]]
            yield [job for job in jobs if job.due_at is not None and job.due_at <= now]

    def postpone(self, job: Job, due_at: float) -> bool:
        def same(found: Job) -> bool:
            return (found.due_at, found.state, found.attempts) == (job.due_at, job.state, job.attempts)

        return job.due_at is not None and self._change(job.job_id, same, due_at=due_at)

    def _change(self, job_id: str, allowed: Callable[[Job], bool], **values: Any) -> bool:
        self._turn()
        with self._lock:
            job = self.jobs.get(job_id)
            if job is None or not allowed(job):
                return False
            self.jobs[job_id] = replace(job, **values)
            return True

    def _turn(self) -> None:
        self._check()
        before, self.before = self.before, None
        if before is not None:
            before()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


def _held_by(owner: str) -> Callable[[Job], bool]:
    return lambda job: job.state == "running" and job.owner == owner


def _told_by(ran: Outcome) -> dict[str, Any]:
    names = ("version", "variant", "backend", "rows_total", "rows_done", "cost_nusd")
    told = {name: getattr(ran, name) for name in names}
    return {name: value for name, value in told.items() if value is not None and (name, value) != ("rows_done", 0)}


def _is_asked_for(job: Job, which: JobFilter) -> bool:
    ms = int(job.job_id[:12], 16)
    return (
        (not which.states or job.state in which.states)
        and which.kind in (None, job.kind)
        and which.model in (None, job.model)
        and (which.since is None or ms >= int(which.since * 1000))
        and (which.until is None or ms <= int(which.until * 1000))
    )


class MemoryJobQueue:
    """A `JobQueue`; `sent` keeps (tenant, job id, delay), `error` is raised by all methods while it is set.

    All that was sent waits, unless `backlog` says how much does.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, float]] = []
        self.backlog: int | None = None
        self.error: Exception | None = None

    def send(self, tenant: str, job_id: str, *, delay_s: float = 0.0) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((tenant, job_id, delay_s))

    def waiting(self) -> int:
        if self.error is not None:
            raise self.error
        return len(self.sent) if self.backlog is None else self.backlog


class MemoryDeadLetters:
    """A `DeadLetters`; `error` is raised while it is set."""

    def __init__(self) -> None:
        self.sent: list[tuple[Job, JobProblem]] = []
        self.error: Exception | None = None

    def send(self, job: Job, problem: JobProblem) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((job, problem))


class MemoryJobObjects:
    """A `JobObjects`; `objects` maps keys of the bucket `data` to bytes, `error` is raised by all but `url`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.error: Exception | None = None

    def put_body(self, tenant: str, job_id: str, body: bytes, media_type: str) -> ObjectRef:
        return self._put(f"jobs/in/{tenant}/{job_id}", body)

    def put_result(self, tenant: str, job_id: str, owner: str, body: bytes, media_type: str) -> ObjectRef:
        return self._put(f"jobs/out/{tenant}/{job_id}/{owner}", body)

    def read(self, ref: ObjectRef, max_bytes: int) -> bytes:
        if self.error is not None:
            raise self.error
        found = self.objects.get(ref.key) if ref.bucket == "data" else None
        if found is None:
            raise SourceNotFound(f"There is no object {ref.uri}.")
        if len(found) > max_bytes:
            raise PayloadTooLarge(f"{ref.uri} has {len(found)} bytes; the limit is {max_bytes}.")
        return found

    def url(self, ref: ObjectRef, seconds: int, *, media_type: str, file_name: str) -> str:
        return f"https://{ref.bucket}.example/{ref.key}?expires={seconds}&name={file_name}"

    def _put(self, key: str, body: bytes) -> ObjectRef:
        if self.error is not None:
            raise self.error
        self.objects[key] = body
        return ObjectRef("data", key)
