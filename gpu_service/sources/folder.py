"""Models in a folder: `<name>/<version>/model.onnx`, or a single `model.onnx` right in it."""

from collections.abc import Sequence
from pathlib import Path

from gpu_service.repository import ModelKey
from gpu_service.sources.source import Found, SourceError
from shared.adapters.onnx.package import MANIFEST_FILE, MODEL_FILE, read_manifest


class FolderSource:
    """Read once, at start: the folder of a container does not change."""

    polled = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self) -> Sequence[Found]:
        """Every package; SourceError if there is none, InvalidPackage if the single one has no readable manifest."""
        if not self._folder.is_dir():
            raise SourceError(f"There is no folder {self._folder}; SLUICE_MODEL_DIR says where the models are.")
        packages = [_found(folder) for folder in sorted(self._folder.glob("*/*")) if _is_package(folder)]
        if _is_package(self._folder):
            packages.append(self._single())
        if not packages:
            raise SourceError(f"The folder {self._folder} holds no <name>/<version>/{MODEL_FILE}.")
        return packages

    def fetch(self, found: Found) -> Path:
        """The package's own folder."""
        return Path(found.place)

    def _single(self) -> Found:
        manifest = read_manifest(self._folder)
        key = ModelKey(manifest.name, manifest.version) if manifest else ModelKey("model", 1)
        return Found(key, "", str(self._folder))


def _is_package(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file() or (folder / MANIFEST_FILE).is_file()


def _found(folder: Path) -> Found:
    version = folder.name
    # A folder that is no version number still holds a model: loading it says what is wrong, leaving it out would not.
    number = int(version) if version.isdecimal() and len(version) < 10 else 0
    return Found(ModelKey(folder.parent.name, number), "", str(folder))
