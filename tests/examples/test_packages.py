"""What holds for every example package."""

import json
from io import BytesIO

import numpy as np
import onnx
import pytest
from PIL import Image

from examples.catalogue import ROOT, TOOLS
from examples.payloads import payloads
from shared.adapters.onnx.reader import OnnxPackageReader
from shared.domain.dtypes import DType
from shared.schemas.manifest import TokenizeStep
from tests.examples.conftest import Folder, Load, answer

EXAMPLES = ROOT / "examples"
DTYPES = {"FLOAT": DType.FP32, "INT64": DType.INT64}
every_example = pytest.mark.parametrize("name", TOOLS)


def described(value: onnx.ValueInfoProto) -> tuple[DType, tuple[int, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return DTYPES[onnx.TensorProto.DataType.Name(tensor.elem_type)], shape


@every_example
def test_manifest_and_graph_agree(name: str, folder: Folder, load: Load) -> None:
    manifest = load(name).manifest
    graph = onnx.load(folder(name) / "model.onnx").graph
    taken = {value.name: described(value) for value in graph.input}
    given = {value.name: described(value) for value in graph.output}
    for step in manifest.preprocessing:
        if isinstance(step, TokenizeStep):
            for token_input in (step.input_ids, step.attention_mask):
                assert taken.pop(str(token_input)) == (DType.INT64, (-1, -1))
            taken[step.input] = (DType.BYTES, (-1,))
    for label in manifest.postprocessing:
        dtype, shape = given.pop(label.source)
        assert dtype is DType.INT64
        given[label.output] = (DType.BYTES, shape)
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.signature.inputs} == taken
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.signature.outputs} == given


@every_example
def test_only_standard_operators_and_nothing_of_this_machine(name: str, folder: Folder) -> None:
    model = onnx.load(folder(name) / "model.onnx")
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx.ml"}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx.ml"}
    assert not model.metadata_props
    assert not model.doc_string
    assert str(ROOT) not in (folder(name) / "manifest.json").read_text()


@every_example
def test_a_manifest_tells_where_the_model_comes_from(name: str, folder: Folder) -> None:
    described = OnnxPackageReader().describe(folder(name))
    assert (described.model, described.version) == (name, 1)
    assert described.placement.value == ("container" if name == "embed" else "function")
    for field in ("description", "metrics", "author", "licence", "stage", "example"):
        assert described.metadata[field], field
    assert {"name", "source", "licence", "rows", "split"} <= described.metadata["data"].keys()
    assert set(TOOLS[name]) == described.metadata["lineage"]["tools"].keys()


def test_the_committed_payloads_are_those_of_the_script() -> None:
    for path, content in payloads().items():
        committed = (EXAMPLES / path).read_bytes()
        if path.endswith(".png"):  # the bytes depend on the version of zlib, the pixels do not
            assert Image.open(BytesIO(committed)).tobytes() == Image.open(BytesIO(content)).tobytes()
        elif path != "digits/image-request.json":
            assert committed == content


def test_the_committed_payloads_get_the_answers_that_they_should(load: Load) -> None:
    named, rows = (
        answer(load("tumor"), (EXAMPLES / "tumor" / file).read_bytes())
        for file in ("request.json", "rows-request.json")
    )
    assert named["label"].tolist() == rows["label"].tolist() == [b"malignant", b"benign"]
    for file in ("request.json", "image-request.json"):
        assert answer(load("digits"), (EXAMPLES / "digits" / file).read_bytes())["label"].tolist() == [3]
    first, second = answer(load("embed"), (EXAMPLES / "embed" / "request.json").read_bytes())["embedding"]
    assert np.dot(first, second) == pytest.approx(0.7553, abs=1e-4)


@every_example
def test_request_bodies_are_json_objects_of_instances(name: str) -> None:
    for path in (EXAMPLES / name).glob("*request.json"):
        assert list(json.loads(path.read_text())) == ["instances"]
