"""I/O binding with reused buffers, on the CPU provider: the same code binds the GPU's memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from onnx import TensorProto, helper

from gpu_service.execution.bound import BoundExecution
from gpu_service.execution.buffers import Device
from gpu_service.execution.cancel import Cancel
from shared.adapters.onnx.execution import Execution, RunTerminated
from shared.adapters.onnx.session import create_session
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, InvalidRequest
from shared.domain.tensors import Array, bytes_tensor
from tests.adapters.onnx.test_package import sample
from tests.models import (
    add_model,
    biased_model,
    gather_model,
    identity_model,
    matmul_model,
    model,
    slow_model,
    sum_model,
    value,
)

F = np.float32


def bound(tmp_path: Path, graph: bytes, *, buckets: Sequence[int] = (), graphs: bool = False) -> BoundExecution:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    return BoundExecution(Execution(create_session(path, threads=1)), Device(), buckets=buckets, graphs=graphs)


def rows_of(first: float, rows: int) -> dict[str, Array]:
    return {"x": np.arange(first, first + 2 * rows, dtype=F).reshape(rows, 2)}


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("buckets", [(), (4,)])
def test_every_dtype_comes_back_exactly(tmp_path: Path, dtype: DType, buckets: tuple[int, ...]) -> None:
    execution = bound(tmp_path, identity_model(dtype), buckets=buckets)
    given = sample(dtype)
    for array in (given, given[::-1], given):  # the second is not contiguous, the third finds the buffers of the others
        result = execution.run(["y"], {"x": array})["y"]
        assert result.dtype == given.dtype
        np.testing.assert_array_equal(result, array)


def test_scalars(tmp_path: Path) -> None:
    execution = bound(tmp_path, identity_model(DType.INT64, []))
    for number in (7, 8):
        assert execution.run(["y"], {"x": np.array(number)})["y"] == number


def test_an_answer_does_not_change_with_the_next_run(tmp_path: Path) -> None:
    execution = bound(tmp_path, add_model())
    first = execution.run(["y"], rows_of(0, 3))["y"]
    kept = first.copy()
    second = execution.run(["y"], rows_of(100, 3))["y"]
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, rows_of(101, 3)["x"])


def test_an_answer_outlives_its_execution(tmp_path: Path) -> None:
    execution = bound(tmp_path, add_model())
    results = [execution.run(["y"], rows_of(float(n), 3))["y"] for n in range(3)]
    del execution
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result, rows_of(float(n + 1), 3)["x"])


@pytest.mark.parametrize("graphs", [False, True])
def test_batches_are_filled_up_to_a_bucket_and_cut_back(tmp_path: Path, graphs: bool) -> None:
    weights = np.arange(4, dtype=F).reshape(2, 2)
    execution = bound(tmp_path, matmul_model(weights), buckets=(2, 8), graphs=graphs)
    assert execution.buckets == (2, 8)
    for rows in (8, 3, 1, 2, 5, 9, 8, 1):  # 9 is above the last bucket and runs as it is
        feeds = rows_of(float(rows), rows)
        np.testing.assert_allclose(execution.run(["y"], feeds)["y"], feeds["x"] @ weights)


def test_what_is_filled_up_comes_from_the_same_batch(tmp_path: Path) -> None:
    """An output over the whole batch would show rows of another one."""
    graph = model(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Add", ["x", "largest"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("y", TensorProto.FLOAT, ["n", 2])],
    )
    execution = bound(tmp_path, graph, buckets=(4,))
    execution.run(["y"], {"x": np.full((4, 2), 1e6, F)})
    np.testing.assert_array_equal(execution.run(["y"], {"x": np.ones((2, 2), F)})["y"], [[2, 2], [2, 2]])


@pytest.mark.parametrize("graph", [sum_model(), biased_model(), identity_model(DType.FP32, ["n", "k"])])
def test_no_buckets_where_more_than_the_rows_varies(tmp_path: Path, graph: bytes) -> None:
    assert bound(tmp_path, graph, buckets=(2, 8)).buckets == ()


def test_several_shapes_and_outputs(tmp_path: Path) -> None:
    execution = bound(tmp_path, sum_model())
    for rows, width in [(1, 3), (2, 3), (1, 3), (4, 1)] * 12:
        a, b = np.full((rows, width), 5, F), np.full((rows, width), rows, F)
        both = execution.run(["total", "difference"], {"a": a, "b": b})
        np.testing.assert_array_equal(both["total"], a + b)
        np.testing.assert_array_equal(both["difference"], a - b)
        assert list(execution.run(["difference"], {"a": a, "b": b})) == ["difference"]


def test_more_shapes_than_buffers_are_kept_for(tmp_path: Path) -> None:
    execution = bound(tmp_path, add_model())
    for rows in [*range(1, 80), *range(1, 80)]:
        np.testing.assert_array_equal(execution.run(["y"], rows_of(0, rows))["y"], rows_of(1, rows)["x"])


def test_optional_inputs_with_and_without(tmp_path: Path) -> None:
    execution = bound(tmp_path, biased_model())
    for _ in range(2):
        np.testing.assert_array_equal(execution.run(["y"], {"x": np.zeros((3, 2), F)})["y"], np.ones((3, 2)))
        with_bias = execution.run(["y"], {"x": np.zeros((3, 2), F), "bias": np.array([5, 7], F)})["y"]
        np.testing.assert_array_equal(with_bias, [[5, 7]] * 3)


def test_outputs_whose_shape_depends_on_the_values(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("NonZero", ["x"], ["found"]), helper.make_node("Identity", ["x"], ["same"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("found", TensorProto.INT64, [1, None]), value("same", TensorProto.FLOAT, ["n"])],
    )
    execution = bound(tmp_path, graph)
    kept = []
    for array in ([0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]):
        results = execution.run(["found", "same"], {"x": np.array(array, F)})
        kept.append((results, array))
    for results, array in kept:
        np.testing.assert_array_equal(results["found"], [np.flatnonzero(array)])
        np.testing.assert_array_equal(results["same"], array)


def test_dimensions_of_one_name_that_differ(tmp_path: Path) -> None:
    """Exporters do that; buffers made for what the names say would not fit."""
    graph = model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("y", TensorProto.FLOAT, ["n", 2])],
    )
    execution = bound(tmp_path, graph)
    for first in (0.0, 9.0):
        feeds = rows_of(first, 2)
        np.testing.assert_array_equal(execution.run(["y"], feeds)["y"], np.concatenate([feeds["x"], feeds["x"]]))


def test_a_run_that_fails_leaves_the_next_unharmed(tmp_path: Path) -> None:
    execution = bound(tmp_path, gather_model())
    for _ in range(3):
        with pytest.raises((InvalidRequest, BackendError)):
            execution.run(["y"], {"x": np.array([0, 99])})
        np.testing.assert_array_equal(execution.run(["y"], {"x": np.array([2, 0])})["y"], [[4, 5], [0, 1]])


def test_empty_tensors_and_strings_run_without_buffers(tmp_path: Path) -> None:
    assert bound(tmp_path, identity_model(DType.FP32, ["n", None])).run(["y"], {"x": np.zeros((2, 0), F)})[
        "y"
    ].shape == (2, 0)
    given = bytes_tensor([b"a", "ä".encode()])
    np.testing.assert_array_equal(
        bound(tmp_path, identity_model(DType.BYTES, ["n"])).run(["y"], {"x": given})["y"], given
    )


def test_foreign_byte_order(tmp_path: Path) -> None:
    given = np.array([[1, 2]], dtype=">f4")
    np.testing.assert_array_equal(bound(tmp_path, identity_model()).run(["y"], {"x": given})["y"], given)


@pytest.mark.parametrize("graphs", [False, True])
def test_several_threads_at_once(tmp_path: Path, graphs: bool) -> None:
    execution = bound(tmp_path, add_model(), buckets=(4, 16), graphs=graphs)

    def calls(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            x = rng.random((int(rng.integers(1, 20)), 2), dtype=F)
            if not np.array_equal(execution.run(["y"], {"x": x})["y"], x + 1):
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(calls, range(4)))


def test_a_run_can_be_stopped(tmp_path: Path) -> None:
    execution = bound(tmp_path, slow_model())
    cancel = Cancel()
    Timer(0.1, cancel.terminate).start()
    with pytest.raises(RunTerminated):
        execution.run(["y"], {"x": np.full((1, 1), 1e8, F)}, cancel.options)
    assert execution.run(["y"], {"x": np.full((1, 1), 3, F)})["y"] == 6


def test_a_stopped_batch_does_not_begin(tmp_path: Path) -> None:
    execution = bound(tmp_path, slow_model(), buckets=(2,), graphs=True)
    cancel = Cancel()
    cancel.terminate()
    with pytest.raises(RunTerminated):
        execution.run(["y"], {"x": np.full((1, 1), 1e8, F)}, cancel.options)
