"""Tiny real ONNX graphs and packages for tests, built with `onnx.helper`.

Functions that end in `_model` return the bytes of a graph; `write_package` makes a folder of them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from shared.domain.dtypes import DType

Shape = Sequence[int | str | None] | None

ONNX_TYPES: Mapping[DType, int] = {
    DType.BOOL: TensorProto.BOOL,
    DType.UINT8: TensorProto.UINT8,
    DType.UINT16: TensorProto.UINT16,
    DType.UINT32: TensorProto.UINT32,
    DType.UINT64: TensorProto.UINT64,
    DType.INT8: TensorProto.INT8,
    DType.INT16: TensorProto.INT16,
    DType.INT32: TensorProto.INT32,
    DType.INT64: TensorProto.INT64,
    DType.FP16: TensorProto.FLOAT16,
    DType.BF16: TensorProto.BFLOAT16,
    DType.FP32: TensorProto.FLOAT,
    DType.FP64: TensorProto.DOUBLE,
    DType.BYTES: TensorProto.STRING,
}


def value(name: str, type_: int, shape: Shape) -> onnx.ValueInfoProto:
    """A graph's input or output; strings and None are dimensions of any size, a shape of None an unknown rank."""
    return helper.make_tensor_value_info(name, type_, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> bytes:
    """The bytes of a model with one graph."""
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(made.SerializeToString())


def add_model(amount: float = 1.0, width: int = 2) -> bytes:
    """`y = x + amount`; FP32 [n, width]."""
    return model(
        [helper.make_node("Add", ["x", "amount"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n", width])],
        [value("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(np.array(amount, dtype=np.float32), "amount")],
    )


def identity_model(dtype: DType = DType.FP32, shape: Shape = ("n", 2)) -> bytes:
    """`y = x` for any dtype and shape."""
    kind = ONNX_TYPES[dtype]
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", kind, shape)], [value("y", kind, shape)])


def biased_model() -> bytes:
    """`y = x + bias`; FP32 [n, 2], and `bias`, FP32 [2], which is 1 where it is left out."""
    return model(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n", 2]), value("bias", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones(2, dtype=np.float32), "bias")],
    )


def sum_model() -> bytes:
    """`total = a + b`, `difference = a - b`; two FP32 inputs [n, k] with both axes of any size."""
    inputs = [value(name, TensorProto.FLOAT, ["n", "k"]) for name in ("a", "b")]
    outputs = [value(name, TensorProto.FLOAT, ["n", "k"]) for name in ("total", "difference")]
    nodes = [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return model(nodes, inputs, outputs)


def matmul_model(weights: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """`y = x @ weights`; FP32 [n, rows] → [n, columns]."""
    rows, columns = weights.shape
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n", rows])],
        [value("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "w")],
    )


def slow_model() -> bytes:
    """`y = x + n` where n, the largest number in `x`, is counted up one by one (a million: 3 s). FP32 [rows, 1]."""
    body = helper.make_graph(
        [helper.make_node("Add", ["x_in", "one"], ["x_out"]), helper.make_node("Identity", ["go_in"], ["go_out"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("x_in", TensorProto.FLOAT, ["n", 1]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("x_out", TensorProto.FLOAT, ["n", 1])],
    )
    return model(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["steps"], to=TensorProto.INT64),
            helper.make_node("Loop", ["steps", "go", "x"], ["y"], body=body),
        ],
        [value("x", TensorProto.FLOAT, ["n", 1])],
        [value("y", TensorProto.FLOAT, ["n", 1])],
        [
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array([[1.0]], dtype=np.float32), "one"),
        ],
    )


def gather_model() -> bytes:
    """`y = table[x]`; INT64 [n] → FP32 [n, 2]. Indices from 3 on make the graph fail while it runs."""
    return model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [value("x", TensorProto.INT64, ["n"])],
        [value("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "table")],
    )


def argmax_model(width: int = 3) -> bytes:
    """`class = argmax(x)`, `scores = x`; FP32 [n, width] → INT64 [n] and FP32 [n, width]."""
    return model(
        [
            helper.make_node("ArgMax", ["x"], ["class"], axis=1, keepdims=0),
            helper.make_node("Identity", ["x"], ["scores"]),
        ],
        [value("x", TensorProto.FLOAT, ["n", width])],
        [value("class", TensorProto.INT64, ["n"]), value("scores", TensorProto.FLOAT, ["n", width])],
    )


def tokens_model() -> bytes:
    """`y = (ids, mask)` as FP32 [n, 2, tokens]; inputs `input_ids` and `attention_mask`, INT64 [n, tokens]."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["attention_mask"], ["mask_f"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids_f", "one"], ["ids_u"]),
        helper.make_node("Unsqueeze", ["mask_f", "one"], ["mask_u"]),
        helper.make_node("Concat", ["ids_u", "mask_u"], ["y"], axis=1),
    ]
    inputs = [value(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")]
    one = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")
    return model(nodes, inputs, [value("y", TensorProto.FLOAT, ["n", 2, "t"])], [one])


def tokenizer_json() -> str:
    """A word-level tokenizer: `[CLS] words… [SEP]`; ids in the order [PAD] [CLS] [SEP] [UNK] one two three."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "one", "two", "three"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=64)
    return str(tokenizer.to_str())


def manifest(name: str, version: int, inputs: Sequence[Any], outputs: Sequence[Any], **more: Any) -> dict[str, Any]:
    """A manifest; inputs and outputs are `tensor(…)` documents."""
    signature = {"inputs": list(inputs), "outputs": list(outputs)}
    signature |= {key: more.pop(key) for key in ("batched", "max_batch") if key in more}
    return {"name": name, "version": version, "signature": signature, **more}


def tensor(name: str, dtype: DType | str, shape: Sequence[int], **more: Any) -> dict[str, Any]:
    """A tensor of a manifest's signature."""
    return {"name": name, "dtype": str(dtype), "shape": list(shape), **more}


def write_package(
    folder: Path,
    graph: bytes,
    manifest: Mapping[str, Any] | None = None,
    files: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Write `model.onnx`, `manifest.json` if there is one, and further files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def text_package(folder: Path, name: str = "texts", version: int = 1, **step: Any) -> Path:
    """A package that tokenizes the BYTES input `text` and gives ids and mask as `y`."""
    document = manifest(
        name,
        version,
        [tensor("text", DType.BYTES, [-1], content="text")],
        [tensor("y", DType.FP32, [-1, 2, -1])],
        preprocessing=[{"kind": "tokenize", "input": "text", **step}],
    )
    return write_package(folder, tokens_model(), document, {"tokenizer.json": tokenizer_json()})


def image_package(
    folder: Path, name: str = "images", version: int = 1, *, shape: Sequence[int] = (-1, 4), **step: Any
) -> Path:
    """A package whose `y` is the FP32 pixels of the image input `x`, by default 2×2 grey from 0 to 1."""
    document = manifest(
        name,
        version,
        [tensor("x", DType.FP32, shape, content="image")],
        [tensor("y", DType.FP32, shape)],
        preprocessing=[{"kind": "image", "input": "x", "width": 2, "height": 2, **step}],
    )
    graph = identity_model(DType.FP32, ["n", *[None if dim < 0 else dim for dim in shape[1:]]])
    return write_package(folder, graph, document)


def label_package(
    folder: Path, name: str = "labels", version: int = 1, classes: Sequence[str] = ("a", "b", "c")
) -> Path:
    """A package that gives the class name of the largest of three numbers as `label`, and them as `scores`."""
    document = manifest(
        name,
        version,
        [tensor("x", DType.FP32, [-1, 3], features=["f1", "f2", "f3"])],
        [tensor("label", DType.BYTES, [-1]), tensor("scores", DType.FP32, [-1, 3])],
        postprocessing=[{"kind": "label", "source": "class", "output": "label", "classes": list(classes)}],
        metrics={"accuracy": 1.0},
    )
    return write_package(folder, argmax_model(), document)
