"""What the use cases need from the outside; `shared.adapters` implements it, `tests.fakes` does so in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.domain.model import ModelVersion, PackageDescription

if TYPE_CHECKING:  # NumPy is heavy, and the authorizer and the catalogue read this module without it
    from shared.domain.tensors import Tensors


@dataclass(frozen=True, slots=True)
class InferenceContext:
    """What travels with a prediction to the backend.

    `deadline_ms` is the time left when the call is made, `traceparent` the trace in W3C's form.
    """

    request_id: str
    tenant: str
    deadline_ms: int
    traceparent: str | None = None


class ModelRegistry(Protocol):
    """Knows the published versions."""

    def latest(self, model: str) -> ModelVersion:
        """The highest version; ModelNotFound if there is none."""

    def get(self, model: str, version: int) -> ModelVersion:
        """One version; ModelNotFound or VersionNotFound."""

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """All versions, the highest first; ModelNotFound if there is none."""

    def models(self) -> Sequence[ModelVersion]:
        """The highest version of every model, by name."""

    def add(self, version: ModelVersion) -> bool:
        """Add a version; False if it was there with the same digest, VersionConflict if with another."""


class PackageStore(Protocol):
    """Holds the files of packages."""

    def upload(self, version: ModelVersion, folder: Path) -> None:
        """Store the files of `version`, read from `folder`."""

    def download(self, version: ModelVersion, folder: Path) -> None:
        """Write the files of `version` below `folder`; DigestMismatch if a byte differs."""


class PackageReader(Protocol):
    """Reads a package folder before it is published."""

    def describe(self, folder: Path) -> PackageDescription:
        """Load the package and check its manifest against its graph; InvalidPackage says what is wrong."""


class Backend(Protocol):
    """Runs a version somewhere: takes and gives outer tensors that the signature allows."""

    def infer(self, version: ModelVersion, inputs: "Tensors", context: InferenceContext) -> "Tensors":
        """Run the model; raises InvalidRequest for faulty content (an image that is not one) and BackendError."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key: `secret_hash` is the SHA-256 of its secret part in hexadecimal."""

    key_id: str
    secret_hash: str
    tenant: str
    scopes: frozenset[str]
    plan: str
    expires_at: int | None = None


class KeyStore(Protocol):
    """Knows the API keys."""

    def get(self, key_id: str) -> ApiKey | None:
        """The key, or None if there is no such key."""

    def add(self, key: ApiKey) -> None:
        """Store a new key."""
