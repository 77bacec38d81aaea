"""The memory budget at work: who has to go, who comes back, and who is refused."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from gpu_service.models.errors import ModelEvicted, ModelUnavailable, OutOfMemory
from gpu_service.models.served_model import ModelKey
from gpu_service.models.sources.folder import FolderSource
from gpu_service.models.sources.source import Found
from shared.domain.errors import BackendError, BackendTimeout, InvalidPackage
from tests.gpu_service.models.support import MB, Factory, FakeServed, House, run, until
from tests.models import add_model, write_package


def packages(folder: Path, *names: str) -> Path:
    for name in names:
        write_package(folder / f"{name}/1", add_model())
    return folder


async def load(house: House, *names: str) -> None:
    """Add models to the folder and load them one after another, each the most recently used."""
    folder = Path(house.repository.entries()[0].found.place).parents[1]
    for name in names:
        packages(folder, name)
        await house.manager.load(name)


def use(house: House, name: str) -> None:
    house.model(name).last_used = monotonic()


def evicted(house: House) -> set[str]:
    return {entry.key.name for entry in house.repository.entries() if entry.evicted}


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 40 * MB, "b": 40 * MB, "c": 40 * MB, "d": 70 * MB})
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            await load(house, "b")
            use(house, "a")
            b = house.model("b")
            await load(house, "c")
            assert evicted(house) == {"b"}
            assert b.closed
            assert house.budget.used == 80 * MB
            assert house.states() == {"a/1": "READY", "b/1": "UNAVAILABLE", "c/1": "READY"}
            assert "the next request loads it" in house.manager.index()[1]["reason"]
            await load(house, "d")
            assert evicted(house) == {"a", "b", "c"}
            assert house.budget.used == 70 * MB

    run(test())


def test_what_is_kept_for_callers_outlives_an_eviction_and_nothing_else(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 40 * MB, "b": 70 * MB})
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            await load(house, "b")
            assert evicted(house) == {"a"}
            await house.manager.ensure("a", None)
            assert evicted(house) == {"b"}
            assert house.gone == []
            await house.manager.unload("b")  # it is not in memory, and yet offered
            assert house.gone == [ModelKey("b", 1)]
            await house.manager.load("a")
            assert house.gone == [ModelKey("b", 1)]
            write_package(tmp_path / "a/1", add_model(7.0))
            await house.manager.load("a")
            assert house.gone == [ModelKey("b", 1), ModelKey("a", 1)]

    run(test())


def test_only_as_many_as_needed_go_and_none_if_all_would_not_do(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 10 * MB, "b": 10 * MB, "c": 80 * MB, "d": 15 * MB, "e": 95 * MB})
        async with House(factory, packages(tmp_path, "a"), pinned=frozenset({"a"})) as house:
            await house.ready()
            await load(house, "b", "c")
            await load(house, "d")
            # d was measured at 15 MB only once it was loaded: b alone would not do, c would have.
            assert evicted(house) == {"b", "c"}
            with pytest.raises(OutOfMemory, match="95000000"):
                await load(house, "e")
            assert house.served() == {"a": [1], "d": [1]}
            assert house.budget.used == 25 * MB
            with pytest.raises(ModelUnavailable, match="takes 95000000 bytes"):
                house.model("e")

    run(test())


def test_a_model_in_use_or_pinned_stays(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 50 * MB, "b": 50 * MB, "c": 50 * MB})
        async with House(factory, packages(tmp_path, "a"), pinned=frozenset({"b"})) as house:
            await house.ready()
            await load(house, "b")
            house.model("a").begin()
            with pytest.raises(OutOfMemory, match="of 100000000, "):
                await load(house, "c")
            assert house.served() == {"a": [1], "b": [1]}
            house.model("a").end()
            await house.manager.load("c")
            assert house.served() == {"b": [1], "c": [1]}

    run(test())


def test_a_model_over_the_whole_budget_evicts_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 50 * MB, "b": 200 * MB})
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            packages(tmp_path, "b")
            for _ in range(2):
                with pytest.raises(OutOfMemory, match="takes 200000000 bytes; all models together may take 100000000"):
                    await house.manager.load("b")
            assert house.served() == {"a": [1]}
            assert factory.loaded.count(ModelKey("b", 1)) == 1  # what it takes is known by now
            assert all(model.closed for model in factory.made if model.key.name == "b")
            assert house.budget.used == 50 * MB
            factory.sizes["b"] = 50 * MB
            write_package(tmp_path / "b/1", add_model(), files={"smaller.txt": ""})
            await house.manager.load("b")
            assert house.served() == {"a": [1], "b": [1]}

    run(test())


def test_a_swap_needs_room_for_both(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 60 * MB})
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            first = house.model("a")
            write_package(tmp_path / "a/1", add_model(2.0))
            with pytest.raises(OutOfMemory):
                await house.manager.load("a")
            assert house.model("a") is first
            assert not first.closed
            assert house.budget.used == 60 * MB
            factory.sizes["a"] = 30 * MB
            write_package(tmp_path / "a/1", add_model(3.0))
            await house.manager.load("a")
            assert house.model("a") is not first
            await until(lambda: first.closed)
            await until(lambda: house.budget.used == 30 * MB)

    run(test())


def test_requests_for_an_evicted_model_share_one_load(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 60 * MB, "b": 60 * MB}, real=True)
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            await load(house, "b")
            with pytest.raises(ModelEvicted):
                house.model("a")
            factory.loaded.clear()
            models = await asyncio.gather(*(house.manager.ensure("a", version) for version in [None, 1] * 20))
            assert factory.loaded == [ModelKey("a", 1)]
            assert set(models) == {house.model("a")}
            assert await house.model("a").predict(1.0) == 2.0
            assert evicted(house) == {"b"}
            assert await house.manager.ensure("a", None) is house.model("a")

    run(test())


def test_the_wait_for_a_load_ends_with_the_deadline_and_the_load_goes_on(tmp_path: Path) -> None:
    async def test() -> None:
        gate: Event = Event()
        gate.set()

        def wait(key: ModelKey) -> None:
            assert gate.wait(30)

        factory = Factory(sizes={"a": 60 * MB, "b": 60 * MB}, before=wait)
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            await load(house, "b")
            gate.clear()
            with pytest.raises(BackendTimeout, match="being loaded"):
                await house.manager.ensure("a", None, monotonic() + 0.01)
            with pytest.raises(BackendTimeout):
                await house.manager.ensure("a", None, monotonic() - 1)
            gone = asyncio.create_task(house.manager.ensure("a", None))
            patient = asyncio.create_task(house.manager.ensure("a", None))
            await asyncio.sleep(0)
            gone.cancel()
            gate.set()
            assert await patient is house.model("a")

    run(test())


@pytest.mark.parametrize(
    ("thrown", "again"),
    [(OSError(5, "Input/output error"), True), (MemoryError(), True), (InvalidPackage("no graph"), False)],
)
def test_a_model_that_does_not_come_back(tmp_path: Path, thrown: Exception, again: bool) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 40 * MB, "b": 70 * MB})
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            await load(house, "b")
            factory.errors[ModelKey("a", 1)] = thrown
            with pytest.raises((BackendError, InvalidPackage)):
                await house.manager.ensure("a", None)
            if again:
                assert await house.manager.ensure("a", None) is house.model("a")
            else:
                with pytest.raises(ModelUnavailable, match="no graph"):
                    await house.manager.ensure("a", None)

    run(test())


class GatedFolder(FolderSource):
    """Holds a thread at its `fetch`."""

    def __init__(self, folder: Path, wait: Callable[[ModelKey], None]) -> None:
        super().__init__(folder)
        self._wait = wait

    def fetch(self, found: Found) -> Path:
        self._wait(found.key)
        return super().fetch(found)


@pytest.mark.parametrize("place", ["fetch", "load"])
def test_a_model_that_is_unloaded_while_it_comes_back_stays_unloaded(tmp_path: Path, place: str) -> None:
    async def test() -> None:
        gate, begun = Event(), Event()
        gate.set()

        def wait(key: ModelKey) -> None:
            begun.set()
            assert gate.wait(30)

        factory = Factory(sizes={"a": 40 * MB, "b": 70 * MB})
        source = FolderSource(packages(tmp_path, "a"))
        if place == "load":
            factory.before = wait
        else:
            source = GatedFolder(tmp_path, wait)
        async with House(factory, source) as house:
            await house.ready()
            await load(house, "b")
            gate.clear()
            begun.clear()
            waiting = asyncio.create_task(house.manager.ensure("a", None))
            await until(begun.is_set)
            await house.manager.unload("a")
            gate.set()
            with pytest.raises(ModelUnavailable):
                await waiting
            # Where room had been made for it already, b had to go.
            assert house.served() == ({} if place == "load" else {"b": [1]})
            assert house.budget.used == sum(model.nbytes for model in factory.made if not model.closed)
            with pytest.raises(ModelUnavailable):
                await house.manager.ensure("a", None)

    run(test())


def test_a_model_that_is_evicted_while_its_swap_waits_is_swapped(tmp_path: Path) -> None:
    async def test() -> None:
        gate, begun = Event(), Event()

        def wait(key: ModelKey) -> None:
            if key.name == "b":
                begun.set()
                assert gate.wait(30)

        factory = Factory(sizes={"a": 60 * MB, "b": 60 * MB}, before=wait, real=True)
        async with House(factory, packages(tmp_path, "a")) as house:
            await house.ready()
            other = asyncio.create_task(load(house, "b"))
            await until(begun.is_set)
            write_package(tmp_path / "a/1", add_model(5.0))
            swap = asyncio.create_task(house.manager.load("a"))
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(other, swap)
            assert house.served() == {"a": [1]}
            assert await house.model("a").predict(1.0) == 6.0
            assert evicted(house) == {"b"}

    run(test())


def test_at_start_nobody_is_evicted_and_the_highest_versions_come_first(tmp_path: Path) -> None:
    async def test() -> None:
        for name in ("a", "b"):
            for version in (1, 2, 3):
                write_package(tmp_path / f"{name}/{version}", add_model())
        factory = Factory(sizes={"a": 30 * MB, "b": 30 * MB})
        async with House(factory, tmp_path) as house:
            await house.ready()
            assert house.budget.used == 90 * MB
            assert {3} <= set(house.served()["a"])
            assert {3} <= set(house.served()["b"])
            for name in ("a", "b"):
                for version in (1, 2, 3):
                    assert (await house.manager.ensure(name, version)).key == ModelKey(name, version)
            assert house.budget.used == 90 * MB

    run(test())


def test_a_model_over_the_budget_fails_the_start(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 200 * MB})
        async with House(factory, packages(tmp_path, "a")) as house:
            await until(lambda: house.repository.readiness().failed)
            assert "takes 200000000 bytes" in house.repository.readiness().failed["a/1"]

    run(test())


def test_the_estimate_is_the_size_of_the_files(tmp_path: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 0})
        write_package(tmp_path / "a/1", add_model(), files={"weights.bin": bytes(2 * MB)})
        async with House(factory, tmp_path, budget=MB) as house:
            await until(lambda: house.repository.readiness().failed)
            assert factory.loaded == []
        async with House(factory, tmp_path, budget=10**12) as house:
            await house.ready()
            # A model that cannot say what it takes counts as what its files or its load took.
            assert house.budget.used >= 2 * MB

    run(test())


def test_random_traffic_never_exceeds_the_budget(tmp_path: Path) -> None:
    async def test() -> None:
        names = [f"m{index}" for index in range(8)]
        factory = Factory(sizes={name: (10 + 5 * index) * MB for index, name in enumerate(names)}, real=True)
        async with House(factory, packages(tmp_path, *names)) as house:
            await house.ready()
            for name in names:  # what a model takes is known once it has been loaded
                await house.manager.ensure(name, None)
            peak = 0
            answers = 0

            async def caller(step: int) -> None:
                nonlocal peak, answers
                for turn in range(6):
                    name = names[(step * 5 + turn * 3) % len(names)]
                    try:
                        model = await house.manager.ensure(name, None)
                    except (OutOfMemory, ModelUnavailable):  # everything else was in use at that moment
                        continue
                    model.last_used = monotonic()
                    assert isinstance(model, FakeServed)
                    assert await model.predict(1.0) == 2.0
                    answers += 1
                    peak = max(peak, house.budget.used)

            await asyncio.gather(*(caller(step) for step in range(8)))
            assert answers > 0
            assert peak <= 100 * MB

    run(test())
