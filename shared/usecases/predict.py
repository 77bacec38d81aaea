"""One prediction, whatever the door it came through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from uuid import uuid4

from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Backend, InferenceContext, ModelRegistry
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import Inputs, conform


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outer outputs, who made them, and how long each step took in milliseconds."""

    prediction_id: str
    version: ModelVersion
    backend: str
    outputs: Tensors
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Predict:
    """decode → validate → route → run, under the caller's scope."""

    registry: ModelRegistry
    backends: Mapping[Placement, Backend]

    def __call__(
        self, principal: Principal, model: str, decode: Callable[[Signature], Inputs], context: InferenceContext
    ) -> Prediction:
        """Predict with the highest version of `model`; `decode` reads the request's tensors by its signature.

        Raises InsufficientScope before the model's existence is told, ModelNotFound, InvalidRequest, BackendError.
        """
        principal.require("predict", f"predict:{model}")
        start = perf_counter()
        version = self.registry.latest(model)
        routed = perf_counter()
        inputs = conform(decode(version.signature), version.signature)
        decoded = perf_counter()
        outputs = self.backends[version.placement].infer(version, inputs, context)
        ran = perf_counter()
        return Prediction(
            prediction_id=uuid4().hex,
            version=version,
            backend=version.placement.value,
            outputs=outputs,
            timings_ms={
                "route": (routed - start) * 1e3,
                "decode": (decoded - routed) * 1e3,
                "run": (ran - decoded) * 1e3,
            },
        )
