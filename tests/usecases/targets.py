"""Targets and backends in memory that behave as they are told, for tests of the resilient run."""

from collections.abc import Callable, Mapping
from threading import Event
from time import sleep

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.target import Target
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Backend, InferenceContext
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Tensors
from shared.usecases.deadline import DeadlineRunner

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 1)),), outputs=(TensorSpec("y", DType.FP32, (None, 1)),)
)
INPUTS: Tensors = {"x": np.array([[1.0], [2.0]], np.float32)}
NOW = 1_800_000_000.0
LONG_MS = 20_000


def version(number: int = 1, signature: Signature = SIGNATURE) -> ModelVersion:
    return ModelVersion("m", number, f"digest-{number}", (), signature, Placement.FUNCTION, "2026-01-01T00:00:00+00:00")


def target(variant: str = "main", backend: str = "gpu", number: int = 1, **more: bool) -> Target:
    return Target(variant, version(number), backend, **more)


def within(ms: int = LONG_MS, tenant: str = "acme") -> InferenceContext:
    return InferenceContext("r", tenant, ms)


Step = Callable[[], None]


def fails(error: Exception) -> Step:
    """Raise this error."""

    def step() -> None:
        raise error

    return step


def takes(seconds: float) -> Step:
    """Take that long."""
    return lambda: sleep(seconds)


def hangs(until: Event) -> Step:
    """Wait for the event, whatever the deadline says."""

    def step() -> None:
        until.wait(30)

    return step


def works() -> None:
    """Answer at once."""


class Scripted:
    """A `Backend` that takes its steps one after the other, and the last one ever after; then it doubles `x`.

    `contexts` are those of its calls.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps) or [works]
        self.contexts: list[InferenceContext] = []

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        step = self.steps[min(len(self.contexts), len(self.steps) - 1)]
        self.contexts.append(context)
        step()
        return {"y": inputs["x"] * 2 * version.version}

    @property
    def calls(self) -> int:
        return len(self.contexts)


class Named:
    """`Backends` by name."""

    def __init__(self, **backends: Backend) -> None:
        self.backends: Mapping[str, Backend] = backends

    def get(self, name: str, config: EndpointConfig) -> Backend:
        if name not in self.backends:
            raise BackendUnavailable(f"{config.endpoint} has no backend {name}.")
        return self.backends[name]


class Clock:
    """Seconds since 1970 that pass when they are told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def settle(runner: DeadlineRunner, key: str) -> None:
    """Wait until the calls of a backend have ended."""
    for _ in range(2000):
        if not runner.under_way(key):
            return
        sleep(0.01)
    raise AssertionError(f"calls of {key} are still under way")
