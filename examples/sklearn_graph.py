"""Scikit-learn classifiers as ONNX files."""

from pathlib import Path
from typing import Any

from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

# What ONNX Runtime, and skl2onnx's converters for trees, have known for years.
_OPSETS = {"": 18, "ai.onnx.ml": 3}


def save_classifier(model: Any, path: Path, *, input_name: str, width: int) -> None:
    """Write a fitted classifier: FP32 [batch, width] → `label` INT64 [batch], `probabilities` FP32 [batch, classes]."""
    proto = to_onnx(
        model,
        initial_types=[(input_name, FloatTensorType([None, width]))],
        options={"zipmap": False},
        target_opset=_OPSETS,
    )
    proto.graph.name = input_name
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    # skl2onnx collects them in a set, whose order changes with every process.
    opsets = sorted(proto.opset_import, key=lambda opset: str(opset.domain))
    del proto.opset_import[:]
    proto.opset_import.extend(opsets)
    path.write_bytes(proto.SerializeToString(deterministic=True))
