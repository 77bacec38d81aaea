"""Packages: manifest and graph must agree, and what comes out is what the graph computed."""

import json
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import RunOptions

from shared.adapters.onnx.execution import RunTerminated
from shared.adapters.onnx.package import OnnxPackage
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, InvalidPackage, InvalidRequest, WrongDtype
from shared.domain.tensors import NUMPY_DTYPES, Array, bytes_tensor
from shared.domain.validation import conform
from tests.models import (
    add_model,
    argmax_model,
    biased_model,
    gather_model,
    identity_model,
    image_package,
    label_package,
    manifest,
    model,
    slow_model,
    sum_model,
    tensor,
    text_package,
    tokens_model,
    value,
    write_package,
)


def load(folder: Path) -> OnnxPackage:
    return OnnxPackage.load(folder, threads=1)


def sample(dtype: DType) -> Array:
    if dtype is DType.BYTES:
        return np.array([[b"a", "ä".encode()], [b"", b"nul\0inside"]], dtype=np.object_)
    if dtype is DType.BOOL:
        return np.array([[True, False], [False, True]])
    if dtype in (DType.FP16, DType.FP32, DType.FP64):
        return np.array([[1.5, -0.0], [np.nan, np.inf]], dtype=NUMPY_DTYPES[dtype])
    limits = np.iinfo(str(NUMPY_DTYPES[dtype]))
    return np.array([[limits.min, limits.max], [1, 2]], dtype=NUMPY_DTYPES[dtype])


@pytest.mark.parametrize("dtype", list(DType))
def test_values_of_every_dtype_come_back_exactly(tmp_path: Path, dtype: DType) -> None:
    package = load(write_package(tmp_path / "m/1", identity_model(dtype)))
    given = sample(dtype)
    (result,) = package.run({"x": given}).values()
    assert result.dtype == given.dtype
    np.testing.assert_array_equal(result, given)


def test_no_rows_and_a_transposed_tensor(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", identity_model()))
    given = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(package.run({"x": given})["y"], given)


def test_foreign_byte_order_is_not_misread(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", identity_model()))
    np.testing.assert_array_equal(package.run({"x": np.array([[1, 2]], dtype=">f4")})["y"], [[1, 2]])


def test_scalars(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", identity_model(DType.INT64, [])))
    assert not package.signature.batched
    assert package.run({"x": np.array(7)})["y"].shape == ()


def test_bare_model_is_named_after_its_folder(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "plus-one" / "3", add_model()))
    assert (package.manifest.name, package.manifest.version) == ("plus-one", 3)
    np.testing.assert_array_equal(package.run({"x": np.zeros((2, 2), np.float32)})["y"], np.ones((2, 2)))


def test_bare_model_takes_a_given_name(tmp_path: Path) -> None:
    folder = write_package(tmp_path, add_model())
    package = OnnxPackage.load(folder, threads=1, name="given", version=9)
    assert (package.manifest.name, package.manifest.version) == ("given", 9)


@pytest.mark.parametrize("folder", ["m/0", "m/latest", "m/-1"])
def test_bare_model_in_a_folder_without_a_name(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InvalidPackage):
        load(write_package(tmp_path / folder, add_model()))


def test_only_the_wanted_outputs_are_given(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", sum_model()))
    ones = np.ones((1, 3), np.float32)
    assert list(package.run({"a": ones, "b": ones})) == ["total", "difference"]
    assert list(package.run({"a": ones, "b": ones}, ["difference"])) == ["difference"]


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", biased_model()))
    x = np.zeros((3, 2), np.float32)
    np.testing.assert_array_equal(package.run({"x": x})["y"], np.ones((3, 2)))
    np.testing.assert_array_equal(package.run({"x": x, "bias": np.array([5, 7], np.float32)})["y"], [[5, 7]] * 3)
    bodies: list[dict[str, Any]] = [
        {"instances": [[0, 0]]},
        {"instances": [{"x": [0, 0]}]},
        {"inputs": {"x": [[0, 0]], "bias": [1, 1]}},
    ]
    for body in bodies:
        inputs = conform(decode_instances(orjson.dumps(body), package.signature, JsonLimits()), package.signature)
        np.testing.assert_array_equal(package.run(inputs)["y"], [[1, 1]])


def test_an_optional_input_needs_a_value_in_the_graph(tmp_path: Path) -> None:
    document = changed(inputs=[tensor("x", "FP32", [-1, 2]), tensor("amount", "FP32", [], optional=True)])
    with pytest.raises(InvalidPackage, match="no input 'amount'"):
        load(write_package(tmp_path / "a/1", add_model(), document))
    both = [tensor("a", "FP32", [-1, -1]), tensor("b", "FP32", [-1, -1], optional=True)]
    document = changed(inputs=both, outputs=[tensor("total", "FP32", [-1, -1])])
    with pytest.raises(InvalidPackage, match="no value for 'b'"):
        load(write_package(tmp_path / "b/1", sum_model(), document))
    document = changed(inputs=[tensor("bias", "FP32", [2], optional=True)])
    with pytest.raises(InvalidPackage, match="not optional"):
        load(write_package(tmp_path / "c/1", biased_model(), document))


def test_outputs_that_are_not_finite_are_given_as_they_are(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", identity_model()))
    given = np.array([[np.nan, np.inf]], np.float32)
    np.testing.assert_array_equal(package.run({"x": given})["y"], given)


@pytest.mark.parametrize("dtype", list(DType))
def test_a_dimension_of_zero(tmp_path: Path, dtype: DType) -> None:
    package = load(write_package(tmp_path / "m/1", identity_model(dtype, ["n", None])))
    empty = np.zeros((2, 0), NUMPY_DTYPES[dtype])
    result = package.run({"x": empty})["y"]
    assert (result.shape, result.dtype) == ((2, 0), empty.dtype)


def test_a_run_can_be_stopped(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", slow_model()))
    options = RunOptions()
    options.log_severity_level = 4
    Timer(0.1, setattr, (options, "terminate", True)).start()
    with pytest.raises(RunTerminated):
        package.run({"x": np.full((1, 1), 1e8, np.float32)}, options=options)
    assert package.run({"x": np.full((1, 1), 3, np.float32)})["y"] == 6


def counting_model() -> bytes:
    """`y = x + sum`, `sum_out = sum + x`: what went in before is the state; FP32 [n, 1], the state [1, n, 1]."""
    return model(
        [
            helper.make_node("Unsqueeze", ["x", "zero"], ["x_up"]),
            helper.make_node("Add", ["x_up", "sum"], ["sum_out"]),
            helper.make_node("Squeeze", ["sum_out", "zero"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["n", 1]), value("sum", TensorProto.FLOAT, [1, "n", 1])],
        [value("y", TensorProto.FLOAT, ["n", 1]), value("sum_out", TensorProto.FLOAT, [1, "n", 1])],
        [numpy_helper.from_array(np.array([0], dtype=np.int64), "zero")],
    )


def counting(**state: Any) -> dict[str, Any]:
    document = manifest("m", 1, [tensor("x", "FP32", [-1, 1])], [tensor("y", "FP32", [-1, 1])])
    state = {"input": "sum", "output": "sum_out", "dtype": "FP32", "shape": [1, -1, 1]} | state
    return document | {"serving": {"state": [state]}}


def test_state_begins_with_zeros_and_goes_from_run_to_run(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", counting_model(), counting()))
    x = np.array([[1], [2]], np.float32)
    assert list(package.run({"x": x})) == ["y"]
    first = package.run({"x": x}, ("y", "sum_out"))
    second = package.run({"x": x, "sum": first["sum_out"]}, ("y", "sum_out"))
    np.testing.assert_array_equal(first["y"], [[1], [2]])
    np.testing.assert_array_equal(second["y"], [[2], [4]])
    assert package.warm_up()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"input": "total"}, "no input 'total'"),
        ({"output": "total"}, "no output 'total'"),
        ({"dtype": "INT64"}, "'sum' is INT64"),
        ({"shape": [-1, 1]}, r"'sum' is FP32 \[-1, 1\]"),
    ],
)
def test_state_that_the_graph_does_not_have(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPackage, match=message):
        load(write_package(tmp_path / "m/1", counting_model(), counting(**state)))


def test_labels_are_names(tmp_path: Path) -> None:
    package = load(label_package(tmp_path / "m/1"))
    result = package.run({"x": np.eye(3, dtype=np.float32)[::-1].copy()})
    assert result["label"].tolist() == [b"c", b"b", b"a"]
    assert package.warm_up()


def test_class_without_a_name_is_a_fault_of_the_model(tmp_path: Path) -> None:
    package = load(label_package(tmp_path / "m/1", classes=["only", "two"]))
    with pytest.raises(BackendError, match="outside of its 2 classes"):
        package.run({"x": np.eye(3, dtype=np.float32)})


def test_values_that_the_graph_refuses(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", sum_model()))
    with pytest.raises((InvalidRequest, BackendError)) as caught:
        package.run({"a": np.ones((1, 3), np.float32), "b": np.ones((1, 4), np.float32)})
    assert "onnx" not in caught.value.detail.lower()
    package = load(write_package(tmp_path / "g/1", gather_model()))
    with pytest.raises(InvalidRequest):
        package.run({"x": np.array([99])})


def test_output_with_another_number_of_rows_is_never_returned(tmp_path: Path) -> None:
    document = manifest("m", 1, [tensor("x", "FP32", [-1, 2])], [tensor("y", "FP32", [-1, 2])], batched=True)
    graph = model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("y", TensorProto.FLOAT, ["m", 2])],
    )
    package = load(write_package(tmp_path / "m/1", graph, document))
    with pytest.raises(BackendError, match="answered 1 rows"):
        package.run({"x": np.ones((1, 2), np.float32)})


def test_text_is_tokenized_and_padded_to_the_longest(tmp_path: Path) -> None:
    package = load(text_package(tmp_path / "m/1"))
    (ids, mask) = package.run({"text": bytes_tensor([b"one", b"one two three", b"what"])})["y"].transpose(1, 0, 2)
    assert ids.tolist() == [[1, 4, 2, 0, 0], [1, 4, 5, 6, 2], [1, 3, 2, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_text_is_truncated(tmp_path: Path) -> None:
    package = load(text_package(tmp_path / "m/1", max_tokens=4))
    assert package.run({"text": bytes_tensor([b"one two three"])})["y"][0, 0].tolist() == [1, 4, 5, 2]


def test_text_that_is_not_utf8_names_its_row(tmp_path: Path) -> None:
    package = load(text_package(tmp_path / "m/1"))
    with pytest.raises(WrongDtype) as caught:
        package.run({"text": bytes_tensor([b"one", b"\xff\xfe"])})
    assert caught.value.fields[0].pointer == "/instances/1"
    package = load(write_package(tmp_path / "s/1", identity_model(DType.BYTES, ["n"])))
    with pytest.raises(WrongDtype):
        package.run({"x": bytes_tensor([b"\xff"])})


def test_the_same_text_alone_and_in_a_batch(tmp_path: Path) -> None:
    package = load(text_package(tmp_path / "m/1"))
    alone = package.run({"text": bytes_tensor([b"two"])})["y"]
    together = package.run({"text": bytes_tensor([b"one two three", b"two"])})["y"]
    np.testing.assert_array_equal(together[1, :, : alone.shape[-1]], alone[0])


def changed(**changes: Any) -> dict[str, Any]:
    document = manifest("m", 1, [tensor("x", "FP32", [-1, 2])], [tensor("y", "FP32", [-1, 2])])
    document["signature"] |= {key: changes.pop(key) for key in ("inputs", "outputs", "batched") if key in changes}
    return document | changes


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(inputs=[tensor("z", "FP32", [-1, 2])]), "no input 'z'; it has x"),
        (changed(inputs=[tensor("x", "FP64", [-1, 2])]), "FP64 in the manifest"),
        (changed(inputs=[tensor("x", "FP32", [-1, 3])]), r"shape \[-1, 3\] in the manifest"),
        (changed(inputs=[tensor("x", "FP32", [-1, 2, 1])]), r"shape \[-1, 2, 1\] in the manifest"),
        (changed(inputs=[tensor("x", "FP32", [1, 2])]), "first axis of 'x' must be -1"),
        (changed(inputs=[tensor("x", "FP32", [-1, 2])] * 2), "twice"),
        (changed(inputs=[tensor("x", "FP32", [-1, 2], content="image")]), "no image step"),
        (changed(outputs=[tensor("nothing", "FP32", [-1, 2])]), "no output 'nothing'"),
        (changed(outputs=[tensor("y", "INT64", [-1, 2])]), "INT64 in the manifest"),
        (changed(outputs=[]), "outputs"),
        (changed(version=0), "version"),
        (changed(name="Not A Name"), "name"),
        (changed(unheard_of=1), "unheard_of"),
        (
            changed(preprocessing=[{"kind": "image", "input": "x", "width": 1, "height": 1}]),
            "not declared to be an image",
        ),
        (changed(preprocessing=[{"kind": "tokenize", "input": "x"}]), "must be BYTES"),
        (changed(postprocessing=[{"kind": "label", "source": "y", "output": "y", "classes": ["a"]}] * 2), "y twice"),
        (changed(preprocessing=[{"kind": "pickle", "input": "x"}]), "preprocessing"),
        (changed(postprocessing=[{"kind": "label", "source": "y", "output": "y", "classes": ["a"]}]), "class indices"),
        (changed(example={"wrong": 1}), "cannot predict the example"),
    ],
)
def test_a_manifest_that_does_not_fit_its_graph(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    folder = write_package(tmp_path / "m/1", add_model(), document)
    with pytest.raises(InvalidPackage, match=message):
        load(folder).warm_up()


def test_graph_with_a_fixed_batch_takes_no_batches(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "m/1", identity_model(DType.FP32, [1, 2]), changed())
    with pytest.raises(InvalidPackage, match="takes no batches"):
        load(folder)


def test_graph_input_that_nothing_feeds(tmp_path: Path) -> None:
    document = manifest("m", 1, [tensor("a", "FP32", [-1, -1])], [tensor("total", "FP32", [-1, -1])])
    with pytest.raises(InvalidPackage, match="Nothing feeds the graph's input b"):
        load(write_package(tmp_path / "m/1", sum_model(), document))


def test_token_tensors_must_be_in_the_graph(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="no input 'types'"):
        load(text_package(tmp_path / "m/1", token_type_ids="types"))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "None"}}'])
def test_a_broken_tokenizer(tmp_path: Path, content: str) -> None:
    folder = text_package(tmp_path / "m/1")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidPackage, match=r"tokenizer\.json cannot be used"):
        load(folder)


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    folder = text_package(tmp_path / "m/1")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidPackage, match=r"tokenizer\.json"):
        load(folder)


def test_an_image_that_cannot_fill_the_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="does not fill"):
        load(image_package(tmp_path / "m/1", width=3))


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"name": 1}'])
def test_a_broken_manifest(tmp_path: Path, content: str) -> None:
    folder = write_package(tmp_path / "m/1", add_model())
    (folder / "manifest.json").write_text(content)
    with pytest.raises(InvalidPackage, match=r"manifest\.json"):
        load(folder)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match=r"no model\.onnx"):
        load(tmp_path)


def test_warm_up_on_the_example_and_without_one(tmp_path: Path) -> None:
    assert load(write_package(tmp_path / "a/1", add_model(), changed(example=[1, 2]))).warm_up()
    assert load(write_package(tmp_path / "b/1", add_model())).warm_up()
    assert load(text_package(tmp_path / "c/1")).warm_up()
    assert load(write_package(tmp_path / "d/1", argmax_model())).warm_up()


def test_what_the_tokens_model_takes_is_read_without_a_manifest(tmp_path: Path) -> None:
    package = load(write_package(tmp_path / "m/1", tokens_model()))
    assert [spec.name for spec in package.signature.inputs] == ["input_ids", "attention_mask"]
    assert json.loads(package.manifest.model_dump_json())["signature"]["batched"] is True


@pytest.mark.parametrize(
    ("promised", "message"),
    [
        (tensor("scores", DType.FP32, [-1, 4]), r"shape \[2, 3\]"),
        (tensor("scores", DType.FP32, [-1, -1], classes=["a", "b"]), "3 values for the 2 classes"),
    ],
)
def test_outputs_that_the_manifest_does_not_promise_are_never_given(
    tmp_path: Path, promised: dict[str, Any], message: str
) -> None:
    document = manifest("liar", 1, [tensor("x", DType.FP32, [-1, -1])], [promised])
    package = load(write_package(tmp_path / "liar/1", wide_scores(), document))
    with pytest.raises(BackendError, match=message):
        package.run({"x": np.ones((2, 3), dtype=np.float32)})


def wide_scores() -> bytes:
    """`x` FP32 [rows, any] → `scores` of the same shape: the graph alone does not tell how wide."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "width"]) for name in ("x", "scores"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["scores"])], "wide", [x], [y])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    )


def test_a_bare_model_is_served_under_whatever_name_its_folder_has(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "ResNet50 (v2).tar.gz/3", add_model())
    package = OnnxPackage.load(folder, threads=1)
    assert (package.manifest.name, package.manifest.version) == ("ResNet50 (v2).tar.gz", 3)
