"""Runs packages in this process."""

from typing import Protocol

from shared.domain.errors import BackendTimeout
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors


class Runnable(Protocol):
    """A loaded package: pre-processing, graph and post-processing together."""

    def run(self, inputs: Tensors) -> Tensors:
        """Outer inputs to outer outputs; raises InvalidRequest for faulty content and BackendError."""


class Packages(Protocol):
    """Where loaded packages come from: `shared.adapters.package_cache.PackageCache`, or a folder."""

    def get(self, version: ModelVersion) -> Runnable:
        """The loaded package of a version."""


class FunctionBackend:
    """Implements `shared.domain.ports.Backend` with packages that are fetched and loaded on first use."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model here; a graph that runs cannot be interrupted, so the deadline is checked before it starts."""
        if context.deadline_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        return self._packages.get(version).run(inputs)
