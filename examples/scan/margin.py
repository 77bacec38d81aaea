"""The second step of the example pipeline: how far the best of ten probabilities is ahead of the next one."""

import sys
from pathlib import Path

from onnx import TensorProto, checker, helper

OPSET = 21
IR_VERSION = 10


def graph() -> bytes:
    """`probabilities` FP32 [batch, 10] → `margin` FP32 [batch], from 0 (a tie) to 1."""
    nodes = [
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
        helper.make_node("Constant", [], ["last"], value_ints=[1]),
        helper.make_node("TopK", ["probabilities", "two"], ["best", "places"], axis=1),
        helper.make_node("Split", ["best"], ["first", "second"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["first", "second"], ["ahead"]),
        helper.make_node("Squeeze", ["ahead", "last"], ["margin"]),
    ]
    taken = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])
    given = helper.make_tensor_value_info("margin", TensorProto.FLOAT, ["batch"])
    made = helper.make_model(
        helper.make_graph(nodes, "margin", [taken], [given]),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(graph())
