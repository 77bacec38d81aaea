"""From a request and a configuration to a version and a backend."""

import pytest

from shared.domain.endpoint.auto import Work
from shared.domain.endpoint.config import AutoRouting, BackendChoice, EndpointConfig, Variant
from shared.domain.endpoint.latency import Latencies
from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Caller
from shared.domain.errors import (
    AsyncRequired,
    BackendUnavailable,
    DeadlineMissed,
    ModelNotFound,
    VersionNotAllowed,
    VersionNotFound,
)
from shared.domain.model import Placement
from shared.usecases.prediction import no_header
from shared.usecases.route import Route
from tests.fakes import InMemoryModels
from tests.functions.support import published

CALLER = Caller("acme", "k1", no_header)
MODELS = InMemoryModels(*(published(version=number) for number in (1, 2, 3)))


@pytest.fixture
def latencies() -> Latencies:
    return Latencies()


@pytest.fixture
def route(latencies: Latencies) -> Route:
    prices = {"function": 10.0, "container": 1.0}
    return Route(MODELS, latencies, lambda name, _config, ms: prices.get(name, 5.0) * ms, lambda: 0.5)


def config(*variants: Variant, **more: object) -> EndpointConfig:
    return EndpointConfig("pair", variants or (Variant("main"),), **more)  # type: ignore[arg-type]


def test_without_a_configuration_the_highest_version_runs_where_it_is_placed(route: Route) -> None:
    routed = route("pair", None, config(), CALLER)
    assert routed.target == Target("main", published(version=3), "auto")
    target = route.backend(routed.target, config(), Work(1, 8, 1000), full_deadline_ms=1000)
    assert target.backend == "function"
    heavy = Target("main", published("heavy", placement=Placement.CONTAINER), "auto")
    assert route.backend(heavy, config(), Work(1, 8, 1000), full_deadline_ms=1000).backend == "container"


@pytest.mark.parametrize(
    ("wanted", "variant", "version"), [(2, "next", 2), ("prod", "next", 2), (1, "v1", 1), (3, "main", 3)]
)
def test_what_a_request_names_wins(route: Route, wanted: int | str, variant: str, version: int) -> None:
    named = config(Variant("main"), Variant("next", version="prod", weight=0), labels={"prod": 2})
    target = route("pair", wanted, named, CALLER).target
    assert (target.variant, target.version.version, target.pinned) == (variant, version, True)


@pytest.mark.parametrize("wanted", [9, "nothing"])
def test_what_is_not_there_is_not_found(route: Route, wanted: int | str) -> None:
    with pytest.raises(VersionNotFound):
        route("pair", wanted, config(), CALLER)
    with pytest.raises(ModelNotFound):
        route("absent", wanted if isinstance(wanted, int) else None, config(), CALLER)


def test_a_policy_on_versions_holds(route: Route) -> None:
    with pytest.raises(VersionNotAllowed):
        route("pair", 3, config(explicit_versions="none"), CALLER)
    only = config(Variant("main", version=2), explicit_versions="variants")
    assert route("pair", 2, only, CALLER).target.variant == "main"
    with pytest.raises(VersionNotAllowed):
        route("pair", 3, only, CALLER)


@pytest.mark.parametrize("version", [9, "gone"])
def test_a_configuration_that_names_what_there_is_not_is_no_fault_of_the_caller(
    route: Route, version: int | str
) -> None:
    with pytest.raises(BackendUnavailable, match="main"):
        route("pair", None, config(Variant("main", version=version)), CALLER)


def test_a_backend_that_is_named_is_taken(route: Route) -> None:
    target = Target("main", published(), "gpu")
    assert route.backend(target, config(), Work(1, 8, 1000), full_deadline_ms=1000) is target


def test_the_cheaper_backend_is_taken_once_both_are_known(route: Route, latencies: Latencies) -> None:
    both = config(auto=AutoRouting(("function", "container")))
    target = Target("main", published(), "auto")
    for _ in range(20):
        latencies.note("function", published(), 1, 5.0)
        latencies.note("container", published(), 1, 20.0)
    assert route.backend(target, both, Work(1, 8, 1000), full_deadline_ms=1000).backend == "container"
    assert route.backend(target, both, Work(1, 8, 12), full_deadline_ms=1000).backend == "function"


def test_what_cannot_be_in_time_is_refused_by_whose_time_it_is(route: Route, latencies: Latencies) -> None:
    target = Target("main", published(), "auto")
    for _ in range(20):
        latencies.note("function", published(), 1, 500.0)
    with pytest.raises(DeadlineMissed, match="gave itself 50 ms"):
        route.backend(target, config(), Work(1, 8, 50), full_deadline_ms=1000)
    with pytest.raises(AsyncRequired, match="respond-async"):
        route.backend(target, config(), Work(1, 8, 50), full_deadline_ms=100)


def test_an_asynchronous_backend_is_never_waited_for_by_choice(route: Route) -> None:
    later = config(
        auto=AutoRouting(("later", "container")),
        backends={"later": BackendChoice("sagemaker-async", {"endpoint": "e"})},
    )
    target = Target("main", published(), "auto")
    assert route.backend(target, later, Work(1, 8, 1000), full_deadline_ms=1000).backend == "container"
