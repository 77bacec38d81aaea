"""Where models come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpu_service.repository import ModelKey


@dataclass(frozen=True, slots=True)
class Found:
    """A package in a source; `revision` changes when its content does, `place` is the source's own name for it."""

    key: ModelKey
    revision: str
    place: str


class SourceError(Exception):
    """The source itself cannot be read: its message says why."""


class ModelSource(Protocol):
    """Lists packages and brings them to a folder."""

    polled: bool

    def list(self) -> Sequence[Found]:
        """All packages that are there now; SourceError if that cannot be told."""

    def fetch(self, found: Found) -> Path | None:
        """The folder of the package, verified; None if it is not for containers. Raises SluiceError, OSError."""
