"""Packages in this process: stopped at the deadline, and whole otherwise."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import cast

import numpy as np
import pytest
from onnx import helper, numpy_helper

from shared.adapters.function_backend import FunctionBackend, Runnable
from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.package_cache import PackageCache
from shared.adapters.run_deadlines import RunDeadlines
from shared.domain.errors import BackendError, BackendTimeout
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.stop_signal import StopSignal, stoppable
from shared.domain.tensors import Tensors
from tests.adapters.samples import version_of, write_files
from tests.fakes import InMemoryPackages
from tests.models import model, slow_model, value, write_package

VERSION = version_of("slow")


class _One:
    """The same package for every version; loading takes a while."""

    def __init__(self, package: Runnable, loading_s: float = 0.0) -> None:
        self._package = package
        self._loading_s = loading_s

    def get(self, version: ModelVersion) -> Runnable:
        sleep(self._loading_s)
        return self._package

    def ready(self, version: ModelVersion) -> bool:
        return not self._loading_s


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> OnnxPackage:
    return OnnxPackage.load(write_package(tmp_path_factory.mktemp("slow") / "slow/1", slow_model()), threads=1)


def steps(number: float) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    return {"x": np.full((1, 1), number, np.float32)}


def within(ms: int) -> InferenceContext:
    return InferenceContext("r", "t", ms)


def test_a_run_is_stopped_at_its_deadline_and_the_next_one_is_whole(package: OnnxPackage) -> None:
    backend = FunctionBackend(_One(package))
    for _ in range(3):
        started = monotonic()
        with pytest.raises(BackendTimeout, match="did not finish within 60 ms"):
            backend.infer(VERSION, steps(1e9), within(60))
        assert monotonic() - started < 20  # hours, if it ran to its end
        assert backend.infer(VERSION, steps(3), within(20_000))["y"] == 6


def test_work_that_is_stopped_ends_whether_it_runs_or_is_still_being_loaded(package: OnnxPackage) -> None:
    for loading_s in (0.0, 0.2):
        backend = FunctionBackend(_One(package, loading_s))
        signal = StopSignal()
        with stoppable(signal):
            call = copy_context()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(call.run, backend.infer, VERSION, steps(1e9), within(600_000))
            while not (backend._deadlines._ends or backend._loads) and not run.done():
                sleep(0.001)
            signal.set()
            with pytest.raises(BackendError, match="given up") as given_up:
                run.result(30)
        assert not isinstance(given_up.value, BackendTimeout)
        assert (given_up.value.blames_backend, given_up.value.retryable) == (False, False)
        assert backend.infer(VERSION, steps(3), within(20_000))["y"] == 6


def test_an_earlier_deadline_than_the_one_waited_for_holds(package: OnnxPackage) -> None:
    backend = FunctionBackend(_One(package))

    def run(ms: int) -> float:
        started = monotonic()
        with pytest.raises(BackendTimeout):
            backend.infer(VERSION, steps(1e9), within(ms))
        return monotonic() - started

    with ThreadPoolExecutor(3) as pool:
        longest, *others = pool.map(run, [1500, 200, 400])
    assert longest >= 1.5
    assert all(other < longest for other in others)


def test_time_that_went_into_loading_is_gone(package: OnnxPackage) -> None:
    backend = FunctionBackend(_One(package, loading_s=0.05))
    with pytest.raises(BackendTimeout, match="while the model was loaded"):
        backend.infer(VERSION, steps(3), within(20))
    assert backend.infer(VERSION, steps(3), within(20_000))["y"] == 6


def test_it_says_which_versions_are_loaded(tmp_path: Path, package: OnnxPackage) -> None:
    store, version = InMemoryPackages(), version_of("m", 7)
    store.upload(version, write_files(tmp_path / "source"))
    cache = PackageCache[Runnable](
        store, tmp_path / "cache", 10**6, lambda _folder, _version: cast("Runnable", package)
    )
    backend = FunctionBackend(cache)
    assert not backend.ready(version)
    backend.infer(version, steps(3), within(20_000))
    assert backend.ready(version)
    # What an earlier process left on the disk has to be loaded.
    again = PackageCache[Runnable](
        store, tmp_path / "cache", 10**6, lambda _folder, _version: cast("Runnable", package)
    )
    assert not FunctionBackend(again).ready(version)


def test_runs_that_end_in_time_are_left_alone() -> None:
    deadlines = RunDeadlines()
    with deadlines.until(monotonic() + 0.02) as in_time:
        pass
    with deadlines.until(monotonic() + 0.02) as late, deadlines.until(monotonic() + 60) as other:
        for _ in range(1000):
            if late.terminate:
                break
            sleep(0.01)
        assert late.terminate
        assert not other.terminate
    assert not in_time.terminate


def test_values_that_a_graph_cannot_take_blame_no_backend(tmp_path: Path) -> None:
    # ONNX Runtime calls this a failure, not an invalid argument.
    graph = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", 1, ["n", "m"])],
        [value("y", 1, ["n", 4])],
        [numpy_helper.from_array(np.array([-1, 4], np.int64), "shape")],
    )
    backend = FunctionBackend(_One(OnnxPackage.load(write_package(tmp_path / "slow/1", graph), threads=1)))
    assert backend.infer(VERSION, {"x": np.zeros((1, 4), np.float32)}, within(20_000))["y"].shape == (1, 4)
    for bent in ((1, 3), (2, 6)):  # the graph fails; it gives another number of rows
        with pytest.raises(BackendError) as caught:
            backend.infer(VERSION, {"x": np.zeros(bent, np.float32)}, within(20_000))
        assert not caught.value.blames_backend


class _Unavailable(_One):
    def get(self, version: ModelVersion) -> Runnable:
        raise BackendError("The store of packages is away.")

    def ready(self, version: ModelVersion) -> bool:
        return False


def test_a_store_that_fails_is_to_blame(package: OnnxPackage) -> None:
    with pytest.raises(BackendError) as caught:
        FunctionBackend(_Unavailable(package)).infer(VERSION, steps(3), within(20_000))
    assert caught.value.blames_backend


class _Quick:
    def run(self, inputs: Tensors, *, options: object = None) -> Tensors:
        return {"y": inputs["x"] * 2}


class _Held:
    """A package that is loaded once `go` is set; `loads` counts how often that was begun."""

    def __init__(self, *, fails: int = 0) -> None:
        self.go = Event()
        self.loads = 0
        self._fails = fails
        self._is_ready = False

    def get(self, version: ModelVersion) -> Runnable:
        if not self._is_ready:
            self.loads += 1
            self.go.wait(30)
            if self.loads <= self._fails:
                raise BackendError("The store of packages is away.")
            self._is_ready = True
        return _Quick()

    def ready(self, version: ModelVersion) -> bool:
        return self._is_ready


def test_a_load_that_is_under_way_is_joined_until_the_deadline() -> None:
    packages = _Held()
    backend = FunctionBackend(packages)
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(backend.infer, VERSION, steps(3), within(30_000))
        while not packages.loads:
            sleep(0.001)
        for _ in range(5):
            with pytest.raises(BackendTimeout, match="while the model was loaded"):
                backend.infer(VERSION, steps(3), within(5))
        joined = pool.submit(backend.infer, VERSION, steps(4), within(30_000))
        packages.go.set()
        assert [call.result()["y"].item() for call in (loading, joined)] == [6, 8]
    assert packages.loads == 1


def test_who_joined_a_load_that_failed_loads_it_again() -> None:
    packages = _Held(fails=1)
    backend = FunctionBackend(packages)
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(backend.infer, VERSION, steps(3), within(30_000))
        while not packages.loads:
            sleep(0.001)
        joined = pool.submit(backend.infer, VERSION, steps(4), within(30_000))
        packages.go.set()
        with pytest.raises(BackendError, match="away"):
            loading.result()
        assert joined.result()["y"] == 8
