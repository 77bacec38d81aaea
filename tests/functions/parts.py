"""The parts of the data plane in memory, and what is put together from them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from functions.predict.bootstrap import Parts
from functions.predict.readiness import Check
from shared.adapters.memory_answers import MemoryAnswers
from shared.bootstrap.aws_backends import NoContainer
from shared.bootstrap.data_plane import DataPlaneParts, assemble
from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend, FeatureReader, ModelRegistry
from shared.usecases.predict import Predict
from shared.usecases.sources import Sources
from shared.usecases.submit_job import SubmitJob
from shared.web.admission import Door
from tests.fakes import (
    InMemoryEndpoints,
    InMemoryFeatures,
    InMemoryGuards,
    MemoryJobObjects,
    MemoryJobQueue,
    MemoryJobs,
)
from tests.functions.support import open_door, predict_settings
from tests.memory_objects import MemoryObjects


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


def plane_parts(
    registry: ModelRegistry,
    backends: Mapping[str, Backend],
    *,
    endpoints: InMemoryEndpoints | None = None,
    features: FeatureReader | None = None,
    **more: Any,
) -> DataPlaneParts:
    """Parts of the data plane in memory; `backends` by name, with none that would be a container unless it is given."""
    made = DataPlaneParts(
        registry=registry,
        endpoints=(endpoints or InMemoryEndpoints()).read,
        backends=FakeBackends({"container": NoContainer(), **backends}),
        ready=_ready,
        guards=InMemoryGuards(),
        answers=MemoryAnswers(),
        features=features or InMemoryFeatures(),
    )
    return replace(made, **more)


def parts(
    registry: ModelRegistry,
    backends: Mapping[str, Backend],
    *,
    checks: Mapping[str, Check] | None = None,
    door: Door | None = None,
    submit: SubmitJob | None = None,
    sources: Sources | None = None,
    **more: Any,
) -> Parts:
    """Parts of the function in memory; `more` as for `plane_parts`."""
    return Parts(
        door=door or open_door(),
        plane=plane_parts(registry, backends, **more),
        submit=submit or SubmitJob(MemoryJobs(), MemoryJobQueue(), MemoryJobObjects()),
        sources=sources or Sources(MemoryObjects(), "data"),
        checks={"models": lambda: None} if checks is None else checks,
    )


def predict_of(registry: ModelRegistry, backends: Mapping[str, Backend], **more: Any) -> Predict:
    """The use case on such parts."""
    return assemble(predict_settings(), plane_parts(registry, backends, **more)).predict


def _ready(version: ModelVersion) -> bool:
    del version
    return True
