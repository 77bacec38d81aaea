"""The manifest's block `serving` in real runs: padding and un-padding, joining, the response cache, state."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gpu_service.inference.request import InferenceRequest
from gpu_service.inference.sessions import SessionStore
from gpu_service.scheduling.errors import DeadlinePassed
from shared.domain.dtypes import DType
from shared.domain.tensors import Array
from tests import models
from tests.gpu_service.serving import Serving, on_loop, outcome, serving


def package(folder: Path, name: str, graph: bytes, inputs: list[Any], outputs: list[Any], policy: Any) -> None:
    document = models.manifest(name, 1, inputs, outputs, serving=policy)
    models.write_package(folder / name / "1", graph, document)


def slow(folder: Path, policy: Any) -> None:
    inputs, outputs = [[models.tensor(name, DType.FP32, [-1, 1])] for name in "xy"]
    package(folder, "slow", models.slow_model(), inputs, outputs, policy)


def row(*values: float) -> Array:
    return np.array([values], dtype=np.float32)


def y(request: InferenceRequest) -> Array:
    assert request.error is None
    assert request.result is not None
    return request.result["y"]


def executed(served: Serving, name: str) -> int:
    return int(served.model(name).stats.execution_count)


def test_requests_of_one_bucket_share_a_batch_and_get_their_own_sizes(tmp_path: Path) -> None:
    inputs, outputs = [[models.tensor(name, DType.FP32, [-1, -1])] for name in "xy"]
    policy = {
        "padding": [{"input": "x", "axis": 1, "value": -1.0, "buckets": [4, 8]}],
        "unpad": [{"output": "y", "axis": 1, "input": "x", "input_axis": 1}],
    }
    package(tmp_path, "pads", models.identity_model(DType.FP32, ("n", "k")), inputs, outputs, policy)

    async def work() -> None:
        async with serving(tmp_path) as served:
            before = executed(served, "pads")
            sizes = [3, 1, 4, 2, 7, 9]
            given = [np.arange(size, dtype=np.float32)[None] for size in sizes]
            requests = await asyncio.gather(*(served.infer("pads", x=array) for array in given))
            for array, request in zip(given, requests, strict=True):
                np.testing.assert_array_equal(y(request), array)
            assert executed(served, "pads") - before < len(sizes)

    on_loop(work)


def test_identical_requests_share_one_run_and_its_answer_is_kept(tmp_path: Path) -> None:
    slow(tmp_path, {"join": True, "cache": {"max_bytes": 100_000}})

    async def work() -> None:
        async with serving(tmp_path) as served:
            before = executed(served, "slow")
            requests = await asyncio.gather(*(served.infer("slow", x=row(20_000.0), tenant="a") for _ in range(6)))
            assert [y(request).tolist() for request in requests] == [[[40_000.0]]] * 6
            assert executed(served, "slow") - before == 1
            again = await served.infer("slow", x=row(20_000.0), tenant="a")
            assert y(again).tolist() == [[40_000.0]]
            assert executed(served, "slow") - before == 1
            await served.infer("slow", x=row(20_000.0), tenant="b")
            assert executed(served, "slow") - before == 2

    on_loop(work)


def test_the_departure_of_the_first_does_not_end_the_run_of_the_others(tmp_path: Path) -> None:
    slow(tmp_path, {"join": True})

    async def work() -> None:
        async with serving(tmp_path) as served:
            first = asyncio.create_task(served.infer("slow", x=row(100_000.0)))
            hasty = asyncio.create_task(outcome(served.infer("slow", x=row(100_000.0), deadline_ms=30)))
            others = [asyncio.create_task(served.infer("slow", x=row(100_000.0))) for _ in range(2)]
            await asyncio.sleep(0.02)
            first.cancel()
            assert isinstance(await hasty, DeadlinePassed)
            assert not any(task.done() for task in others)
            assert [y(await task).tolist() for task in others] == [[[200_000.0]]] * 2

    on_loop(work)


def counter_model() -> bytes:
    """`y = x + h`, `h_out = y`; FP32 [n, 1]: a running sum."""
    shape: Any = ["n", 1]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "h", "y", "h_out")]
    nodes: list[onnx.NodeProto] = [
        helper.make_node("Add", ["x", "h"], ["y"]),
        helper.make_node("Identity", ["y"], ["h_out"]),
    ]
    return models.model(nodes, tensors[:2], tensors[2:])


def test_a_state_is_carried_by_its_session_and_by_nothing_else(tmp_path: Path) -> None:
    inputs, outputs = [[models.tensor(name, DType.FP32, [-1, 1])] for name in "xy"]
    state = {"input": "h", "output": "h_out", "dtype": "FP32", "shape": [-1, 1]}
    package(tmp_path, "sums", counter_model(), inputs, outputs, {"state": [state]})

    async def work() -> None:
        async with serving(tmp_path) as served:
            model = served.model("sums")
            requests = await asyncio.gather(*(served.infer("sums", x=row(float(n))) for n in range(4)))
            assert [y(request).tolist() for request in requests] == [[[float(n)]] for n in range(4)]
            store = SessionStore()
            session = store.open("t", model.key, model.serving.state, 0.0)
            for value, total in ((2.0, 2.0), (3.0, 5.0), (-1.0, 4.0)):
                fed = session.with_state({"x": row(value)}, 1)
                wanted = session.outputs_with_state(model.signature.output_names)
                given = model.loaded.run(fed, wanted, wide=False, cancel=None)
                assert store.finish(session, given, 1)["y"].tolist() == [[total]]
                store.acquire(session.id, "t", model.key, 0.0)

    on_loop(work)
