"""The resident set of the process while models of 100 MB come and go."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gpu_service.models.errors import ModelEvicted
from gpu_service.models.served_model import ModelKey
from tests.gpu_service.models.support import MB, Factory, House, memory_in_use, run, until
from tests.models import model, value, write_package


def large_package(folder: Path, amount: float, width: int = 5000) -> Path:
    """`y = x + amount` for rows of ones, by way of `4 width²` bytes of weights that lie in a file of their own."""
    weights = onnx.TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[width, width], data_location=TensorProto.EXTERNAL
    )
    weights.external_data.add(key="location", value="weights.bin")
    nodes = [
        helper.make_node("MatMul", ["x", "half"], ["wide"]),
        helper.make_node("MatMul", ["wide", "w"], ["products"]),
        helper.make_node("ReduceMax", ["products"], ["largest"], keepdims=0),
        helper.make_node("Add", ["x", "largest"], ["y"]),
    ]
    half = numpy_helper.from_array(np.full((2, width), 0.5, np.float32), "half")
    inputs, outputs = ([value(name, TensorProto.FLOAT, ["n", 2])] for name in ("x", "y"))
    folder = write_package(folder, model(nodes, inputs, outputs, [half, weights]))
    matrix = np.zeros((width, width), np.float32)
    matrix[0, 0] = amount
    matrix.tofile(folder / "weights.bin")
    return folder


def test_unloading_and_evicting_give_the_memory_back(tmp_path: Path) -> None:
    async def test() -> None:
        large_package(tmp_path / "models/a/1", 1.0)
        factory = Factory(sizes={"a": 0, "b": 0}, real=True)
        before = memory_in_use()
        async with House(factory, tmp_path / "models", budget=150 * MB) as house:
            await house.ready()
            assert await house.model("a").predict(1.0) == 2.0
            assert memory_in_use() - before > 80 * MB
            # Measured, since these models do not say themselves what they take.
            assert 90 * MB < house.budget.used < 150 * MB
            await house.manager.unload("a")
            assert memory_in_use() - before < 30 * MB
            assert house.budget.used == 0

            await house.manager.load("a")
            large_package(tmp_path / "models/b/1", 2.0)
            await house.manager.load("b")
            assert await house.model("b").predict(1.0) == 3.0
            assert memory_in_use() - before < 150 * MB
            with pytest.raises(ModelEvicted):
                house.model("a")
            again = await house.manager.ensure("a", None)
            assert again.key == ModelKey("a", 1)
            assert await house.model("a").predict(1.0) == 2.0
            await until(lambda: house.served() == {"a": [1]})
            assert memory_in_use() - before < 150 * MB

    run(test())
