"""The models that the benchmarks serve: `python -m benchmarks.models` builds them, the same bytes on each machine.

Their weights are random: what a model costs does not depend on what it has learned.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.generator import OUT

REPOSITORY = OUT / "models"
OPSET = 17
NAMES = ("tree", "mlp", "encoder", "resnet")
_STAMP = "benchmarks"


def path_of(name: str) -> Path:
    """Where the model's file lies, in the layout that model servers read."""
    return REPOSITORY / name / "1" / "model.onnx"


def build(names: Sequence[str] = NAMES) -> Path:
    """Build what is missing or was built by another state of this module; the folder of all of them."""
    stamp = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    for name in names:
        path = path_of(name)
        mark = OUT / "stamps" / f"{name}.model"
        if path.exists() and mark.exists() and mark.read_text() == stamp:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(_BUILDERS[name](), path)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(stamp)
    return REPOSITORY


@dataclass
class _Graph:
    """Collects nodes and weights; every method returns the name of the tensor that it makes."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, values: NDArray[Any]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def number(self, value: float) -> str:
        return self.weight(np.array(value, np.float32))

    def random(self, *shape: int, scale: float) -> str:
        return self.weight((self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32))

    def dense(self, x: str, width: int, height: int) -> str:
        product = self.node("MatMul", x, self.random(width, height, scale=width**-0.5))
        return self.node("Add", product, self.random(height, scale=0.02))

    def gemm(self, x: str, width: int, height: int, gain: float = 1.0) -> str:
        weights = self.random(width, height, scale=gain * width**-0.5)
        return self.node("Gemm", x, weights, self.random(height, scale=0.02))

    def conv(self, x: str, channels: int, filters: int, size: int, stride: int = 1) -> str:
        weights = self.random(filters, channels, size, size, scale=(2 / (channels * size * size)) ** 0.5)
        pads = [(size - 1) // 2] * 4
        bias = self.random(filters, scale=0.02)
        return self.node("Conv", x, weights, bias, kernel_shape=[size, size], strides=[stride, stride], pads=pads)

    def normalize(self, x: str, width: int) -> str:
        scale = self.weight(np.ones(width, np.float32))
        return self.node("LayerNormalization", x, scale, self.random(width, scale=0.02), axis=-1, epsilon=1e-12)

    def model(self, inputs: Sequence[onnx.ValueInfoProto], output: str, renamed: str, shape: Sequence[Any]) -> Any:
        self.nodes.append(helper.make_node("Identity", [output], [renamed], name=renamed))
        outputs = [helper.make_tensor_value_info(renamed, TensorProto.FLOAT, list(shape))]
        graph = helper.make_graph(self.nodes, "benchmark", list(inputs), outputs, initializer=self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="benchmarks")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def _tree() -> Any:
    """100 boosted trees of depth 3 over 30 features; outputs `label` and `probabilities` [rows, 2]."""
    from skl2onnx import to_onnx
    from sklearn.datasets import make_classification
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = make_classification(n_samples=2000, n_features=30, n_informative=12, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=0).fit(x, y)
        options = {id(fitted): {"zipmap": False}}
        return to_onnx(fitted, x[:1].astype(np.float32), options=options, target_opset=OPSET, name="benchmark")


def _mlp() -> Any:
    """768 → 256 → 64 → 10 with ReLU."""
    graph = _Graph(np.random.default_rng(1))
    x = graph.node("Relu", graph.gemm("input", 768, 256))
    x = graph.node("Relu", graph.gemm(x, 256, 64))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", 768])]
    return graph.model(inputs, graph.gemm(x, 64, 10), "logits", ["rows", 10])


def _encoder(layers: int = 6, width: int = 384, heads: int = 12, vocabulary: int = 30522) -> Any:
    """The size of MiniLM-L6: token ids and mask [rows, sequence] → mean-pooled `embedding` [rows, 384]."""
    graph = _Graph(np.random.default_rng(2))
    length = graph.node("Shape", "input_ids", start=1, end=2)
    positions = graph.node("Slice", graph.random(512, width, scale=0.02), graph.weight(np.array([0])), length)
    x = graph.node("Gather", graph.random(vocabulary, width, scale=0.02), "input_ids", axis=0)
    x = graph.normalize(graph.node("Add", x, positions), width)
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    absent = graph.node("Sub", graph.number(1), mask)
    penalty = graph.node("Mul", absent, graph.number(-1e9))
    penalty = graph.node("Unsqueeze", penalty, graph.weight(np.array([1, 2])))
    for _ in range(layers):
        x = graph.normalize(graph.node("Add", x, _attention(graph, x, penalty, width, heads)), width)
        hidden = graph.dense(x, width, 4 * width)
        erf = graph.node("Erf", graph.node("Div", hidden, graph.number(2**0.5)))
        gelu = graph.node("Mul", hidden, graph.node("Add", erf, graph.number(1)))
        gelu = graph.node("Mul", gelu, graph.number(0.5))
        x = graph.normalize(graph.node("Add", x, graph.dense(gelu, 4 * width, width)), width)
    weights = graph.node("Unsqueeze", mask, graph.weight(np.array([2])))
    axis = graph.weight(np.array([1]))
    total = graph.node("ReduceSum", graph.node("Mul", x, weights), axis, keepdims=0)
    pooled = graph.node("Div", total, graph.node("ReduceSum", weights, axis, keepdims=0))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    return graph.model(inputs, pooled, "embedding", ["rows", width])


def _attention(graph: _Graph, x: str, penalty: str, width: int, heads: int) -> str:
    split = graph.weight(np.array([0, 0, heads, width // heads]))

    def projected(*order: int) -> str:
        return graph.node("Transpose", graph.node("Reshape", graph.dense(x, width, width), split), perm=list(order))

    query, key, value = projected(0, 2, 1, 3), projected(0, 2, 3, 1), projected(0, 2, 1, 3)
    scores = graph.node("MatMul", query, key)
    scores = graph.node("Div", scores, graph.number((width // heads) ** 0.5))
    weights = graph.node("Softmax", graph.node("Add", scores, penalty), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", weights, value), perm=[0, 2, 1, 3])
    return graph.dense(graph.node("Reshape", mixed, graph.weight(np.array([0, 0, width]))), width, width)


def _resnet() -> Any:
    """ResNet-18 with batch normalisation folded into the convolutions: `image` [rows, 3, 224, 224] → 1000 logits."""
    graph = _Graph(np.random.default_rng(3))
    x = graph.node("Relu", graph.conv("image", 3, 64, 7, 2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for filters in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if filters > 64 and block == 0 else 1
            inner = graph.node("Relu", graph.conv(x, channels, filters, 3, stride))
            inner = graph.conv(inner, filters, filters, 3)
            skip = x if channels == filters else graph.conv(x, channels, filters, 1, stride)
            x = graph.node("Relu", graph.node("Add", inner, skip))
            channels = filters
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 3, 224, 224])]
    return graph.model(inputs, graph.gemm(x, 512, 1000, 0.1), "logits", ["rows", 1000])


_BUILDERS: dict[str, Callable[[], Any]] = {"tree": _tree, "mlp": _mlp, "encoder": _encoder, "resnet": _resnet}


if __name__ == "__main__":
    print(build())
