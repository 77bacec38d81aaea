"""The ports of `shared.domain.ports` in memory. The contract suite in `tests/adapters` holds them to what AWS does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock

from shared.adapters.package_files import check_paths, has_bytes
from shared.domain.errors import (
    BackendTimeout,
    DigestMismatch,
    ModelNotFound,
    VersionConflict,
    VersionNotFound,
)
from shared.domain.model import ModelVersion, PackageFile
from shared.domain.ports import ApiKey, InferenceContext
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
    """A `KeyStore`."""

    def __init__(self, *keys: ApiKey) -> None:
        self._keys = {key.key_id: key for key in keys}

    def get(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    def add(self, key: ApiKey) -> None:
        if not key.key_id or not key.key_id.isascii() or len(key.key_id) > 255:
            raise ValueError("a key id has 1 to 255 ASCII characters")
        if key.key_id in self._keys:
            raise ValueError(f"the key id {key.key_id} is taken")
        self._keys[key.key_id] = key


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
