"""From a request and the endpoint's configuration to the version and the backend that serve it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import random

from shared.domain.endpoint.auto import Estimate, Work, choose_backend
from shared.domain.endpoint.config import AUTO, EndpointConfig, Variant
from shared.domain.endpoint.latency import Latencies
from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Caller, Exposure, choose_variant
from shared.domain.errors import AsyncRequired, BackendUnavailable, DeadlineMissed, VersionNotAllowed, VersionNotFound
from shared.domain.model import ModelVersion
from shared.domain.ports import ModelRegistry

# Backends that answer later: chosen for jobs, never for an answer that somebody waits for.
ASYNC_KINDS = frozenset({"sagemaker-async"})


@dataclass(frozen=True, slots=True)
class Routed:
    """The target of a request, and the exposure if an experiment chose it."""

    target: Target
    exposure: Exposure | None = None


class Route:
    """Chooses variants and backends; `price` gives what a call of a backend costs by its milliseconds, in any unit."""

    def __init__(
        self,
        registry: ModelRegistry,
        latencies: Latencies,
        price: Callable[[str, EndpointConfig, float], float],
        draw: Callable[[], float] = random,
    ) -> None:
        self._registry = registry
        self._latencies = latencies
        self._price = price
        self._draw = draw

    def __call__(self, model: str, wanted: int | str | None, config: EndpointConfig, caller: Caller) -> Routed:
        """The target by the version or label that a request wants, else by the experiment or the weights.

        Its backend may be `auto` still (see `backend`). Raises ModelNotFound, VersionNotFound, VersionNotAllowed, and
        BackendUnavailable where the configuration names what there is not.
        """
        if wanted is not None:
            return Routed(self._pinned(model, wanted, config))
        variant, exposure = choose_variant(config, caller)
        return Routed(self.target(model, variant, config), exposure)

    def check(self, model: str) -> None:
        """Raise ModelNotFound for what is not published."""
        self._registry.latest(model)

    def version(self, model: str, number: int) -> ModelVersion:
        """One version; ModelNotFound, VersionNotFound."""
        return self._registry.get(model, number)

    def target(self, model: str, variant: Variant, config: EndpointConfig) -> Target:
        """The target that a variant stands for now; BackendUnavailable if its version is not published."""
        try:
            version = self._version(model, variant.version, config)
        except VersionNotFound as error:
            raise BackendUnavailable(
                f"The variant {variant.name} of {model} cannot be served: {error.detail}"
            ) from error
        return Target(variant.name, version, variant.backend)

    def backend(self, target: Target, config: EndpointConfig, work: Work, *, full_deadline_ms: float) -> Target:
        """The target with a backend in the place of `auto`.

        `full_deadline_ms` is the time that a request has that asks for no deadline of its own. Raises DeadlineMissed if
        the work would fit into that time alone, AsyncRequired if it would not even so.
        """
        if target.backend != AUTO:
            return target
        version = target.version
        candidates = [name for name in config.auto.candidates if not is_async(name, config)]
        candidates = candidates or [version.placement.value]

        if len(candidates) == 1:
            least = self._latencies.least_ms(candidates[0], version, work.rows)
            if least is None or least <= work.deadline_ms:
                return Target(target.variant, version, candidates[0], target.pinned)

        def estimate(name: str) -> Estimate:
            known = self._latencies
            return Estimate(known.expected_ms(name, version, work.rows), known.least_ms(name, version, work.rows))

        name = choose_backend(
            candidates,
            config.auto,
            work,
            estimate=estimate,
            cost=lambda name, ms: self._price(name, config, ms),
            draw=self._draw(),
        )
        if name is not None:
            return Target(target.variant, version, name, target.pinned)
        least = min(estimate(name).least_ms or 0.0 for name in candidates)
        takes = f"{version.model} takes at least some {least:.0f} ms for this request"
        if least <= full_deadline_ms:
            raise DeadlineMissed(f"{takes}, and it gave itself {work.deadline_ms:.0f} ms.")
        raise AsyncRequired(
            f"{takes}, and an answer has {full_deadline_ms:.0f} ms: send fewer instances at once, or ask for a job "
            "with `Prefer: respond-async` where the endpoint has an asynchronous backend."
        )

    def _pinned(self, model: str, wanted: int | str, config: EndpointConfig) -> Target:
        version = self._version(model, wanted, config)
        if config.explicit_versions == "none":
            raise VersionNotAllowed(f"Requests cannot choose the version of {model}: leave it out.")
        for variant in config.variants:
            if self._stands_for(variant, version, config):
                return Target(variant.name, version, variant.backend, pinned=True)
        if config.explicit_versions == "variants":
            raise VersionNotAllowed(f"Requests can choose the versions of {model}'s variants only.")
        return Target(f"v{version.version}", version, AUTO, pinned=True)

    def _stands_for(self, variant: Variant, version: ModelVersion, config: EndpointConfig) -> bool:
        try:
            return self._version(version.model, variant.version, config).version == version.version
        except VersionNotFound:
            return False

    def _version(self, model: str, wanted: int | str | None, config: EndpointConfig) -> ModelVersion:
        if wanted is None:
            return self._registry.latest(model)
        if isinstance(wanted, int):
            return self._registry.get(model, wanted)
        number = config.labels.get(wanted)
        if number is None:
            raise VersionNotFound(f"{model} has no version with the label {wanted!r}.")
        return self._registry.get(model, number)


def is_async(backend: str, config: EndpointConfig) -> bool:
    """Whether a backend answers later."""
    choice = config.backends.get(backend)
    return choice is not None and choice.kind in ASYNC_KINDS
