"""Following a source that changes while the container runs."""

import asyncio
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from gpu_service.models.errors import ModelUnavailable
from gpu_service.models.served_model import ModelKey
from gpu_service.models.sources.source import Found, SourceError
from shared.domain.errors import BackendError, BackendUnavailable, ModelNotFound, VersionConflict
from tests.gpu_service.models.support import Factory, House, run, until
from tests.models import add_model, write_package


class Source:
    """A polled source in memory; `lists` counts what was asked of it."""

    polled = True
    immutable = True

    def __init__(self, folder: Path) -> None:
        self.folder = write_package(folder, add_model())
        self.packages: dict[ModelKey, Found] = {}
        self.not_ours: set[ModelKey] = set()
        self.error: Exception | None = None
        self.fetch_error: Exception | None = None
        self.lists = 0
        self.fetched: list[ModelKey] = []
        self.discarded: list[ModelKey] = []

    def put(self, name: str, version: int, revision: str = "r1", *, ours: bool = True) -> None:
        key = ModelKey(name, version)
        self.packages = {**self.packages, key: Found(key, revision, str(self.folder))}
        if not ours:
            self.not_ours.add(key)

    def remove(self, name: str, version: int) -> None:
        self.packages = {key: found for key, found in self.packages.items() if key != ModelKey(name, version)}

    def list(self, name: str | None = None) -> list[Found]:
        self.lists += 1
        if self.error:
            raise self.error
        return [found for key, found in self.packages.items() if name in (None, key.name)]

    def fetch(self, found: Found) -> Path | None:
        self.fetched.append(found.key)
        if self.fetch_error:
            raise self.fetch_error
        return None if found.key in self.not_ours else self.folder

    def discard(self, found: Found) -> None:
        self.discarded.append(found.key)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


async def polls(source: Source, count: int = 3) -> None:
    """Wait until the source has been listed so often, and what it showed has been dealt with."""
    seen = source.lists
    await until(lambda: source.lists > seen + count)


def test_an_empty_source_is_ready_and_versions_are_taken_over_as_they_come(source: Source) -> None:
    async def test() -> None:
        async with House(Factory(), source) as house:
            await house.ready()
            assert house.served() == {}
            source.put("a", 1)
            await until(lambda: house.served() == {"a": [1]})
            source.put("a", 2)
            source.put("b", 1)
            await until(lambda: house.served() == {"a": [1, 2], "b": [1]})
            assert house.model("a").key.version == 2

    run(test())


def test_what_is_gone_is_unloaded_but_not_at_the_first_sign(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        source.put("a", 2)
        factory = Factory()
        async with House(factory, source) as house:
            await house.ready()
            model = house.model("a", 2)
            source.error = SourceError("no answer")
            await polls(source)
            source.error = PermissionError(13, "denied")
            await polls(source)
            source.error = ZeroDivisionError()  # whatever a source does
            await polls(source)
            assert house.served() == {"a": [1, 2]}
            source.error = None
            source.remove("a", 2)
            seen = source.lists
            await until(lambda: house.served() == {"a": [1]})
            assert source.lists >= seen + 2
            await until(lambda: source.discarded == [ModelKey("a", 2)])
            assert model.closed
            assert house.states() == {"a/1": "READY"}
            assert house.model("a").key.version == 1

    run(test())


def test_a_version_that_was_only_missing_once_stays(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        packages, gone = source.packages, dict[ModelKey, Found]()
        list_ = source.list

        def every_other(name: str | None = None) -> "list[Found]":
            source.packages = gone if source.lists % 2 else packages
            return list_(name)

        factory = Factory()
        async with House(factory, source) as house:
            await house.ready()
            source.list = every_other  # type: ignore[method-assign]
            await polls(source, 6)
            assert house.served() == {"a": [1]}
            assert factory.loaded == [ModelKey("a", 1)]

    run(test())


def test_what_is_for_functions_is_asked_for_once_and_takes_no_place(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        source.put("a", 2, ours=False)
        source.put("b", 1, ours=False)
        async with House(Factory(), source, policy="latest:1") as house:
            await house.ready()
            await polls(source)
            assert house.served() == {"a": [1]}
            assert house.states() == {"a/1": "READY"}
            assert house.model().key == ModelKey("a", 1)
            assert source.fetched.count(ModelKey("a", 2)) == 1
            with pytest.raises(ModelNotFound):
                house.model("b")

    run(test())


def test_immutable_versions_are_not_replaced(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        source.put("a", 1)
        factory = Factory()
        async with House(factory, source) as house:
            await house.ready()
            source.put("a", 1, "r2")
            await polls(source)
            assert factory.loaded == [ModelKey("a", 1)]
            assert sum("has changed in its source" in record.message for record in caplog.records) == 1
            with pytest.raises(VersionConflict, match="publish the next one"):
                await house.manager.load("a")
            assert house.served() == {"a": [1]}

    run(test())


def test_what_is_broken_is_tried_again_when_it_changes_and_what_was_bad_luck_at_once(
    source: Source, tmp_path: Path
) -> None:
    async def test() -> None:
        source.put("a", 1)
        broken = write_package(tmp_path / "broken", b"no graph")
        source.packages = {key: replace(found, place=str(broken)) for key, found in source.packages.items()}
        source.fetch = lambda found: Path(found.place)  # type: ignore[method-assign]
        factory = Factory(real=True)
        async with House(factory, source) as house:
            await until(lambda: house.repository.readiness().failed)
            await polls(source)
            assert factory.made == []
            source.put("a", 1, "r2")
            await house.ready()
            assert house.served() == {"a": [1]}
            factory.errors[ModelKey("b", 1)] = OSError(5, "Input/output error")
            source.put("b", 1)
            await until(lambda: house.served() == {"a": [1], "b": [1]})

    run(test())


def test_the_first_listing_is_waited_for(source: Source) -> None:
    async def test() -> None:
        source.error = SourceError("no such bucket")
        async with House(Factory(), source) as house:
            await until(lambda: "no such bucket" in house.repository.readiness().reason)
            with pytest.raises(BackendUnavailable, match="no such bucket"):
                await house.manager.load("a")
            source.error = None
            source.put("a", 1)
            await house.ready()
            assert house.served() == {"a": [1]}

    run(test())


def test_a_model_unloaded_on_request_stays_so(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        async with House(Factory(), source) as house:
            await house.ready()
            await house.manager.unload("a")
            source.put("a", 2)
            await polls(source)
            assert house.served() == {}
            await house.manager.load("a")
            assert house.served() == {"a": [1, 2]}
            await house.manager.unload("a")
            source.remove("a", 1)
            source.remove("a", 2)
            await until(lambda: house.states() == {})
            source.put("a", 3)
            await until(lambda: house.served() == {"a": [3]})

    run(test())


def test_the_policy_drops_a_version_once_its_successor_is_served(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        gate, begun = Event(), Event()

        def wait(key: ModelKey) -> None:
            if key.version == 2:
                begun.set()
                assert gate.wait(30)

        async with House(Factory(before=wait), source, policy="latest:1") as house:
            await house.ready()
            source.put("a", 2)
            await until(begun.is_set)
            assert house.model("a").key.version == 1
            gate.set()
            await until(lambda: house.served() == {"a": [2]})
            assert source.discarded == []  # it is still in the source

    run(test())


def test_a_slow_download_holds_nobody_up(source: Source) -> None:
    async def test() -> None:
        gate, begun = Event(), Event()
        source.put("quick", 1)

        def fetch(found: Found) -> Path:
            if found.key.name == "slow":
                begun.set()
                assert gate.wait(30)
            return source.folder

        source.fetch = fetch  # type: ignore[method-assign]
        async with House(Factory(), source) as house:
            await house.ready()
            source.put("slow", 1)
            await until(begun.is_set)
            source.put("other", 1)
            await house.manager.load("other")
            assert house.served() == {"quick": [1], "other": [1]}
            with pytest.raises(ModelUnavailable, match="being loaded"):
                house.model("slow")
            gate.set()
            await until(lambda: "slow" in house.served())

    run(test())


def test_a_fetch_that_throws_anything_is_an_error_of_the_model(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        source.fetch_error = KeyError("secret")
        async with House(Factory(), source) as house:
            await until(lambda: house.repository.readiness().failed)
            assert "secret" not in str(house.repository.readiness())
            with pytest.raises(BackendError):
                await house.manager.load("a")
            source.fetch_error = None
            await house.ready()

    run(test())


def test_loads_and_unloads_of_one_model_happen_one_after_another(source: Source) -> None:
    async def test() -> None:
        source.put("a", 1)
        factory = Factory()
        async with House(factory, source) as house:
            await house.ready()
            await asyncio.gather(
                *(house.manager.load("a") if step % 2 else house.manager.unload("a") for step in range(20))
            )
            assert house.served() == {"a": [1]}
            assert sum(not model.closed for model in factory.made) == 1
            assert house.budget.used == 1

    run(test())
