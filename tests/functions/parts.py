"""The parts of the data plane in memory, and what is put together from them."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from functions.predict.backends import NoContainer
from functions.predict.bootstrap import Parts, services_of
from functions.predict.readiness import Check
from shared.adapters.memory_answers import MemoryAnswers
from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend, FeatureReader, ModelRegistry
from shared.usecases.predict import Predict
from shared.web.admission import Door
from tests.fakes import InMemoryEndpoints, InMemoryFeatures, InMemoryGuards, InMemoryJobs
from tests.functions.support import open_door, predict_settings


class FakeBackends:
    """`Backends` by name: those of configurations are named alike."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends

    def get(self, name: str, config: EndpointConfig) -> Backend:
        if name not in self._backends:
            raise BackendUnavailable(f"There is no backend {name!r} here.")
        return self._backends[name]


def stored(*configs: EndpointConfig) -> InMemoryEndpoints:
    """A store that has these configurations, each in its first revision."""
    return InMemoryEndpoints(*(StoredEndpoint(config, 1, 1_700_000_000) for config in configs))


def parts(
    registry: ModelRegistry,
    backends: Mapping[str, Backend],
    *,
    checks: Mapping[str, Check] | None = None,
    door: Door | None = None,
    endpoints: InMemoryEndpoints | None = None,
    features: FeatureReader | None = None,
    **more: Any,
) -> Parts:
    """Parts in memory; `backends` by name, with none that would be a container unless it is given."""
    made = Parts(
        door=door or open_door(),
        registry=registry,
        endpoints=(endpoints or InMemoryEndpoints()).read,
        backends=FakeBackends({"container": NoContainer(), **backends}),
        ready=_ready,
        guards=InMemoryGuards(),
        answers=MemoryAnswers(),
        features=features or InMemoryFeatures(),
        jobs=InMemoryJobs(),
        checks={"models": lambda: None} if checks is None else checks,
    )
    return replace(made, **more)


def predict_of(registry: ModelRegistry, backends: Mapping[str, Backend], **more: Any) -> Predict:
    """The use case on such parts."""
    return services_of(predict_settings(), parts(registry, backends, **more), logging.getLogger("test")).predict


def _ready(version: ModelVersion) -> bool:
    del version
    return True
