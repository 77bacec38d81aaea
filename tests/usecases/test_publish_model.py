"""PublishModel: versions are immutable, and one that can be found can be loaded."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from shared.domain.dtypes import DType
from shared.domain.errors import InvalidPackage, ModelNotFound, VersionConflict
from shared.domain.model import ModelVersion, PackageDescription, Placement, digest_of
from shared.domain.signature import Signature, TensorSpec
from shared.usecases import publish_model
from shared.usecases.publish_model import PublishModel, package_files
from tests.fakes import InMemoryModels, InMemoryPackages

SIGNATURE = Signature((TensorSpec("x", DType.FP32, (None,)),), (TensorSpec("y", DType.FP32, (None,)),))


@dataclass
class Reader:
    """A `PackageReader` that reads the version from the folder's `version` file, and notes what it was shown."""

    shown: list[Path] = field(default_factory=list)

    def describe(self, folder: Path) -> PackageDescription:
        self.shown.append(folder)
        if not (folder / "model.onnx").exists():
            raise InvalidPackage("The package has no model.onnx.")
        number = int((folder / "version").read_text())
        return PackageDescription("tumor", number, SIGNATURE, Placement.FUNCTION, {"licence": "CC0"})


@dataclass
class House:
    """The use case with its ports."""

    models: InMemoryModels = field(default_factory=InMemoryModels)
    packages: InMemoryPackages = field(default_factory=InMemoryPackages)
    reader: Reader = field(default_factory=Reader)

    def publish(self, folder: Path) -> publish_model.Published:
        clock: Callable[[], datetime] = lambda: datetime(2026, 1, 2, 3, 4, 5, 999, UTC)  # noqa: E731
        return PublishModel(self.models, self.packages, self.reader, clock)(folder)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "version").write_text("1")
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "data" / "weights.bin").write_bytes(b"\0" * 1000)
    return folder


def test_published(package: Path) -> None:
    house = House()
    published = house.publish(package)
    version = published.version
    assert published.created
    assert house.models.get("tumor", 1) == version
    assert [(file.path, file.size) for file in version.files] == [
        ("data/weights.bin", 1000),
        ("model.onnx", 5),
        ("version", 1),
    ]
    assert version.files[1].sha256 == sha256(b"graph").hexdigest()
    assert version.digest == digest_of(version.files)
    assert (version.created_at, version.metadata) == ("2026-01-02T03:04:05+00:00", {"licence": "CC0"})
    assert house.packages.objects.keys() == {f"models/tumor/1/{file.path}" for file in version.files}


def test_the_same_bytes_again_change_nothing(package: Path) -> None:
    house = House()
    first = house.publish(package)
    house.packages.objects.clear()
    os.utime(package / "model.onnx", (0, 0))
    again = house.publish(package)
    assert (again.created, again.version) == (False, first.version)
    assert not house.packages.objects


@pytest.mark.parametrize("name", ["model.onnx", "data/weights.bin", "data/new.bin"])
def test_other_bytes_are_refused_and_not_stored(package: Path, name: str) -> None:
    house = House()
    first = house.publish(package)
    stored = dict(house.packages.objects)
    (package / name).write_bytes(b"other")
    with pytest.raises(VersionConflict, match="tumor version 1 is published with other content"):
        house.publish(package)
    assert house.packages.objects == stored
    assert house.models.get("tumor", 1) == first.version
    (package / "version").write_text("2")
    assert house.publish(package).created


def test_files_are_stored_before_the_registry_names_them(package: Path) -> None:
    house = House()

    class Watching(InMemoryModels):
        def add(self, version: ModelVersion) -> bool:
            assert len(house.packages.objects) == 3
            return super().add(version)

    house.models = Watching()
    assert house.publish(package).created


def test_a_store_that_fails_leaves_no_entry(package: Path) -> None:
    class Full(InMemoryPackages):
        def upload(self, version: ModelVersion, folder: Path) -> None:
            raise OSError("no space")

    house = House(packages=Full())
    with pytest.raises(OSError, match="no space"):
        house.publish(package)
    with pytest.raises(ModelNotFound):
        house.models.latest("tumor")


def test_of_two_at_once_one_is_told_that_it_created_nothing(package: Path) -> None:
    house = House()

    class Overtaken(InMemoryPackages):
        def upload(self, version: ModelVersion, folder: Path) -> None:
            super().upload(version, folder)
            house.models.add(replace(version, created_at="a moment ago"))

    house.packages = Overtaken()
    published = house.publish(package)
    assert not published.created
    assert published.version.digest == house.models.get("tumor", 1).digest


@pytest.mark.parametrize("target", ["secret", "absent", "../package/model.onnx", "folder"])
def test_links_are_refused_before_anything_is_read(package: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("secret")
    (package / "data" / "link").symlink_to(tmp_path / target)
    house = House()
    with pytest.raises(InvalidPackage, match="data/link is a link"):
        house.publish(package)
    assert not house.reader.shown
    assert not house.packages.objects


def test_a_pipe_is_refused_and_not_waited_for(package: Path) -> None:
    os.mkfifo(package / "pipe")
    with pytest.raises(InvalidPackage, match="pipe is not a plain file"):
        package_files(package)


@pytest.mark.parametrize("name", [b"\xff.bin", b"a\nb", b"\x1b[31m"])
def test_names_that_cannot_be_printed_are_refused(package: Path, name: bytes) -> None:
    (Path(os.fsdecode(os.fsencode(package) + b"/" + name))).write_bytes(b"")
    with pytest.raises(InvalidPackage, match="cannot be printed") as caught:
        package_files(package)
    assert caught.value.detail.isprintable()


def test_too_many_files_are_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_model, "MAX_FILES", 3)
    assert len(package_files(package)) == 3
    (package / "one more").touch()
    with pytest.raises(InvalidPackage, match="more than 3 files"):
        package_files(package)


def test_what_the_reader_refuses_is_not_published(package: Path) -> None:
    (package / "model.onnx").unlink()
    house = House()
    with pytest.raises(InvalidPackage, match=r"no model\.onnx"):
        house.publish(package)
    assert not house.packages.objects
