"""Signatures of bare graphs, read from real ONNX Runtime sessions."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.adapters.onnx.graph import signature_of
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidPackage
from shared.domain.signature import Signature
from tests.models import Shape, add_model, biased_model, gather_model, identity_model, model, sum_model, value


def read(tmp_path: Path, graph: bytes) -> Signature:
    (tmp_path / "model.onnx").write_bytes(graph)
    return signature_of(tmp_path / "model.onnx")


@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_is_read(tmp_path: Path, dtype: DType) -> None:
    signature = read(tmp_path, identity_model(dtype, ["n", 3, None]))
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs] == [("x", dtype, (None, 3, None))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.outputs] == [("y", dtype, (None, 3, None))]
    assert signature.batched


@pytest.mark.parametrize(
    ("shape", "batched"),
    [(["n", 2], True), ([None, 2], True), ([1, 2], False), ([], False), ([None], True), ([4], False)],
)
def test_batched_means_a_first_axis_of_any_size(tmp_path: Path, shape: Shape, batched: bool) -> None:
    assert read(tmp_path, identity_model(DType.FP32, shape)).batched is batched


def test_several_inputs_keep_their_order(tmp_path: Path) -> None:
    signature = read(tmp_path, sum_model())
    assert [spec.name for spec in signature.inputs] == ["a", "b"]
    assert signature.output_names == ("total", "difference")
    assert signature.batched


def test_input_with_an_initializer_is_optional(tmp_path: Path) -> None:
    signature = read(tmp_path, biased_model())
    assert [(spec.name, spec.optional, spec.shape) for spec in signature.inputs] == [
        ("x", False, (None, 2)),
        ("bias", True, (2,)),
    ]
    assert signature.batched


def test_weights_that_an_exporter_listed_as_inputs_are_left_out(tmp_path: Path) -> None:
    names = [f"w{number}" for number in range(20)]
    sums = ["x", *(f"s{number}" for number in range(19)), "y"]
    graph = model(
        [helper.make_node("Add", [sums[at], name], [sums[at + 1]]) for at, name in enumerate(names)],
        [value("x", TensorProto.FLOAT, ["n", 2]), *(value(name, TensorProto.FLOAT, [2]) for name in names)],
        [value("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones(2, dtype=np.float32), name) for name in names],
    )
    assert [spec.name for spec in read(tmp_path, graph).inputs] == ["x"]


def test_rows_that_the_output_does_not_follow_are_no_batch(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("NonZero", ["x"], ["found"])],
        [value("x", TensorProto.FLOAT, [None])],
        [value("found", TensorProto.INT64, [None, None])],
    )
    assert not read(tmp_path, graph).batched


def test_inputs_with_different_symbols_are_no_batch(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [value("a", TensorProto.FLOAT, ["n", 3]), value("b", TensorProto.FLOAT, ["m", 3, 2])],
        [value("y", TensorProto.FLOAT, ["m", "n", 2])],
    )
    assert not read(tmp_path, graph).batched


def test_symbols_that_an_exporter_made_up_are_found_out(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("Softmax", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 3])],
        [value("y", TensorProto.FLOAT, ["Softmaxy_dim_0", 3])],
    )
    assert read(tmp_path, graph).batched


def test_an_output_of_unknown_rank_is_measured(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", TensorProto.FLOAT, [None, 4]), value("shape", TensorProto.INT64, [3])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([-1, 2, 2], dtype=np.int64), "shape")],
    )
    signature = read(tmp_path, graph)
    assert signature.batched
    assert len(signature.outputs[0].shape) == 3


def test_gather_of_one_axis_is_batched(tmp_path: Path) -> None:
    assert read(tmp_path, gather_model()).batched


def test_what_is_no_tensor_is_refused_by_name(tmp_path: Path) -> None:
    elements = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])
    output = helper.make_value_info("y", helper.make_sequence_type_proto(elements))
    graph = model(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])], [value("x", TensorProto.FLOAT, ["n", 2])], [output]
    )
    with pytest.raises(InvalidPackage, match=r"'y' is a seq\(tensor\(float\)\)"):
        read(tmp_path, graph)


def test_dtype_without_a_name_in_the_protocol_is_refused(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT8E4M3FN, ["n"])],
        [value("y", TensorProto.FLOAT8E4M3FN, ["n"])],
    )
    with pytest.raises(InvalidPackage, match="float8e4m3fn"):
        read(tmp_path, graph)


def test_graph_without_inputs_is_refused(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.ones(1, dtype=np.float32), "value")
    graph = model([helper.make_node("Constant", [], ["y"], value=constant)], [], [value("y", TensorProto.FLOAT, [1])])
    with pytest.raises(InvalidPackage, match="at least one input"):
        read(tmp_path, graph)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", add_model()[:40]])
def test_what_is_no_graph_is_refused_without_folders(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidPackage) as caught:
        read(tmp_path, content)
    assert str(tmp_path) not in caught.value.detail
    assert caught.value.detail.startswith("model.onnx cannot be loaded")
