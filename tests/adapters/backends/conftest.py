"""The real container with the contract's models, and the faulty server in front of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.adapters.backends.contract import FaultContract, write_models
from tests.adapters.backends.faulty import Faulty
from tests.gpu_service.server import free_port as find_port
from tests.gpu_service.server import running


@dataclass(frozen=True, slots=True)
class Serving:
    """Where the container is."""

    url: str
    grpc_target: str


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`python -m gpu_service serve` with the models of the contract."""
    folder = tmp_path_factory.mktemp("container")
    port = find_port()
    models = write_models(folder / "models")
    settings = {"SLUICE_MODEL_DIR": str(models), "SLUICE_GRPC_PORT": str(port), "SLUICE_THREADS": "1"}
    with running(folder, **settings) as server:
        server.wait_for_ping(200)
        yield Serving(server.url, f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def faulty_server(container: Serving) -> Iterator[Faulty]:
    with Faulty(container.url, container.grpc_target) as server:
        yield server


@pytest.fixture
def faulty(faulty_server: Faulty) -> Iterator[Faulty]:
    """The faulty server, which passes everything on until it is told otherwise."""
    faulty_server.switch.heal()
    yield faulty_server
    faulty_server.switch.heal()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each subclass of the contract has outcomes and forms of its own."""
    owner = metafunc.cls
    if owner is None or not issubclass(owner, FaultContract):
        return
    if "outcome" in metafunc.fixturenames:
        metafunc.parametrize("outcome", list(owner.outcomes.values()), ids=list(owner.outcomes))
    if "form" in metafunc.fixturenames:
        metafunc.parametrize("form", owner.forms)
