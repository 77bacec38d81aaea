"""One prediction, whatever the door it came through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from uuid import uuid4

from shared.codecs.content.decoded import Decoded, check_outputs, whole_parameter
from shared.domain.errors import BackendTimeout, DeadlineMissed
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Backend, InferenceContext, ModelRegistry
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import conform

VARIANT = "main"
_LEAST_PRIORITY = 255  # as the container has it


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outer outputs, who made them, of how many instances, and how long each step took in milliseconds.

    `decoded` is the request: its inputs as they were given, and the outputs that it asked for (none: all).
    """

    prediction_id: str
    version: ModelVersion
    variant: str
    backend: str
    decoded: Decoded
    outputs: Tensors
    rows: int
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Predict:
    """decode → validate → route → run, under the caller's scope."""

    registry: ModelRegistry
    backends: Mapping[Placement, Backend]

    def __call__(
        self,
        principal: Principal,
        model: str,
        version: int | None,
        decode: Callable[[Signature], Decoded],
        context: InferenceContext,
    ) -> Prediction:
        """Predict with a version of `model`, the highest if it is None; `decode` reads the request by its signature.

        Raises InsufficientScope before the model's existence is told, ModelNotFound, VersionNotFound, InvalidRequest
        (DeadlineMissed for a request that gave itself too little time), BackendError.
        """
        principal.require("predict", f"predict:{model}")
        start = perf_counter()
        found = self.registry.latest(model) if version is None else self.registry.get(model, version)
        routed = perf_counter()
        signature = found.signature
        decoded = decode(signature)
        if decoded.outputs:
            check_outputs(decoded.outputs, signature.output_names)
        given_ms = context.deadline_ms
        if decoded.parameters:
            context = _in_time(context, decoded.parameters)
        inputs = conform(decoded.inputs, signature)
        checked = perf_counter()
        try:
            outputs = self.backends[found.placement].infer(found, inputs, context)
        except BackendTimeout as error:
            if context.deadline_ms == given_ms:
                raise
            # No fault of the backend: alarms and quotas go by that.
            raise DeadlineMissed(
                f"The model did not answer within the request's own timeout of {context.deadline_ms} ms."
            ) from error
        ran = perf_counter()
        return Prediction(
            prediction_id=uuid4().hex,
            version=found,
            variant=VARIANT,
            backend=found.placement.value,
            decoded=decoded,
            outputs=outputs,
            rows=_rows(inputs, signature),
            timings_ms={
                "route": (routed - start) * 1e3,
                "decode": (checked - routed) * 1e3,
                "run": (ran - checked) * 1e3,
            },
        )


def _in_time(context: InferenceContext, parameters: Mapping[str, object]) -> InferenceContext:
    """The context with the protocol's own `timeout`, in microseconds, of which 0 means none.

    `priority` is checked, and has no effect here: in the container's queue it comes before the fairness between
    tenants, which no caller may set aside. Source: Triton Inference Server, "Schedule Policy Extension".
    """
    whole_parameter(parameters, "priority", _LEAST_PRIORITY)
    timeout_us = whole_parameter(parameters, "timeout", 2**63)
    if not timeout_us:
        return context
    return replace(context, deadline_ms=min(context.deadline_ms, max(1, timeout_us // 1000)))


def _rows(inputs: Tensors, signature: Signature) -> int:
    for spec in signature.inputs:
        if spec.name in inputs and signature.has_rows(spec):
            return int(inputs[spec.name].shape[0])
    return 1
