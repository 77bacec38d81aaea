"""The package cache on real folders, with packages from the fake store."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from shared.adapters.package_cache import PackageCache
from shared.domain.errors import DigestMismatch, InvalidPackage
from shared.domain.model import ModelVersion
from tests.adapters.samples import read_files, version_of, write_files
from tests.fakes import InMemoryPackages

Loaded = dict[str, bytes]


class _Packages:
    """A store with packages of one file of `size` bytes, and a cache above it that counts its loads."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = InMemoryPackages()
        self.folder = tmp_path / "cache"
        self._source = tmp_path / "source"
        self.loads: list[str] = []

    def publish(self, model: str, size: int = 100, version: int = 1) -> ModelVersion:
        files = {"model.onnx": model.encode()[:1] * size}
        published = version_of(model, version, files=files)
        self.store.upload(published, write_files(self._source / model / str(version), files))
        return published

    def load(self, folder: Path, version: ModelVersion) -> Loaded:
        self.loads.append(f"{version.model}/{version.version}")
        return read_files(folder)

    def cache(self, max_bytes: int) -> PackageCache[Loaded]:
        return PackageCache(self.store, self.folder, max_bytes, self.load)

    def on_disk(self) -> set[str]:
        return {path.name.rsplit("-", 1)[0] for path in self.folder.iterdir()}


@pytest.fixture
def packages(tmp_path: Path) -> _Packages:
    return _Packages(tmp_path)


def test_a_package_is_fetched_and_loaded_once(packages: _Packages) -> None:
    version = packages.publish("a")
    cache = packages.cache(1000)
    first = cache.get(version)
    assert first == {"model.onnx": b"a" * 100}
    assert cache.get(version) is first
    assert packages.store.downloads == 1
    assert cache.used_bytes == 100


def test_the_least_recently_used_go_first_by_bytes(packages: _Packages) -> None:
    a, b, c, d = (packages.publish(model) for model in "abcd")
    cache = packages.cache(300)
    for version in (a, b, c, a, d):
        cache.get(version)
    assert packages.on_disk() == {"a-1", "c-1", "d-1"}
    assert cache.used_bytes == 300
    cache.get(b)
    assert packages.loads == ["a/1", "b/1", "c/1", "d/1", "b/1"]
    big = packages.publish("e", size=250)
    cache.get(big)
    assert packages.on_disk() == {"e-1"}


def test_a_package_over_the_budget_is_refused_and_evicts_nothing(packages: _Packages) -> None:
    small, big = packages.publish("a"), packages.publish("b", size=301)
    cache = packages.cache(300)
    cache.get(small)
    with pytest.raises(InvalidPackage, match=r"301 bytes.*300"):
        cache.get(big)
    assert packages.on_disk() == {"a-1"}
    assert packages.store.downloads == 1


def test_callers_of_one_version_wait_for_one_load(packages: _Packages) -> None:
    version, other = packages.publish("a"), packages.publish("b")
    inside, go_on = threading.Event(), threading.Event()

    def load(folder: Path, loaded: ModelVersion) -> Loaded:
        if loaded == version:
            inside.set()
            assert go_on.wait(20)
        return packages.load(folder, loaded)

    cache = PackageCache(packages.store, packages.folder, 1000, load)
    with ThreadPoolExecutor(max_workers=6) as pool:
        waiting = [pool.submit(cache.get, version) for _ in range(6)]
        assert inside.wait(20)
        assert cache.get(other) == {"model.onnx": b"b" * 100}  # is not held up by another version's load
        go_on.set()
        results = [future.result(20) for future in waiting]
    assert all(result is results[0] for result in results)
    assert packages.loads == ["b/1", "a/1"]


def _bytes_below(folder: Path) -> int:
    """Bytes of the files, while other threads may add and remove some: `os.walk` passes over what has gone."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size  # noqa: PTH116, PTH118
    return total


def test_loads_at_once_never_go_over_the_budget(packages: _Packages) -> None:
    versions = [packages.publish(model) for model in "abcdefgh"]
    seen: list[int] = []

    def load(folder: Path, version: ModelVersion) -> Loaded:
        seen.append(_bytes_below(packages.folder))
        return packages.load(folder, version)

    cache = PackageCache(packages.store, packages.folder, 250, load)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for version, loaded in zip(versions * 5, pool.map(cache.get, versions * 5), strict=True):
            assert loaded == {"model.onnx": version.model.encode() * 100}
    assert max(seen) <= 250
    assert cache.used_bytes <= 250


def test_a_failed_load_leaves_nothing_and_may_be_tried_again(packages: _Packages) -> None:
    version = packages.publish("a")
    broken = True

    def load(folder: Path, loaded: ModelVersion) -> Loaded:
        if broken:
            raise InvalidPackage("no graph")
        return packages.load(folder, loaded)

    cache = PackageCache(packages.store, packages.folder, 1000, load)
    with pytest.raises(InvalidPackage, match="no graph"):
        cache.get(version)
    assert cache.used_bytes == 0
    assert packages.on_disk() == set()
    broken = False
    assert cache.get(version) == {"model.onnx": b"a" * 100}


def test_a_damaged_package_is_not_loaded(packages: _Packages) -> None:
    version = packages.publish("a")
    packages.store.objects[version.prefix + "model.onnx"] = b"b" * 100
    cache = packages.cache(1000)
    with pytest.raises(DigestMismatch):
        cache.get(version)
    assert packages.loads == []
    assert cache.used_bytes == 0


def test_what_an_earlier_process_left_is_verified_and_used(packages: _Packages) -> None:
    version = packages.publish("a")
    packages.cache(1000).get(version)
    later = packages.cache(1000)
    assert later.used_bytes == 100
    assert later.get(version) == {"model.onnx": b"a" * 100}
    assert packages.store.downloads == 1


@pytest.mark.parametrize("damage", ["other bytes", "missing", "more"])
def test_a_leftover_that_differs_is_fetched_anew(packages: _Packages, damage: str) -> None:
    version = packages.publish("a")
    packages.cache(1000).get(version)
    (folder,) = packages.folder.iterdir()
    if damage == "missing":
        (folder / "model.onnx").unlink()
    else:
        (folder / ("model.onnx" if damage == "other bytes" else "more")).write_bytes(b"b" * 100)
    cache = packages.cache(1000)
    assert cache.get(version) == {"model.onnx": b"a" * 100}
    assert packages.store.downloads == 2
    assert cache.used_bytes == 100


def test_leftovers_count_and_make_room(packages: _Packages) -> None:
    a, b, c = (packages.publish(model) for model in "abc")
    earlier = packages.cache(1000)
    earlier.get(a)
    earlier.get(b)
    for age, name in enumerate(("b-1", "a-1")):  # a is the older one now
        (folder,) = packages.folder.glob(f"{name}-*")
        os.utime(folder, (1000.0 - age, 1000.0 - age))
    cache = packages.cache(200)
    assert cache.used_bytes == 200
    cache.get(c)
    assert packages.on_disk() == {"b-1", "c-1"}


def test_half_downloads_of_a_dead_process_go_and_fresh_ones_stay(packages: _Packages) -> None:
    old, fresh = packages.folder / ".partial-old", packages.folder / ".partial-fresh"
    for folder in (old, fresh):
        write_files(folder, {"model.onnx": b"x"})
    os.utime(old, (1000.0, 1000.0))
    cache = packages.cache(100)
    assert [path.name for path in packages.folder.iterdir()] == [".partial-fresh"]
    assert cache.used_bytes == 0


def test_versions_and_contents_have_folders_of_their_own(packages: _Packages) -> None:
    cache = packages.cache(1000)
    for number, size in ((1, 100), (2, 100), (1, 101)):
        # The store would refuse other bytes under the same number; a cache may outlive a store.
        packages.store.objects.clear()
        cache.get(packages.publish("a", size, number))
    assert len(list(packages.folder.iterdir())) == 3


def test_a_name_that_is_no_folder_name_is_refused(packages: _Packages) -> None:
    with pytest.raises(InvalidPackage):
        packages.cache(1000).get(version_of("../a", files={}))
