"""Models in a folder: `<name>/<version>/model.onnx`, or a single `model.onnx` right in it."""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from gpu_service.models.served_model import ModelKey
from gpu_service.models.sources.source import Found, SourceError
from shared.adapters.onnx.package import MANIFEST_FILE, MODEL_FILE, read_manifest

_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class FolderSource:
    """Listed at start, and again when a model is to be loaded by its name."""

    polled = False
    immutable = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self, name: str | None = None) -> Sequence[Found]:
        """Every package; SourceError if there is none, InvalidPackage if the single one has no readable manifest."""
        if not self._folder.is_dir():
            raise SourceError(f"There is no folder {self._folder}; SLUICE_MODEL_DIR says where the models are.")
        packages = [_found(folder) for folder in sorted(self._folder.glob("*/*")) if is_package(folder)]
        if is_package(self._folder):
            packages.append(found_in(self._folder, None))
        if name is not None:
            return [package for package in packages if package.key.name == name]
        if not packages:
            raise SourceError(f"The folder {self._folder} holds no <name>/<version>/{MODEL_FILE}.")
        return packages

    def fetch(self, found: Found) -> Path:
        """The package's own folder."""
        return Path(found.place)

    def discard(self, found: Found) -> None:
        """Nothing is kept beside the folder, which is not ours to delete."""


def is_package(folder: Path) -> bool:
    """Whether a folder looks like a package; a manifest without its model is a broken one."""
    return (folder / MODEL_FILE).is_file() or (folder / MANIFEST_FILE).is_file()


def found_in(folder: Path, name: str | None) -> Found:
    """The package right in `folder`, as its manifest says or else version 1 of `model`; `name` is used instead of both.

    InvalidPackage if the manifest cannot be read.
    """
    manifest = read_manifest(folder)
    key = ModelKey(name or (manifest.name if manifest else "model"), manifest.version if manifest else 1)
    return Found(key, _revision(folder), str(folder))


def versions_in(folder: Path, name: str) -> Iterator[Found]:
    """The packages in the version folders of one model."""
    for version in sorted(folder.iterdir()):
        if _VERSION.fullmatch(version.name) and is_package(version):
            yield Found(ModelKey(name, int(version.name)), _revision(version), str(version))


def _found(folder: Path) -> Found:
    version = folder.name
    # A folder that is no version number still holds a model: loading it says what is wrong, leaving it out would not.
    number = int(version) if _VERSION.fullmatch(version) else 0
    return Found(ModelKey(folder.parent.name, number), _revision(folder), str(folder))


def _revision(folder: Path) -> str:
    """Another text when a file is added, removed or written to."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
