"""The protocol's descriptions of a server and its models."""

import tomllib

from shared.codecs.v2_metadata import dims, model_metadata, server_metadata
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.version import VERSION
from tests.conftest import ROOT


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_a_server_names_its_extensions() -> None:
    assert server_metadata(("binary_tensor_data", "trace")) == {
        "name": "sluice",
        "version": VERSION,
        "extensions": ["binary_tensor_data", "trace"],
    }


def test_a_model_has_its_outer_tensors_and_versions_by_number() -> None:
    signature = Signature(
        inputs=(
            TensorSpec("text", DType.BYTES, (None,)),
            TensorSpec("k", DType.INT64, (1,), optional=True),
        ),
        outputs=(TensorSpec("half", DType.FP16, (None, 2, None)), TensorSpec("one", DType.BOOL, ())),
    )
    assert model_metadata("m", [10, 2, 1], signature) == {
        "name": "m",
        "versions": ["1", "2", "10"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "k", "datatype": "INT64", "shape": [1]},
        ],
        "outputs": [
            {"name": "half", "datatype": "FP16", "shape": [-1, 2, -1]},
            {"name": "one", "datatype": "BOOL", "shape": []},
        ],
    }


def test_every_datatype_is_the_protocol_s() -> None:
    # Source: Open Inference Protocol, "Tensor Data Types"; BF16 as Triton adds it.
    numbers = {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)}
    assert {dtype.value for dtype in DType} == numbers | {"BOOL", "FP16", "FP32", "FP64", "BYTES", "BF16"}


def test_unknown_dimensions_are_minus_one() -> None:
    assert dims((None, 0, 3)) == [-1, 0, 3]
