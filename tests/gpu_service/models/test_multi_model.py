"""SageMaker's multi-model contract: any folder under any name, and no eviction of our own."""

import asyncio
from pathlib import Path
from threading import Event

import pytest

from gpu_service.models.errors import AlreadyLoaded, ModelUnavailable, OutOfMemory
from gpu_service.models.served_model import ModelKey
from shared.domain.errors import BackendTimeout, InvalidPackage, InvalidRequest, ModelNotFound, VersionNotFound
from tests.gpu_service.models.support import MB, Factory, House, run, until
from tests.models import add_model, label_package, write_package

NAME = "0F2bbcd7f5c4a5e4d6a1a1f6a3b9e0c7"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def url_of(root: Path, name: str = NAME, amount: float = 1.0) -> str:
    return str(write_package(root / name / "model", add_model(amount)))


def test_it_starts_empty_and_ready(root: Path) -> None:
    async def test() -> None:
        async with House(Factory(), None, root=root) as house:
            assert house.repository.readiness().ready
            assert house.multi.models() == []
            for refused in (house.manager.load("a"), house.manager.unload("a")):
                with pytest.raises(InvalidRequest, match="multi-model endpoint"):
                    await refused

    run(test())


def test_load_list_describe_predict_unload(root: Path) -> None:
    async def test() -> None:
        async with House(Factory(real=False), None, root=root) as house:
            url = url_of(root)
            await house.multi.load_url(NAME, url)
            described = {"modelName": NAME, "modelUrl": url}
            assert house.multi.models() == [described]
            assert house.multi.describe(NAME) == described
            model = house.model(NAME)
            assert house.model(NAME, 1) is model
            with pytest.raises(AlreadyLoaded):
                await house.multi.load_url(NAME, url)
            await house.multi.unload(NAME)
            assert model.closed
            assert house.budget.used == 0
            assert house.multi.models() == []
            assert house.manager.index() == []
            for absent in (lambda: house.multi.describe(NAME), lambda: house.model(NAME)):
                with pytest.raises(ModelNotFound):
                    absent()
            with pytest.raises(ModelNotFound):
                await house.multi.unload(NAME)
            await house.multi.load_url(NAME, url)

    run(test())


def test_the_manifest_gives_the_version_and_not_the_name(root: Path) -> None:
    async def test() -> None:
        folder = label_package(root / "x/model", name="labels", version=7)
        async with House(Factory(), None, root=root) as house:
            await house.multi.load_url("opaque", str(folder))
            assert house.served() == {"opaque": [7]}

    run(test())


def test_version_folders_under_the_policy(root: Path) -> None:
    async def test() -> None:
        for version in ("1", "2", "3", "latest", "04"):
            write_package(root / f"x/model/{version}", add_model(float(version) if version.isdecimal() else 9.0))
        (root / "x/model/9").mkdir()
        async with House(Factory(real=True), None, root=root, policy="latest:2") as house:
            await house.multi.load_url("x", str(root / "x/model"))
            assert house.served() == {"x": [2, 3]}
            assert await house.model("x").predict(0.0) == 3.0
            await house.multi.unload("x")
            assert house.manager.index() == []
        async with House(Factory(), None, root=root, policy="specific:8") as house:
            with pytest.raises(VersionNotFound):
                await house.multi.load_url("x", str(root / "x/model"))
            assert house.repository.entries() == []

    run(test())


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("{root}/absent/model", ModelNotFound),
        ("{root}/file", ModelNotFound),
        ("{root}/file/below", ModelNotFound),
        ("{root}/empty", InvalidPackage),
        ("{root}/half", InvalidPackage),
        ("{root}/leads-out", InvalidPackage),
        ("{root}", InvalidRequest),
        ("{root}/../elsewhere", InvalidRequest),
        ("{root}/link", InvalidRequest),
        ("{root}/loop", (InvalidRequest, ModelNotFound)),  # as the version of Python has it
        ("/etc", InvalidRequest),
        ("/", InvalidRequest),
        ("", InvalidRequest),
        ("model", InvalidRequest),
        ("s3://bucket/model.tar.gz", InvalidRequest),
        ("file://{root}/good", InvalidRequest),
        ("{root}/good\0", (InvalidRequest, ModelNotFound)),
        ("{root}/" + "x" * 5000, (InvalidRequest, ModelNotFound)),
    ],
)
def test_urls_that_are_refused(root: Path, url: str, error: type[Exception] | tuple[type[Exception], ...]) -> None:
    async def test() -> None:
        outside = write_package(root.parent / "elsewhere", add_model())
        url_of(root, "good")
        (root / "file").write_text("")
        (root / "empty").mkdir()
        (root / "half").mkdir()
        (root / "half/manifest.json").write_text("{}")
        (root / "link").symlink_to(outside)
        (root / "loop").symlink_to(root / "loop")
        (root / "leads-out").mkdir()
        (root / "leads-out/model.onnx").symlink_to(outside / "model.onnx")
        async with House(Factory(), None, root=root) as house:
            with pytest.raises(error):
                await house.multi.load_url("x", url.format(root=root))
            assert house.multi.models() == []
            assert house.manager.index() == []
            assert house.budget.used == 0
            await house.multi.load_url("x", str(root / "good/model"))

    run(test())


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "a\0b"])
def test_names_that_are_refused(root: Path, name: str) -> None:
    async def test() -> None:
        async with House(Factory(), None, root=root) as house:
            with pytest.raises(InvalidRequest, match="model_name"):
                await house.multi.load_url(name, url_of(root))

    run(test())


def test_what_does_not_fit_is_507_and_nobody_is_evicted(root: Path) -> None:
    async def test() -> None:
        factory = Factory(sizes={"a": 60 * MB, "b": 60 * MB, "c": 200 * MB})
        async with House(factory, None, root=root) as house:
            await house.multi.load_url("a", url_of(root, "a"))
            for name in ("b", "c"):
                with pytest.raises(OutOfMemory):
                    await house.multi.load_url(name, url_of(root, name))
            assert house.served() == {"a": [1]}
            assert house.budget.used == 60 * MB
            await house.multi.unload("a")
            await house.multi.load_url("b", url_of(root, "b"))
            assert house.served() == {"b": [1]}

    run(test())


def test_all_versions_or_none(root: Path) -> None:
    async def test() -> None:
        for version in (1, 2):
            write_package(root / f"x/model/{version}", add_model())
        factory = Factory(errors={ModelKey("x", 2): InvalidPackage("no graph")})
        async with House(factory, None, root=root) as house:
            with pytest.raises(InvalidPackage, match="no graph"):
                await house.multi.load_url("x", str(root / "x/model"))
            assert house.manager.index() == []
            assert factory.made[0].closed
            assert house.budget.used == 0

    run(test())


def test_a_second_load_of_a_name_is_refused_while_the_first_runs(root: Path) -> None:
    async def test() -> None:
        gate, begun = Event(), Event()

        def wait(key: ModelKey) -> None:
            begun.set()
            assert gate.wait(30)

        async with House(Factory(before=wait), None, root=root) as house:
            url = url_of(root)
            load = asyncio.create_task(house.multi.load_url(NAME, url))
            await until(begun.is_set)
            with pytest.raises(AlreadyLoaded):
                await house.multi.load_url(NAME, url)
            with pytest.raises(ModelNotFound):
                house.multi.describe(NAME)
            with pytest.raises(ModelUnavailable):
                house.model(NAME)
            gate.set()
            await load
            assert house.multi.describe(NAME)["modelUrl"] == url

    run(test())


def test_unloading_waits_for_what_runs_but_not_for_ever(root: Path) -> None:
    async def test() -> None:
        async with House(Factory(), None, root=root, drain_seconds=0.01) as house:
            await house.multi.load_url(NAME, url_of(root))
            model = house.model(NAME)
            model.begin()
            with pytest.raises(BackendTimeout):
                await house.multi.unload(NAME)
            with pytest.raises(ModelNotFound):
                house.model(NAME)
            model.end()
            await until(lambda: model.closed and house.budget.used == 0)

    run(test())
