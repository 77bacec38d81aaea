"""Publish a package: check it, store its files, enter it in the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.domain.errors import InvalidPackage, NotFound, VersionConflict
from shared.domain.model import ModelVersion, PackageDescription, PackageFile, digest_of
from shared.domain.pipeline import Step
from shared.domain.ports import ModelRegistry, PackageReader, PackageStore, PipelineReader

MAX_FILES = 1000


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Published:
    """The version, and whether this call published it (False: it was there with the same bytes)."""

    version: ModelVersion
    created: bool


@dataclass(frozen=True, slots=True)
class PublishModel:
    """Versions are immutable: the same bytes may be published again, other bytes are refused.

    Without `pipelines` only packages with a graph can be published.
    """

    registry: ModelRegistry
    store: PackageStore
    reader: PackageReader
    clock: Callable[[], datetime] = _now
    pipelines: PipelineReader | None = None

    def __call__(self, folder: Path) -> Published:
        """Publish the package in `folder`; raises InvalidPackage or VersionConflict.

        The files are stored before the registry names them, so a version that can be found can be loaded. Of a pipeline
        what is published is the whole: with the digests of its steps, and with its outer signature.
        """
        files = package_files(folder)
        pipeline = self.pipelines.read(folder) if self.pipelines else None
        if pipeline is None or self.pipelines is None:
            return self._publish(folder, files, self.reader.describe(folder))
        steps = {step.name: self._step(step) for step in pipeline.steps}
        with TemporaryDirectory(prefix="sluice-") as temporary:
            whole = Path(temporary) / "package"
            description = self.pipelines.complete(folder, steps, whole)
            return self._publish(whole, package_files(whole), description)

    def _step(self, step: Step) -> ModelVersion:
        try:
            return self.registry.get(step.model, step.version)
        except NotFound as error:
            raise InvalidPackage(f"The {step.label} is not published: {error.detail}") from error

    def _publish(self, folder: Path, files: tuple[PackageFile, ...], description: PackageDescription) -> Published:
        version = ModelVersion(
            model=description.model,
            version=description.version,
            digest=digest_of(files),
            files=files,
            signature=description.signature,
            placement=description.placement,
            created_at=self.clock().isoformat(timespec="seconds"),
            metadata=description.metadata,
            features=description.features,
            pipeline=description.pipeline,
        )
        existing = self._existing(version)
        if existing is not None:
            return Published(existing, created=False)
        self.store.upload(version, folder)
        return Published(version, created=self.registry.add(version))

    def _existing(self, version: ModelVersion) -> ModelVersion | None:
        try:
            existing = self.registry.get(version.model, version.version)
        except NotFound:
            return None
        if existing.digest != version.digest:
            raise VersionConflict(
                f"{version.model} version {version.version} is published with other content. "
                "Versions are immutable: publish this one under the next number."
            )
        return existing


def package_files(folder: Path) -> tuple[PackageFile, ...]:
    """Size and SHA-256 of every file below `folder`, by path.

    Raises InvalidPackage for links, for what is no plain file, for names that are not UTF-8, and for too many files.
    """
    files: list[PackageFile] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if not relative.isprintable():
            raise InvalidPackage(f"The name {relative!r} holds what cannot be printed, or is not UTF-8.")
        if path.is_symlink():
            raise InvalidPackage(f"{relative} is a link; a package holds plain files only.")
        if path.is_dir():
            continue
        if not path.is_file():
            raise InvalidPackage(f"{relative} is not a plain file.")
        if len(files) == MAX_FILES:
            raise InvalidPackage(f"The package has more than {MAX_FILES} files.")
        with path.open("rb") as file:
            files.append(PackageFile(relative, path.stat().st_size, file_digest(file, "sha256").hexdigest()))
    return tuple(files)
