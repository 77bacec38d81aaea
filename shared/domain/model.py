"""A published version of a model, as the registry knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from shared.domain.features import FeaturePlan, ModelFeatures
from shared.domain.pipeline import Pipeline
from shared.domain.signature import Signature


class Placement(StrEnum):
    """Where a package runs unless an endpoint configuration says otherwise."""

    FUNCTION = "function"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file of a package: `path` is relative, with forward slashes; `size` in bytes; `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str


def digest_of(files: tuple[PackageFile, ...]) -> str:
    """The digest of a package: SHA-256 over `path NUL size NUL sha256 LF` of its files, sorted by path."""
    lines = (f"{file.path}\0{file.size}\0{file.sha256}\n" for file in sorted(files, key=lambda file: file.path))
    return sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PackageDescription:
    """What a package says of itself, once its manifest and graph agree."""

    model: str
    version: int
    signature: Signature
    placement: Placement
    metadata: Mapping[str, Any]
    features: ModelFeatures | None = None
    pipeline: Pipeline | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An immutable version; `metadata` holds what the manifest says for people (metrics, data, licence, lineage).

    `signature` is the model's own, which backends take; where it has `features`, callers see `caller_signature`, and
    `feature_plan` leads from one to the other. ValueError for features that do not fit the signature.
    A version that is a `pipeline` has no graph: its steps are in its manifest with their digests, and so in its own.
    """

    model: str
    version: int
    digest: str
    files: tuple[PackageFile, ...]
    signature: Signature
    placement: Placement
    created_at: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    features: ModelFeatures | None = None
    pipeline: Pipeline | None = None
    # Made once: what is kept by a signature's identity holds for all requests of a version.
    feature_plan: FeaturePlan | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.features is not None:
            object.__setattr__(self, "feature_plan", FeaturePlan(self.features, self.signature))

    @property
    def caller_signature(self) -> Signature:
        """What callers send and get: the same object at every call."""
        return self.signature if self.feature_plan is None else self.feature_plan.caller_signature

    @property
    def caller_example(self) -> Any:
        """An instance as callers send it, None if the manifest has none."""
        return self.metadata.get("example") if self.features is None else self.features.example

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def prefix(self) -> str:
        """Where the package lies in the model bucket."""
        return f"models/{self.model}/{self.version}/"
