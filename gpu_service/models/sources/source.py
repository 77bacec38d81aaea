"""Where models come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpu_service.models.served_model import ModelKey


@dataclass(frozen=True, slots=True)
class Found:
    """A package in a source; `revision` changes when its content does, `place` is the source's own name for it."""

    key: ModelKey
    revision: str
    place: str


class SourceError(Exception):
    """The source itself cannot be read: its message says why."""


class ModelSource(Protocol):
    """Lists packages and brings them to a folder; its methods block and may be called from several threads at once.

    `polled`: it changes while the container runs, so it is listed again and again. `immutable`: a version that has been
    served is never replaced by other bytes.
    """

    polled: bool
    immutable: bool

    def list(self, name: str | None = None) -> Sequence[Found]:
        """All packages that are there now, or those of one model.

        SourceError if that cannot be told, or if there is none at all where some must be and no name was given.
        """

    def fetch(self, found: Found) -> Path | None:
        """The folder of the package, verified; None if it is not for containers. Raises SluiceError, OSError."""

    def discard(self, found: Found) -> None:
        """The package is gone from the source and from memory: delete what is kept of it. Raises OSError."""
