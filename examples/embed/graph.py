"""The ONNX graph of a BERT sentence encoder, made from its weights alone.

Embeddings, encoder layers with exact GELU, mean over the tokens that the mask keeps, unit length: what
sentence-transformers computes for the modules Transformer, Pooling (mean) and Normalize. Only standard operators, so
that any ONNX runtime takes the file; they are laid out as ONNX Runtime's own optimizers look for them. Three separate
products for query, key and value were as fast as one joined product, and need no split.
Source: Devlin et al., "BERT", 2018; names of the tensors as in Hugging Face's BertModel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

Weights = Mapping[str, npt.NDArray[np.float32]]

OPSET = 20  # the first with Gelu
IR_VERSION = 10
_MASKED = np.float32(-10_000)  # added to a score: e^-10000 is 0, in half precision too
_INPUTS = ("input_ids", "attention_mask")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of `config.json` that shape the graph."""

    hidden: int
    layers: int
    heads: int
    epsilon: float

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "Architecture":
        """Read a `config.json`; ValueError for a model that this graph does not describe."""
        if (config["model_type"], config["hidden_act"]) != ("bert", "gelu"):
            raise ValueError(f"not a BERT with GELU: {config['model_type']}, {config['hidden_act']}")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError(f"positions are {config['position_embedding_type']}, not absolute")
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            epsilon=config["layer_norm_eps"],
        )


def encoder(architecture: Architecture, weights: Weights) -> bytes:
    """`model.onnx`: `input_ids`, `attention_mask` INT64 [batch, tokens] → `embedding` FP32 [batch, hidden].

    An embedding has unit length, and padding changes nothing in it. KeyError names a weight that is missing.
    """
    graph = _Graph(architecture, weights)
    x = graph.embeddings()
    bias = graph.attention_bias()
    for layer in range(architecture.layers):
        x = graph.layer(x, bias, layer)
    graph.pool(x)
    return graph.serialize()


class _Graph:
    """Nodes and constants, in the order in which they are made: the same weights give the same bytes."""

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self._sizes = architecture
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def embeddings(self) -> str:
        """Words + positions + the one token type there is, normalised: [batch, tokens, hidden]."""
        types = self._weights["embeddings.token_type_embeddings.weight"]
        positions = self._weights["embeddings.position_embeddings.weight"] + types[0]
        words = self._constant("words", self._weights["embeddings.word_embeddings.weight"])
        length = self._node("Shape", ["input_ids"], "length", start=1, end=2)
        start = self._constant("zero", np.array([0]))
        table = self._constant("positions", positions)
        kept = self._node("Slice", [table, start, length, start], "positions.kept")
        gathered = self._node("Gather", [words, "input_ids"], "words.gathered")
        return self._normalised(self._node("Add", [gathered, kept], "embedded"), "embeddings.LayerNorm")

    def attention_bias(self) -> str:
        """0 where the mask keeps a token, a large negative number where it does not: [batch, 1, 1, tokens]."""
        mask = self._node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        one = self._constant("one", np.float32(1))
        dropped = self._node("Sub", [one, mask], "mask.dropped")
        bias = self._node("Mul", [dropped, self._constant("masked", _MASKED)], "mask.bias")
        return self._node("Unsqueeze", [bias, self._constant("axes.1.2", np.array([1, 2]))], "attention_bias")

    def layer(self, x: str, bias: str, index: int) -> str:
        """One encoder layer: [batch, tokens, hidden] → the same."""
        prefix = f"encoder.layer.{index}"
        attended = self._attention(x, bias, f"{prefix}.attention.self")
        projected = self._dense(attended, f"{prefix}.attention.output.dense")
        residual = self._node("Add", [projected, x], f"{prefix}.attention.residual")
        x = self._normalised(residual, f"{prefix}.attention.output.LayerNorm")
        activated = self._node("Gelu", [self._dense(x, f"{prefix}.intermediate.dense")], f"{prefix}.gelu")
        projected = self._dense(activated, f"{prefix}.output.dense")
        residual = self._node("Add", [projected, x], f"{prefix}.residual")
        return self._normalised(residual, f"{prefix}.output.LayerNorm")

    def pool(self, x: str) -> None:
        """Mean over kept tokens, then unit length; dividing by their number would cancel out, so only sums are made."""
        axis = self._constant("axis.1", np.array([1]))
        row = self._node("Unsqueeze", ["mask", axis], "mask.row")
        total = self._node("Squeeze", [self._node("MatMul", [row, x], "pooled.row"), axis], "pooled")
        norm = self._node("ReduceL2", [total, axis], "norm", keepdims=1)
        safe = self._node("Max", [norm, self._constant("tiny", np.float32(1e-12))], "norm.safe")
        self._node("Div", [total, safe], "embedding")

    def serialize(self) -> bytes:
        """The model as bytes; the checker has passed it."""
        tokens = [helper.make_tensor_value_info(name, TensorProto.INT64, ("batch", "tokens")) for name in _INPUTS]
        rows = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("batch", self._sizes.hidden))
        graph = helper.make_graph(self._nodes, "sentence-encoder", tokens, [rows], list(self._constants.values()))
        model = helper.make_model(
            graph, producer_name="sluice", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _attention(self, x: str, bias: str, prefix: str) -> str:
        query = self._split_heads(self._dense(x, f"{prefix}.query"), (0, 2, 1, 3))
        key = self._split_heads(self._dense(x, f"{prefix}.key"), (0, 2, 3, 1))
        value = self._split_heads(self._dense(x, f"{prefix}.value"), (0, 2, 1, 3))
        size = self._sizes.hidden // self._sizes.heads
        product = self._node("MatMul", [query, key], f"{prefix}.product")
        root = self._constant("root", np.float32(math.sqrt(size)))
        scores = self._node("Div", [product, root], f"{prefix}.scores")
        biased = self._node("Add", [scores, bias], f"{prefix}.biased")
        shares = self._node("Softmax", [biased], f"{prefix}.shares", axis=-1)
        mixed = self._node("MatMul", [shares, value], f"{prefix}.mixed")
        ordered = self._node("Transpose", [mixed], f"{prefix}.ordered", perm=(0, 2, 1, 3))
        joined = self._constant("shape.joined", np.array([0, 0, self._sizes.hidden]))
        return self._node("Reshape", [ordered, joined], f"{prefix}.context")

    def _split_heads(self, x: str, order: tuple[int, ...]) -> str:
        heads = self._sizes.heads
        shape = self._constant("shape.heads", np.array([0, 0, heads, self._sizes.hidden // heads]))
        return self._node("Transpose", [self._node("Reshape", [x, shape], f"{x}.heads")], f"{x}.ordered", perm=order)

    def _dense(self, x: str, prefix: str) -> str:
        """PyTorch keeps [out, in]; MatMul takes [in, out]."""
        weight = self._constant(f"{prefix}.weight", self._weights[f"{prefix}.weight"].T)
        bias = self._constant(f"{prefix}.bias", self._weights[f"{prefix}.bias"])
        return self._node("Add", [self._node("MatMul", [x, weight], f"{prefix}.product"), bias], prefix)

    def _normalised(self, x: str, prefix: str) -> str:
        scale = self._constant(f"{prefix}.weight", self._weights[f"{prefix}.weight"])
        bias = self._constant(f"{prefix}.bias", self._weights[f"{prefix}.bias"])
        return self._node("LayerNormalization", [x, scale, bias], prefix, axis=-1, epsilon=self._sizes.epsilon)

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name
