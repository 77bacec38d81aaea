"""Load, unload and hot swap on request, from a folder."""

import asyncio
import json
import logging
import shutil
from hashlib import sha256
from pathlib import Path
from threading import Event, get_ident

import pytest

from gpu_service.models.errors import ModelUnavailable
from gpu_service.models.served_model import ModelKey
from shared.adapters.s3_packages import package_document
from shared.domain.errors import (
    BackendTimeout,
    DigestMismatch,
    InvalidPackage,
    InvalidRequest,
    ModelNotFound,
    SluiceError,
    VersionNotFound,
)
from shared.domain.model import ModelVersion, PackageFile, Placement, digest_of
from shared.domain.signature import Signature
from tests.gpu_service.models.support import Factory, House, run, until
from tests.models import add_model, label_package, write_package


def test_all_versions_are_served_at_start(tmp_path: Path) -> None:
    async def test() -> None:
        for version in (1, 2, 10):
            write_package(tmp_path / f"plus/{version}", add_model(float(version)))
        async with House(Factory(real=True), tmp_path) as house:
            assert not house.repository.readiness().ready
            await house.ready()
            assert house.served() == {"plus": [1, 2, 10]}
            assert await house.model("plus").predict(1.0) == 11.0
            assert await house.model(None, 2).predict(1.0) == 3.0
            assert house.states() == {"plus/1": "READY", "plus/2": "READY", "plus/10": "READY"}
            assert house.manager.index(ready=True) == house.manager.index()

    run(test())


def test_the_start_waits_for_the_folder(tmp_path: Path) -> None:
    async def test() -> None:
        models = tmp_path / "models"
        async with House(Factory(), models) as house:
            await until(lambda: "SLUICE_MODEL_DIR" in house.repository.readiness().reason)
            write_package(tmp_path / "later/plus/1", add_model())
            (tmp_path / "later").rename(models)
            await house.ready()
            assert house.served() == {"plus": [1]}

    run(test())


def test_what_fails_at_start_is_shown_and_the_rest_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        write_package(tmp_path / "good/1", add_model())
        write_package(tmp_path / "good/latest", add_model())
        write_package(tmp_path / "broken/1", b"no graph")
        write_package(tmp_path / "odd/01", add_model())
        label_package(tmp_path / "other/1", name="somebody-else")
        (tmp_path / "half/1").mkdir(parents=True)
        (tmp_path / "half/1/manifest.json").write_text("{}")
        async with House(Factory(real=True), tmp_path) as house:
            await until(lambda: len(house.repository.readiness().failed) == 5)
            failed = house.repository.readiness().failed
            assert set(failed) == {"broken/1", "good/0", "odd/0", "other/1", "half/1"}
            assert "model.onnx cannot be loaded" in failed["broken/1"]
            assert "not 'latest'" in failed["good/0"]
            assert "not '01'" in failed["odd/0"]
            assert "somebody-else" in failed["other/1"]
            assert "no model.onnx" in failed["half/1"]
            assert str(tmp_path) not in str(failed)
            assert house.served() == {"good": [1]}
            assert await house.model("good").predict(1.0) == 2.0

    with caplog.at_level(logging.CRITICAL):
        run(test())


def test_what_a_factory_throws_becomes_an_error_of_ours(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        key = ModelKey("plus", 1)
        for thrown, text in (
            (ZeroDivisionError("secret"), "ZeroDivisionError"),
            (MemoryError(), "no memory left"),
            (OSError(28, "No space left on device"), "No space left"),
        ):
            async with House(Factory(errors={key: thrown}), tmp_path) as house:
                await until(lambda: house.states() == {"plus/1": "UNAVAILABLE"})
                with pytest.raises(ModelUnavailable):
                    house.model("plus")
                assert text in house.manager.index()[0]["reason"]
                assert "secret" not in str(house.manager.index())
                await house.manager.load("plus")
                assert house.served() == {"plus": [1]}

    run(test())


def test_a_new_model_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with House(Factory(real=True), tmp_path) as house:
            await house.ready()
            for name in ("new", "../new", "", "new/1"):
                with pytest.raises(ModelNotFound):
                    await house.manager.load(name)
            write_package(tmp_path / "new/1", add_model(5.0))
            await house.manager.load("new")
            assert await house.model("new").predict(1.0) == 6.0
            write_package(tmp_path / "new/2", add_model(7.0))
            shutil.rmtree(tmp_path / "new/1")
            await house.manager.load("new")
            assert house.served() == {"plus": [1], "new": [2]}

    run(test())


def test_loading_again_what_has_not_changed_does_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        factory = Factory()
        async with House(factory, tmp_path) as house:
            await house.ready()
            await house.manager.load("plus")
            assert factory.loaded == [ModelKey("plus", 1)]

    run(test())


def test_overrides_are_refused(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with House(Factory(), tmp_path) as house:
            await house.ready()
            for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}):
                with pytest.raises(InvalidRequest, match="no parameters"):
                    await house.manager.load("plus", parameters)
            await house.manager.load("plus", {})

    run(test())


def test_unloaded_means_not_ready_until_it_is_loaded_again(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        factory = Factory(real=True)
        async with House(factory, tmp_path) as house:
            await house.ready()
            model = house.model("plus")
            await house.manager.unload("plus", unload_dependents=True)
            assert model.closed
            assert model.closed_in != get_ident()
            assert house.budget.used == 0
            assert house.manager.index() == [
                {"name": "plus", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
            ]
            assert house.manager.index(ready=True) == []
            assert house.repository.readiness().ready
            with pytest.raises(ModelUnavailable, match="unloaded"):
                house.model("plus")
            await house.manager.unload("plus")
            with pytest.raises(ModelNotFound):
                await house.manager.unload("other")
            await house.manager.load("plus")
            assert await house.model("plus").predict(1.0) == 2.0

    run(test())


def test_unloading_waits_for_what_runs(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with House(Factory(), tmp_path) as house:
            await house.ready()
            model = house.model("plus")
            model.begin()
            unload = asyncio.create_task(house.manager.unload("plus"))
            await until(lambda: house.states() == {"plus/1": "UNLOADING"})
            with pytest.raises(ModelUnavailable):
                house.model("plus")
            assert not model.closed
            model.end()
            await unload
            await until(lambda: house.states() == {"plus/1": "UNAVAILABLE"} and model.closed)

    run(test())


def test_a_request_that_never_ends_bounds_the_wait_and_memory_comes_back_later(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with House(Factory(), tmp_path, drain_seconds=0.01) as house:
            await house.ready()
            model = house.model("plus")
            model.begin()
            with pytest.raises(BackendTimeout, match="still running"):
                await house.manager.unload("plus")
            assert house.budget.used > 0
            model.end()
            await until(lambda: house.budget.used == 0)
            assert model.closed

    run(test())


def test_a_caller_who_goes_does_not_stop_what_it_began(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with House(Factory(), tmp_path) as house:
            await house.ready()
            model = house.model("plus")
            model.begin()
            unload = asyncio.create_task(house.manager.unload("plus"))
            await until(lambda: house.states() == {"plus/1": "UNLOADING"})
            unload.cancel()
            with pytest.raises(asyncio.CancelledError):
                await unload
            model.end()
            await until(lambda: model.closed and house.budget.used == 0)

    run(test())


async def more(answers: list[float], count: int) -> None:
    """Wait for so many answers."""
    seen = len(answers)
    await until(lambda: len(answers) >= seen + count)


def test_a_swap_under_traffic_loses_nothing(tmp_path: Path) -> None:
    """Callers without a pause, while the package is replaced again and again and while other versions come and go."""

    async def test() -> None:
        write_package(tmp_path / "plus/5", add_model(100.0))
        factory = Factory(real=True)
        async with House(factory, tmp_path) as house:
            await house.ready()
            answers: list[float] = []
            done = False

            async def caller() -> None:
                while not done:
                    answers.append(await house.model("plus").predict(1.0) - 1.0)

            callers = [asyncio.create_task(caller()) for _ in range(4)]
            for step in range(1, 9):
                write_package(tmp_path / "plus/5", add_model(100.0 + step))
                write_package(tmp_path / f"plus/{step % 4 + 1}", add_model(0.0))
                await house.manager.load("plus")
                await more(answers, 5)
                assert answers[-1] == 100.0 + step
                shutil.rmtree(tmp_path / f"plus/{step % 4 + 1}")
            done = True
            await asyncio.gather(*callers)
            assert set(answers) == {100.0 + step for step in range(9)}
            await until(lambda: sum(not model.closed for model in factory.made) == len(house.served()["plus"]))
            assert house.budget.used == len(house.served()["plus"])

    run(test())


def test_load_and_unload_under_traffic_answer_or_refuse(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model())
        async with House(Factory(real=True), tmp_path) as house:
            await house.ready()
            answers: list[float] = []
            refused: list[SluiceError] = []
            done = False

            async def caller() -> None:
                while not done:
                    try:
                        model = house.model("plus")
                    except SluiceError as error:
                        refused.append(error)
                        await asyncio.sleep(0)
                    else:
                        answers.append(await model.predict(1.0))

            callers = [asyncio.create_task(caller()) for _ in range(4)]
            for _ in range(5):
                await more(answers, 1)
                await house.manager.unload("plus")
                await house.manager.load("plus")
            done = True
            await asyncio.gather(*callers)
            assert set(answers) == {2.0}
            assert {type(error) for error in refused} <= {ModelUnavailable}

    run(test())


def test_a_swap_that_fails_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model(1.0))
        async with House(Factory(real=True), tmp_path) as house:
            await house.ready()
            write_package(tmp_path / "plus/1", b"no graph at all")
            with pytest.raises(InvalidPackage, match="cannot be loaded"):
                await house.manager.load("plus")
            assert await house.model("plus").predict(1.0) == 2.0
            (row,) = house.manager.index()
            assert row["state"] == "READY"
            assert "cannot be loaded" in row["reason"]
            assert house.repository.readiness().ready
            write_package(tmp_path / "plus/1", add_model(2.0))
            await house.manager.load("plus")
            assert await house.model("plus").predict(1.0) == 3.0
            (row,) = house.manager.index()
            assert row["reason"] == ""

    run(test())


def test_traffic_moves_only_once_the_new_version_is_loaded(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "plus/1", add_model(1.0))
        gate, begun = Event(), Event()

        def wait(key: ModelKey) -> None:
            if key.version == 2:
                begun.set()
                assert gate.wait(30)

        async with House(Factory(real=True, before=wait), tmp_path) as house:
            await house.ready()
            write_package(tmp_path / "plus/2", add_model(2.0))
            load = asyncio.create_task(house.manager.load("plus"))
            await until(begun.is_set)
            assert house.states() == {"plus/1": "READY", "plus/2": "LOADING"}
            assert await house.model("plus").predict(1.0) == 2.0
            with pytest.raises(ModelUnavailable, match="being loaded"):
                house.model("plus", 2)
            gate.set()
            await load
            assert await house.model("plus").predict(1.0) == 3.0

    run(test())


def test_the_policy_selects_what_is_loaded(tmp_path: Path) -> None:
    async def test() -> None:
        for name, version in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)):
            write_package(tmp_path / f"{name}/{version}", add_model())
        factory = Factory()
        async with House(factory, tmp_path, policy="latest:2; b=specific:1") as house:
            await house.ready()
            assert house.served() == {"a": [2, 3], "b": [1]}
            write_package(tmp_path / "a/4", add_model())
            await house.manager.load("a")
            assert house.served() == {"a": [3, 4], "b": [1]}
            with pytest.raises(VersionNotFound):
                house.model("a", 2)
            shutil.rmtree(tmp_path / "b/1")
            with pytest.raises(VersionNotFound, match="specific:1"):
                await house.manager.load("b")
            assert house.served()["b"] == [1]

    run(test())


def test_a_successor_that_fails_keeps_what_the_policy_would_drop(tmp_path: Path) -> None:
    async def test() -> None:
        write_package(tmp_path / "a/1", add_model())
        async with House(Factory(real=True), tmp_path, policy="latest:1") as house:
            await house.ready()
            write_package(tmp_path / "a/2", b"broken")
            with pytest.raises(InvalidPackage):
                await house.manager.load("a")
            assert house.served() == {"a": [1]}
            assert await house.model("a").predict(1.0) == 2.0

    run(test())


def indexed(folder: Path, name: str = "plus", version: int = 1) -> Path:
    """The folder with the `package.json` that publishing writes."""
    files = tuple(
        PackageFile(path.name, path.stat().st_size, sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    )
    nothing = Signature(inputs=(), outputs=())
    document = package_document(
        ModelVersion(name, version, digest_of(files), files, nothing, Placement.CONTAINER, "2026-11-21T00:00:00Z")
    )
    (folder / "package.json").write_text(json.dumps(document))
    return folder


def test_a_folder_is_held_against_its_package_json(tmp_path: Path) -> None:
    async def test() -> None:
        folder = indexed(write_package(tmp_path / "plus/1", add_model()))
        async with House(Factory(real=True), tmp_path) as house:
            await house.ready()
            good = (folder / "model.onnx").read_bytes()
            for name, content, message in (
                ("model.onnx", add_model(2.0), "model.onnx does not have the bytes"),
                ("weights.bin", b"x", "'weights.bin' that package.json does not name"),
                ("package.json", b"{", "package.json: "),
            ):
                (folder / name).write_bytes(content)
                with pytest.raises(InvalidPackage) as error:
                    await house.manager.load("plus")
                assert message in error.value.detail
                assert message in house.manager.index()[0]["reason"]
                assert await house.model("plus").predict(1.0) == 2.0
                (folder / "weights.bin").unlink(missing_ok=True)
                (folder / "model.onnx").write_bytes(good)

    run(test())


def test_a_damaged_package_is_not_loaded_at_start(tmp_path: Path) -> None:
    async def test() -> None:
        folder = indexed(write_package(tmp_path / "plus/1", add_model()))
        (folder / "model.onnx").write_bytes(add_model(3.0))
        factory = Factory()
        async with House(factory, tmp_path) as house:
            await until(lambda: house.repository.readiness().failed)
            assert factory.loaded == []
            with pytest.raises(DigestMismatch):
                await house.manager.load("plus")

    run(test())
