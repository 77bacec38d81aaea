"""The data plane: what every function that predicts is put together from."""

from collections.abc import Callable
from dataclasses import dataclass

from botocore.session import Session

from shared.adapters.cached_endpoints import CachedEndpoints
from shared.adapters.cached_models import CachedModels
from shared.adapters.dynamodb_answers import DynamoDBAnswers
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.adapters.dynamodb_guards import DynamoDBGuards
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.memory_answers import MemoryAnswers
from shared.bootstrap.aws_backends import backends_on_aws
from shared.bootstrap.data_plane_settings import DataPlaneSettings
from shared.bootstrap.settings import Clients, architecture
from shared.domain.call_prices import CallPrices
from shared.domain.endpoint.config import EndpointState
from shared.domain.endpoint.latency import Latencies
from shared.domain.model import ModelVersion
from shared.domain.ports import AnswerStore, Backends, FeatureReader, GuardStore, ModelRegistry
from shared.usecases.answer import Answer
from shared.usecases.deadline import DeadlineRunner
from shared.usecases.enrich import Enrich
from shared.usecases.fall_back import FallBack
from shared.usecases.keep_answers import KeepAnswers
from shared.usecases.predict import Predict
from shared.usecases.route import Route
from shared.usecases.run_target import RunTarget
from shared.usecases.shadow import Shadows


@dataclass(frozen=True, slots=True)
class DataPlaneParts:
    """What the data plane is put together from; `ready` says whether a version is loaded in this process."""

    registry: ModelRegistry
    endpoints: Callable[[str], EndpointState]
    backends: Backends
    ready: Callable[[ModelVersion], bool]
    guards: GuardStore
    answers: AnswerStore
    features: FeatureReader


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What predicts, and what it is made of, for whoever needs a single step of it.

    `runner` bounds calls by deadlines; `run_target` is the resilient call of one backend.
    """

    predict: Predict
    route: Route
    registry: ModelRegistry
    endpoints: Callable[[str], EndpointState]
    backends: Backends
    run_target: RunTarget
    answer: Answer
    enrich: Enrich
    runner: DeadlineRunner
    prices: CallPrices


def assemble(settings: DataPlaneSettings, parts: DataPlaneParts) -> DataPlane:
    """The data plane of these parts."""
    latencies = Latencies()
    prices = call_prices(settings)
    runner = DeadlineRunner()
    route = Route(parts.registry, latencies, prices.call_nusd)
    run_target = RunTarget(parts.backends, parts.guards, latencies, runner=runner, ready=parts.ready)
    answer = Answer(
        route,
        FallBack(run_target),
        KeepAnswers(
            MemoryAnswers(max_bytes=settings.answers_bytes),
            parts.answers,
            within=lambda call, seconds: runner.run("answers", call, seconds),
        ),
        Shadows(parts.backends),
    )
    enrich = Enrich(parts.features, lambda call, seconds: runner.run("features", call, seconds))
    return DataPlane(
        predict=Predict(parts.endpoints, route, answer, enrich),
        route=route,
        registry=parts.registry,
        endpoints=parts.endpoints,
        backends=parts.backends,
        run_target=run_target,
        answer=answer,
        enrich=enrich,
        runner=runner,
        prices=prices,
    )


def data_plane(settings: DataPlaneSettings, session: Session, clients: Clients | None = None) -> DataPlane:
    """The data plane of an environment, on the stack's stores."""
    return assemble(settings, parts_on_aws(settings, session, clients or Clients.of(settings, session)))


def parts_on_aws(settings: DataPlaneSettings, session: Session, clients: Clients) -> DataPlaneParts:
    """The stack's stores and backends."""
    quick = clients.quick
    registry = CachedModels(DynamoDBModels(clients.dynamodb, settings.models_table), ttl_s=settings.registry_ttl_s)
    backends, ready = backends_on_aws(settings, session, registry)
    return DataPlaneParts(
        registry=registry,
        endpoints=CachedEndpoints(
            DynamoDBEndpoints(quick, settings.endpoints_table, settings.guards_table),
            ttl_s=settings.endpoints_ttl_s,
            wait_s=settings.endpoints_wait_s,
        ),
        backends=backends,
        ready=ready,
        guards=DynamoDBGuards(quick, settings.guards_table),
        answers=DynamoDBAnswers(quick, settings.answers_table),
        features=DynamoDBFeatures(quick, settings.features_table),
    )


def call_prices(settings: DataPlaneSettings) -> CallPrices:
    """Prices of calls: of the container's instances, and of the function's own time."""
    gb_ms = settings.prices.gb_second(architecture()) * 1e9 / 1000
    return CallPrices(
        settings.prices.instance_hour.get(settings.container_instance_type, 0.0),
        settings.container_concurrency,
        settings.memory_mb / 1024 * gb_ms,
    )
