"""Tiny models that fit together, and the pipeline of them: shift → classify → shift the scores back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from shared.domain.dtypes import DType
from tests.models import add_model, label_package, manifest, model, tensor, text_package, value, write_package

NAMES = ["f1", "f2", "f3"]


def shift_package(folder: Path, name: str, amount: float, *, version: int = 1, **more: Any) -> Path:
    """`y = x + amount`; FP32 [n, 3]."""
    spec = {"features": NAMES, "minimum": -100, "maximum": 100}
    inputs = [tensor("x", DType.FP32, [-1, 3], **spec)]
    document = manifest(name, version, inputs, [tensor("y", DType.FP32, [-1, 3], classes=NAMES)], **more)
    return write_package(folder, add_model(amount, 3), document)


def pool_model() -> bytes:
    """`pooled = max(y)` over the last axis; FP32 [n, 2, t] → [n, 2]."""
    return model(
        [
            helper.make_node("Constant", [], ["axes"], value_ints=[2]),
            helper.make_node("ReduceMax", ["y", "axes"], ["pooled"], keepdims=0),
        ],
        [value("y", TensorProto.FLOAT, ["n", 2, "t"])],
        [value("pooled", TensorProto.FLOAT, ["n", 2])],
    )


def step(model: str, inputs: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A step of a manifest's pipeline."""
    return {"model": model, "version": 1, "inputs": dict(inputs), **more}


def pipeline_document(
    steps: list[dict[str, Any]], outputs: Mapping[str, str], name: str = "flow", version: int = 1, **more: Any
) -> dict[str, Any]:
    """A manifest with a pipeline and, unless it is given, without a signature."""
    return {"name": name, "version": version, "pipeline": {"steps": steps, "outputs": dict(outputs)}, **more}


def flow_document(**more: Any) -> dict[str, Any]:
    """`values` → pre → labels → post: the class of the largest of three numbers, and they themselves plus 11."""
    steps = [
        step("pre", {"x": "values"}),
        step("labels", {"x": "pre.y"}),
        step("post", {"x": "labels.scores"}),
    ]
    return pipeline_document(steps, {"label": "labels.label", "shifted": "post.y"}, **more)


def write_pipeline(folder: Path, document: Mapping[str, Any]) -> Path:
    """A package with nothing but a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def write_steps(folder: Path, **more: Any) -> None:
    """The models `pre` (plus 1), `labels` and `post` (plus 10), in version folders."""
    shift_package(folder / "pre/1", "pre", 1, **more)
    label_package(folder / "labels/1")
    shift_package(folder / "post/1", "post", 10, **more)


def write_text_flow(folder: Path) -> None:
    """`words`: text → tokens → the largest id and mask of each text."""
    text_package(folder / "texts/1")
    inputs = [tensor("y", DType.FP32, [-1, 2, -1])]
    pool = manifest("pool", 1, inputs, [tensor("pooled", DType.FP32, [-1, 2])])
    write_package(folder / "pool/1", pool_model(), pool)
    steps = [step("texts", {"text": "text"}), step("pool", {"y": "texts.y"})]
    write_pipeline(folder / "words/1", pipeline_document(steps, {"pooled": "pool.pooled"}, name="words"))
