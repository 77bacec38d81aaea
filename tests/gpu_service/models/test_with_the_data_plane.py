"""Load, unload, swap and eviction with real sessions, queues and threads, under requests that never pause."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from gpu_service.inference.dataplane import DataPlane
from gpu_service.inference.request import Call
from gpu_service.model_factory import ModelFactory
from gpu_service.models.errors import ModelUnavailable
from gpu_service.models.served_model import ServedModel
from gpu_service.scheduling.executor import Executor
from gpu_service.settings import Settings
from shared.codecs.content.decoded import Decoded
from shared.domain.validation import Inputs
from tests.gpu_service.models.support import MB, House, memory_in_use, run, until
from tests.gpu_service.models.test_unloading_gives_memory_back import large_package
from tests.models import add_model, write_package

CALLERS = 4


class Served:
    """A repository with everything behind it; `ask` is one request, as a transport makes it."""

    def __init__(self, house: House, dataplane: DataPlane) -> None:
        self.house = house
        self._dataplane = dataplane
        self.answers: list[float] = []
        self.done = False

    async def ask(self, name: str, x: float = 1.0) -> float:
        def decode(model: ServedModel) -> Decoded:
            return Decoded(Inputs({"x": np.full((1, 2), x, np.float32)}))

        request = await self._dataplane.infer(Call(name), decode)
        assert request.result is not None
        return float(request.result["y"][0, 0])

    async def caller(self, name: str) -> None:
        while not self.done:
            self.answers.append(await self.ask(name))
            await asyncio.sleep(0)

    async def more(self, count: int = CALLERS * 3) -> None:
        """Wait for so many answers to all callers together."""
        seen = len(self.answers)
        await until(lambda: len(self.answers) >= seen + count)


@asynccontextmanager
async def served(folder: Path, budget: int = 1000 * MB, cpus: int = 2) -> AsyncIterator[Served]:
    executor = Executor(asyncio.get_running_loop(), cpus=cpus)
    try:
        async with House(ModelFactory(Settings(), executor, cpus), folder, budget=budget) as house:
            await house.ready()
            yield Served(house, DataPlane(house.repository, house.manager))
    finally:
        executor.close()


def test_swaps_and_versions_that_come_and_go_fail_no_request(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/5", add_model(100.0))
        async with served(tmp_path) as serving:
            callers = [asyncio.create_task(serving.caller("plus")) for _ in range(CALLERS)]
            for step in range(1, 6):
                write_package(tmp_path / "plus/5", add_model(100.0 + step))
                write_package(tmp_path / f"plus/{step % 4 + 1}", add_model(0.0))
                await serving.house.manager.load("plus")
                await serving.more()
                shutil.rmtree(tmp_path / f"plus/{step % 4 + 1}")
            serving.done = True
            await asyncio.gather(*callers)
            assert set(serving.answers) == {101.0 + step for step in range(6)}

    run(test())


def test_unloading_under_requests_refuses_and_breaks_none(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with served(tmp_path) as serving:
            refused = 0

            async def caller() -> None:
                nonlocal refused
                while not serving.done:
                    try:
                        serving.answers.append(await serving.ask("plus"))
                    except ModelUnavailable:
                        refused += 1
                    await asyncio.sleep(0)

            callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
            for _ in range(3):
                await serving.more()
                await serving.house.manager.unload("plus")
                await serving.house.manager.load("plus")
            serving.done = True
            await asyncio.gather(*callers)
            assert set(serving.answers) == {2.0}

    run(test())


def test_more_models_than_memory_all_answer(tmp_path: Path) -> None:
    """Three models of 25 MB in a budget of 70: requests bring them back."""

    async def test() -> None:
        for number, name in enumerate("abc", start=1):
            large_package(tmp_path / f"{name}/1", float(number), width=2500)
        before = memory_in_use()
        async with served(tmp_path, budget=70 * MB, cpus=1) as serving:
            house = serving.house
            for _ in range(2):
                for number, name in enumerate("abc", start=1):
                    assert await serving.ask(name) == 1.0 + number
                    assert house.budget.used <= house.budget.limit
                    assert memory_in_use() - before < house.budget.limit + 40 * MB
            assert len(house.served()) < 3
            for name in "abc":
                await house.manager.unload(name)
            assert house.budget.used == 0
            assert memory_in_use() - before < 40 * MB

    run(test())
