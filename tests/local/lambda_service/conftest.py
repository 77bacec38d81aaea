import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local.lambda_service.invocation import InvokeResult
from infra.local.lambda_service.service import LambdaService
from infra.local.stack import FunctionSpec

ROOT = Path(__file__).parents[3]
HANDLERS = "tests.local.lambda_service.handlers"


def function(logical_id: str, handler: str = "", **changes: Any) -> FunctionSpec:
    """A function whose handler is one of `handlers/basic.py`, unless another is named."""
    values: dict[str, Any] = {
        "logical_id": logical_id,
        "name": f"stack-{logical_id}",
        "handler": f"{HANDLERS}.{handler or 'basic.' + logical_id}",
        "code_dir": ROOT,
        "memory_mb": 128,
        "timeout_s": 3.0,
        "environment": {},
    }
    return FunctionSpec(**{**values, **changes})


def gone(pid: int) -> bool:
    """Whether a process ends within seconds; one that only waits to be reaped has ended."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@dataclass
class Lambda:
    """A service with the loop that it lives in."""

    runner: asyncio.Runner
    service: LambdaService
    log_dir: Path

    def invoke(self, name: str, event: Any = None, **options: Any) -> InvokeResult:
        return self.runner.run(self.service.invoke(name, json.dumps(event).encode(), **options))

    def environments(self, name: str) -> list[dict[str, Any]]:
        (status,) = [status for status in self.service.status() if status.logical_id == name]
        return [{"pid": each.pid, "state": each.state, "count": each.invocations} for each in status.environments]

    def log(self, name: str) -> str:
        return (self.log_dir / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def start(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Any]:
    """Starts a service of its own for a test: `start(function(…), max_environments=2)`."""
    started: list[LambdaService] = []

    def begin(*functions: FunctionSpec, **options: Any) -> Lambda:
        async def make() -> LambdaService:
            by_id = {each.logical_id: each for each in functions}
            return LambdaService(by_id, **{"base_environment": {}, "log_dir": tmp_path, **options})

        service = runner.run(make())
        started.append(service)
        return Lambda(runner, service, tmp_path)

    yield begin
    for service in started:
        runner.run(service.close())


@pytest.fixture(scope="module")
def functions(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambda]:
    """A service with every plain handler, shared by the tests of a module."""
    names = ("echo", "talk", "fail", "leave", "kill", "large", "tick", "adopt", "sleep")
    specs = {name: function(name) for name in names}
    specs["describe"] = function("describe", environment={"OWN": "1", "SHARED": "function", "AWS_REGION": "mars"})
    specs["sleep"] = function("sleep", timeout_s=0.5)
    specs["hoard"] = function("hoard", memory_mb=64)
    specs["broken_init"] = function("broken_init", "broken_init.handler")
    specs["exits_in_init"] = function("exits_in_init", "exits_in_init.handler")
    specs["missing"] = function("missing", "nowhere.handler")
    log_dir = tmp_path_factory.mktemp("logs")

    async def make() -> LambdaService:
        base = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "SHARED": "stack"}
        return LambdaService(specs, base_environment=base, log_dir=log_dir)

    service = runner.run(make())
    yield Lambda(runner, service, log_dir)
    runner.run(service.close())
