"""Brings a package from its source into memory. Everything here blocks and runs in threads."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpu_service.execution.memory import memory_in_use
from gpu_service.models.errors import OutOfMemory
from gpu_service.models.sources.index import INDEX, verify
from shared.adapters.onnx.package import MODEL_FILE, read_manifest
from shared.adapters.pipeline_package import read_draft
from shared.domain.errors import BackendError, InvalidPackage, SluiceError

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey, ServedModel
    from gpu_service.models.sources.source import Found

_log = logging.getLogger(__name__)

# The S3 source names the folders of its cache by the digest, and has held the files against it.
_DIGEST = re.compile("[0-9a-f]{64}")


class LoadModel(Protocol):
    """Loads a package from a folder and warms it up for the shapes that it declares."""

    def __call__(self, folder: Path, key: "ModelKey") -> "ServedModel":
        """The model, ready for requests under `key`, whatever its manifest calls it; InvalidPackage or BackendError."""


@dataclass(frozen=True, slots=True)
class Package:
    """A verified package on the disk; `nbytes` are those of its files, `digest` is empty where none was published."""

    found: "Found"
    folder: Path
    nbytes: int
    digest: str = ""


class PackageLoader:
    """`fetch` is the source's own; `named` says that a manifest must name the model and version of its place."""

    def __init__(self, fetch: "Callable[[Found], Path | None]", load: LoadModel, *, named: bool = True) -> None:
        self._fetch = fetch
        self._load = load
        self._named = named

    def prepare(self, found: "Found") -> Package | None:
        """Fetch a package and check it; None if it is not for containers.

        Raises InvalidPackage, DigestMismatch, BackendError.
        """
        with _own_errors():
            folder = self._fetch(found)
            if folder is None:
                return None
            index = verify(folder)
            self._check(folder, found.key)
            sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != INDEX)
            digest = folder.name if _DIGEST.fullmatch(folder.name) else ""
            return Package(found, folder, sum(sizes), index.digest if index else digest)

    def load(self, package: Package) -> "tuple[ServedModel, int]":
        """The model and the memory that it took, in bytes; only one load at a time, or the figure is of no use.

        Raises InvalidPackage, BackendError, OutOfMemory.
        """
        before = memory_in_use()
        with _own_errors():
            served = self._load(package.folder, package.found.key)
        served.digest = package.digest
        return served, served.memory_bytes or max(package.nbytes, memory_in_use() - before)

    def _check(self, folder: Path, key: "ModelKey") -> None:
        pipeline = read_draft(folder)
        if pipeline is None and not (folder / MODEL_FILE).is_file():
            raise InvalidPackage(f"The package has no {MODEL_FILE}.")
        if key.version < 1:
            raise InvalidPackage(f"A version is a positive integer, not {folder.name!r}.")
        if pipeline is not None and not self._named:
            raise InvalidPackage("A multi-model endpoint loads models one by one: it cannot tell a pipeline's steps.")
        manifest = pipeline or read_manifest(folder)
        if self._named and manifest and (manifest.name, manifest.version) != (key.name, key.version):
            raise InvalidPackage(
                f"The manifest is that of {manifest.name} version {manifest.version}, and lies in another's folder."
            )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Whatever a package or its source provokes becomes an error that says so; the log gets the original, its cause."""
    try:
        yield
    except SluiceError:
        raise
    except MemoryError as error:
        raise OutOfMemory("The system has no memory left for the model.") from error
    except OSError as error:
        raise BackendError(f"{type(error).__name__}: {error.strerror}") from error
    except Exception as error:
        raise BackendError(f"The model could not be loaded: {type(error).__name__}; the log has it all.") from error


def close_quietly(served: "ServedModel") -> None:
    """Give a model's memory back; nobody waits for what goes wrong with that, so it is logged."""
    try:
        served.close()
    except Exception:  # noqa: BLE001 - logged
        _log.exception("%s version %s could not be closed", served.key.name, served.key.version)
