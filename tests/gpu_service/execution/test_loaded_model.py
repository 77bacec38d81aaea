"""Loaded models: the two sessions on the CPU, warm-up, stopping, and the memory that comes back."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest

from gpu_service.execution import cpu
from gpu_service.execution.cancel import Cancel
from gpu_service.execution.loaded_model import LoadedModel, load_model
from gpu_service.execution.memory import give_back, memory_in_use
from gpu_service.execution.options import CUDA, ExecutionOptions
from gpu_service.models.served_model import ModelKey
from shared.adapters.onnx.execution import RunTerminated
from shared.adapters.onnx.session import ProviderNotLoaded
from shared.domain.errors import BackendUnavailable, InvalidPackage
from shared.domain.tensors import bytes_tensor
from tests.adapters.onnx.test_session import package, with_initializer  # noqa: F401 - a fixture
from tests.models import (
    add_model,
    gather_model,
    label_package,
    manifest,
    matmul_model,
    slow_model,
    sum_model,
    tensor,
    text_package,
    write_package,
)

F = np.float32
MIB = 1024 * 1024
TWO_CPUS = ExecutionOptions(cpus=2)


def load(folder: Path, options: ExecutionOptions = TWO_CPUS) -> LoadedModel:
    return load_model(folder, ModelKey("m", 1), options)


def heavy(tmp_path: Path) -> Path:
    """36 MiB of weights."""
    weights = np.random.default_rng(0).standard_normal((3072, 3072), dtype=F)
    return write_package(tmp_path / "heavy" / "1", matmul_model(weights))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_bare_model_is_named_by_its_key(tmp_path: Path) -> None:
    model = load(write_package(tmp_path, add_model()))
    assert (model.manifest.name, model.manifest.version, model.device, model.instances) == ("m", 1, "cpu", 2)
    np.testing.assert_array_equal(model.run({"x": np.zeros((2, 2), F)})["y"], np.ones((2, 2)))


def test_instances_are_those_asked_for(tmp_path: Path) -> None:
    document = manifest("m", 1, [tensor("x", "FP32", [-1, 2])], [tensor("y", "FP32", [-1, 2])])
    plain = write_package(tmp_path / "a", add_model(), document)
    asking = write_package(tmp_path / "b", add_model(), document | {"serving": {"instances": 5}})
    assert [load(folder, ExecutionOptions(cpus=3)).instances for folder in (plain, asking)] == [3, 5]
    assert load(asking, ExecutionOptions(cpus=3, instances=1)).instances == 1


def test_warm_up_tells_how_long_runs_take(tmp_path: Path) -> None:
    seconds = load(write_package(tmp_path, add_model())).warm_up()
    assert seconds.keys() == {1, 16}
    assert all(0 < value < 1 for value in seconds.values())


def test_warm_up_runs_the_shapes_that_are_declared(tmp_path: Path) -> None:
    document = manifest("m", 1, [tensor(name, "FP32", [-1, -1]) for name in "ab"], [tensor("total", "FP32", [-1, -1])])
    document["serving"] = {"warm_up": [{"a": [3, 8], "b": [3, 8]}, {"a": [5, 2], "b": [5, 2]}]}
    assert {1, 3, 5} <= load(write_package(tmp_path, sum_model(), document)).warm_up().keys()


def test_warm_up_of_text_and_labels(tmp_path: Path) -> None:
    texts = load(text_package(tmp_path / "texts/1"))
    assert 1 in texts.warm_up()
    assert texts.run({"text": bytes_tensor([b"one"])})["y"].shape == (1, 2, 3)
    assert 1 in load(label_package(tmp_path / "labels/1")).warm_up()


def test_a_graph_that_takes_no_zeros_is_served_all_the_same(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from tests.models import model as graph
    from tests.models import value

    table = numpy_helper.from_array(np.arange(3, dtype=F), "table")
    offset = numpy_helper.from_array(np.array(-9, dtype=np.int64), "offset")
    folder = write_package(
        tmp_path,
        graph(
            [helper.make_node("Add", ["x", "offset"], ["at"]), helper.make_node("Gather", ["table", "at"], ["y"])],
            [value("x", TensorProto.INT64, ["n"])],
            [value("y", TensorProto.FLOAT, ["n"])],
            [table, offset],
        ),
    )
    model = load(folder)
    assert model.warm_up() == {}
    assert model.run({"x": np.array([11])})["y"] == 2


def test_an_example_that_the_model_cannot_predict(tmp_path: Path) -> None:
    document = manifest("m", 1, [tensor("x", "INT64", [-1])], [tensor("y", "FP32", [-1, 2])], example=99)
    with pytest.raises(InvalidPackage, match="cannot predict the example"):
        load(write_package(tmp_path, gather_model(), document)).warm_up()


def test_small_models_have_no_wide_session(tmp_path: Path) -> None:
    model = load(write_package(tmp_path, add_model()))
    model.warm_up()
    assert not model.has_wide
    np.testing.assert_array_equal(model.run({"x": np.zeros((1, 2), F)}, wide=True)["y"], [[1, 1]])


def test_both_sessions_share_their_weights_and_leave_no_file(tmp_path: Path, temporary: Path) -> None:
    folder = heavy(tmp_path)
    load(folder).close()  # what the first load of a process brings along is not the model's
    before = memory_in_use()
    model = load(folder)
    assert model.has_wide
    assert list(temporary.iterdir()) == []
    x = np.random.default_rng(1).standard_normal((8, 3072), dtype=F)
    narrow, wide = model.run({"x": x})["y"], model.run({"x": x}, wide=True)["y"]
    np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-3)
    plain = load(folder, ExecutionOptions(cpus=1))
    np.testing.assert_array_equal(narrow, plain.run({"x": x})["y"])
    plain.close()
    grown = memory_in_use() - before
    assert grown < 1.5 * 36 * MIB
    model.close()


def test_closing_gives_the_memory_back(tmp_path: Path, temporary: Path) -> None:
    folder = heavy(tmp_path)
    x = np.ones((4, 3072), F)
    for options in (TWO_CPUS, ExecutionOptions(cpus=1)):
        load(folder, options).close()
        give_back()
        before = memory_in_use()
        model = load(folder, options)
        model.warm_up()
        model.run({"x": x})
        model.run({"x": x}, wide=True)
        assert memory_in_use() - before > 34 * MIB
        assert model.memory_bytes >= 36 * MIB
        model.close()
        assert memory_in_use() - before < 16 * MIB
        with pytest.raises(BackendUnavailable):
            model.run({"x": x})


def test_without_room_to_share_the_model_is_loaded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "_SHARING_PAYS", 0)
    monkeypatch.setattr(cpu, "_ROOM_FACTOR", 1e18)
    model = load(write_package(tmp_path, add_model()))
    np.testing.assert_array_equal(model.run({"x": np.zeros((1, 2), F)})["y"], [[1, 1]])
    assert not model.has_wide
    assert "no room" in caplog.text


def test_where_the_temporary_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "_SHARING_PAYS", 0)
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    model = load(write_package(tmp_path / "m", add_model()))
    np.testing.assert_array_equal(model.run({"x": np.zeros((1, 2), F)})["y"], [[1, 1]])
    assert "cannot be shared" in caplog.text


@pytest.mark.parametrize("shared", [True, False])
def test_external_data(package: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:  # noqa: F811
    monkeypatch.setattr(cpu, "_SHARING_PAYS", 0 if shared else 1 << 62)
    (package / "model.onnx").write_bytes(with_initializer("weights.bin"))
    model = load(package)
    np.testing.assert_array_equal(model.run({"x": np.zeros(1000, F)})["y"], np.arange(1000))
    for location in ("../secret.bin", "link.bin", str(package.parent / "secret.bin")):
        (package / "model.onnx").write_bytes(with_initializer(location))
        with pytest.raises(InvalidPackage):
            load(package)


def test_many_threads_at_once(tmp_path: Path) -> None:
    model = load(heavy(tmp_path))
    weights = model.run({"x": np.eye(3072, dtype=F)[:64]})["y"]

    def call(row: int) -> Any:
        x = np.zeros((1, 3072), F)
        x[0, row] = 2
        return np.array_equal(model.run({"x": x}, wide=row % 7 == 0)["y"][0], 2 * weights[row])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(64)))


@pytest.mark.parametrize("wide", [False, True])
def test_a_run_can_be_stopped(tmp_path: Path, wide: bool) -> None:
    model = load(write_package(tmp_path, slow_model()))
    cancel = Cancel()
    Timer(0.1, cancel.terminate).start()
    with pytest.raises(RunTerminated):
        model.run({"x": np.full((1, 1), 1e8, F)}, wide=wide, cancel=cancel)
    assert model.run({"x": np.full((1, 1), 3, F)}, cancel=Cancel())["y"] == 6


def test_a_provider_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProviderNotLoaded, match=CUDA):
        load(write_package(tmp_path, add_model()), ExecutionOptions(providers=(CUDA,)))


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match=r"no model\.onnx"):
        load(tmp_path)
    with pytest.raises(InvalidPackage, match="cannot be loaded"):
        load(write_package(tmp_path, b"nothing"))
