"""The models that are served, by name and version, and whether the container is ready."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from shared.domain.errors import InvalidRequest, ModelNotFound, VersionNotFound
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors


class ServedModel(Protocol):
    """A loaded model, as `shared.adapters.onnx.package.OnnxPackage` is one."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    def run(self, inputs: Tensors, outputs: tuple[str, ...] = ()) -> Tensors:
        """Predict with outer tensors that conform to the signature."""


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A version of a model."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reason` says why not; `failed` holds the models given at start that did not load, with their errors."""

    ready: bool
    reason: str
    models: tuple[ModelKey, ...]
    failed: Mapping[str, str]


class ModelRepository:
    """Readers take no lock: a change replaces the whole table."""

    def __init__(self) -> None:
        self._models: Mapping[str, Mapping[int, ServedModel]] = {}
        self._failed: dict[str, str] = {}
        self._pending: str | None = "The models are being loaded."
        self._lock = Lock()

    def add(self, key: ModelKey, model: ServedModel) -> None:
        """Serve a model from now on; its name's highest version answers requests without a version."""
        with self._lock:
            versions = {**self._models.get(key.name, {}), key.version: model}
            self._models = {**self._models, key.name: dict(sorted(versions.items()))}
            self._failed.pop(_label(key), None)

    def get(self, name: str | None, version: int | None) -> tuple[ModelKey, ServedModel]:
        """The model; without a name the only one there is, without a version the highest.

        Raises InvalidRequest if the name is needed, ModelNotFound, VersionNotFound.
        """
        models = self._models
        if name is None:
            if len(models) != 1:
                raise InvalidRequest(
                    f"{len(models)} models are served: name one with the custom attribute model or with Target-Model."
                )
            name = next(iter(models))
        versions = models.get(name)
        if not versions:
            raise ModelNotFound(f"No model named {name!r} is served here.")
        number = max(versions) if version is None else version
        if number not in versions:
            raise VersionNotFound(f"Model {name!r} is not served in version {number}.")
        return ModelKey(name, number), versions[number]

    def holds(self, key: ModelKey) -> bool:
        """Whether this version is served."""
        return key.version in self._models.get(key.name, {})

    def fail(self, key: ModelKey, error: str) -> None:
        """A model that was given at start cannot be served: the container is not healthy without it."""
        with self._lock:
            self._failed[_label(key)] = error

    def pending(self, reason: str | None) -> None:
        """Say what the start still waits for; None once every model given has been tried."""
        self._pending = reason

    def readiness(self) -> Readiness:
        """Whether all that was given at start is served."""
        failed = dict(self._failed)
        names = ", ".join(failed)
        reason = self._pending or (f"These models could not be loaded: {names}." if failed else "")
        keys = tuple(ModelKey(name, version) for name, versions in self._models.items() for version in versions)
        return Readiness(not reason, reason, keys, failed)


def _label(key: ModelKey) -> str:
    return f"{key.name}/{key.version}"
