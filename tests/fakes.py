"""The ports of `shared.domain.ports` in memory. The contract suite in `tests/adapters` holds them to what AWS does."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock

from shared.adapters.package_files import check_paths, has_bytes
from shared.domain.endpoint_settings import EndpointSettings
from shared.domain.errors import (
    BackendTimeout,
    Conflict,
    DigestMismatch,
    KeyNotFound,
    ModelNotFound,
    TenantNotFound,
    VersionConflict,
    VersionNotFound,
)
from shared.domain.model import ModelVersion, PackageFile
from shared.domain.plans import PLAN_NAME, TENANT_NAME, Plan
from shared.domain.ports import ApiKey, InferenceContext
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
    """An `EndpointStore`."""

    def __init__(self, *stored: EndpointSettings) -> None:
        self._settings = {settings.endpoint: settings for settings in stored}

    def get(self, endpoint: str) -> EndpointSettings | None:
        return self._settings.get(endpoint)

    def put(self, settings: EndpointSettings) -> None:
        stored = self._settings.get(settings.endpoint)
        if (stored.version if stored else 0) != settings.version - 1:
            raise Conflict(f"The settings of {settings.endpoint} have changed since version {settings.version - 1}.")
        self._settings[settings.endpoint] = settings

    def list(self) -> Sequence[EndpointSettings]:
        return [settings for _, settings in sorted(self._settings.items())]


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
