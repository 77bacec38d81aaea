"""The local stack's container: a real process, kept alive, with a log that is bounded."""

import asyncio
import json
from pathlib import Path

import httpx
import psutil

from infra.local.container import Container
from infra.local.ports import Ports
from infra.local.template import load_stack
from tests.gpu_service.server import wait_until
from tests.models import add_model, write_package
from tests.template.support import IMAGE, ROOT, TEMPLATE


def container(folder: Path) -> Container:
    stack = load_stack(TEMPLATE, parameters={"ContainerImage": IMAGE})
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    found = Container.of(stack, ROOT, Ports.free(), {"SLUICE_OTHER": "kept"}, folder / "container.log", failed)
    assert found is not None
    # Packages come from the stack's bucket; a folder takes its place here.
    write_package(folder / "models" / "add" / "1", add_model())
    found.environment = {**found.environment, "SLUICE_MODEL_URI": "", "SLUICE_MODEL_DIR": str(folder / "models")}
    return found


async def predict(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{url}/invocations", json={"instances": [[1.0, 2.0]]}, timeout=30)
        return answer.status_code


def test_a_stack_without_an_endpoint_has_no_container(tmp_path: Path) -> None:
    async def made() -> Container | None:
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return Container.of(load_stack(TEMPLATE), ROOT, Ports.free(), {}, tmp_path / "log", failed)

    assert asyncio.run(made()) is None


def test_it_has_the_templates_environment_under_its_own(tmp_path: Path) -> None:
    async def environment() -> dict[str, str]:
        return dict(container(tmp_path).environment)

    found = asyncio.run(environment())
    assert found["SLUICE_OTHER"] == "kept"
    assert found["SLUICE_LOG_LEVEL"] == "INFO"
    assert found["SLUICE_HOST"] == "127.0.0.1"
    assert int(found["SLUICE_GRPC_PORT"]) > 0  # SageMaker has no gRPC, this machine has
    assert found["SLUICE_ACCESS_LOG"] == "true"
    assert found["ORT_DISABLE_TELEMETRY"] == "1"


def test_requests_are_logged_and_a_killed_process_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with container(tmp_path) as here:
            await here.until_healthy()
            assert await predict(here.url) == 200
            port = here.environment["SAGEMAKER_BIND_TO_PORT"]
            children = psutil.Process().children()  # other tests may have left theirs to a fixture
            (process,) = (child for child in children if child.environ().get("SAGEMAKER_BIND_TO_PORT") == port)
            process.kill()
            await asyncio.to_thread(wait_until, lambda: not process.is_running())
            await here.until_healthy()
            assert await predict(here.url) == 200
            assert not here.failed.done()

    asyncio.run(run())
    lines = (tmp_path / "container.log").read_text().splitlines()
    assert "The container ended with status -9; starting it again." in lines
    requests = [line for text in lines if text.startswith("{") and (line := json.loads(text))["message"] == "request"]
    assert [line["status"] for line in requests] == [200, 200]


def test_a_log_that_has_grown_begins_anew(tmp_path: Path) -> None:
    async def run() -> None:
        here = container(tmp_path)
        here.max_log_bytes = 4096
        older = tmp_path / "container.log.1"
        async with here:
            await here.until_healthy()
            while not older.exists() or here.log.stat().st_size > here.max_log_bytes:
                assert await predict(here.url) == 200
            assert older.stat().st_size > here.max_log_bytes
            assert await predict(here.url) == 200
        lines = [json.loads(line) for line in here.log.read_text().splitlines()]
        assert lines[-1]["message"] == "stopping"

    asyncio.run(run())
