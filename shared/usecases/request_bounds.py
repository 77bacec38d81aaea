"""What bounds a request: its own wishes, its endpoint's limits, and the time that its steps take."""

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Final

from shared.codecs.content.decoded import whole_parameter
from shared.domain.endpoint.config import EndpointConfig, Priority
from shared.domain.errors import BatchTooLarge
from shared.domain.ports import InferenceContext
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors

_LEAST_PRIORITY: Final = 255  # as the container has it
_PRIORITIES: Final[Mapping[Priority, int]] = {"high": 50, "normal": 0, "low": 200}


class Steps:
    """How long each step took in milliseconds; a step begins where the one before ended."""

    __slots__ = ("_last", "began", "ms")

    def __init__(self) -> None:
        self.began = self._last = perf_counter()
        self.ms: dict[str, float] = {}

    def end(self, name: str) -> None:
        """A step ends now."""
        now = perf_counter()
        self.ms[name] = (now - self._last) * 1e3
        self._last = now


def own_ms(parameters: Mapping[str, object]) -> int:
    """The protocol's own `timeout` in milliseconds, 0 without one.

    `priority` is checked, and has no effect: in the container's queue it comes before the fairness between tenants,
    which no caller may set aside. Source: Triton Inference Server, "Schedule Policy Extension".
    """
    if not parameters:
        return 0
    whole_parameter(parameters, "priority", _LEAST_PRIORITY)
    timeout_us = whole_parameter(parameters, "timeout", 2**63)
    return max(1, timeout_us // 1000) if timeout_us else 0


def prioritised(context: InferenceContext, config: EndpointConfig) -> InferenceContext:
    """The context with the priority that the endpoint gives its tenant."""
    priority = config.limits.priorities.get(context.tenant)
    return context if priority is None else replace(context, priority=_PRIORITIES[priority])


def rows_of(inputs: Tensors, signature: Signature) -> int:
    """How many instances the inputs have; 1 without an axis of instances."""
    for spec in signature.inputs:
        if spec.name in inputs and signature.has_rows(spec):
            return int(inputs[spec.name].shape[0])
    return 1


def check_most_rows(rows: int, config: EndpointConfig) -> None:
    """Raise BatchTooLarge for more instances than the endpoint takes at once."""
    most = config.limits.max_rows
    if most is not None and rows > most:
        raise BatchTooLarge.at("/instances", f"{rows} instances; the endpoint takes {most} at once")
