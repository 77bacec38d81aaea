"""PublishModel with pipelines: what is refused, with the step and the field; what is stored."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.onnx.reader import OnnxPackageReader
from shared.adapters.pipeline_package import PipelinePackageReader
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidPackage, ModelNotFound, VersionConflict
from shared.domain.model import Placement
from shared.domain.pipeline import Source
from shared.domain.signature import Content
from shared.usecases.publish_model import Published, PublishModel
from tests.fakes import InMemoryModels, InMemoryPackages
from tests.models import (
    biased_model,
    identity_model,
    manifest,
    sum_model,
    tensor,
    text_package,
    write_package,
)
from tests.pipelines import (
    NAMES,
    flow_document,
    pipeline_document,
    shift_package,
    step,
    write_pipeline,
    write_steps,
)


@dataclass
class House:
    folder: Path
    models: InMemoryModels = field(default_factory=InMemoryModels)
    packages: InMemoryPackages = field(default_factory=InMemoryPackages)

    def publish(self, folder: Path) -> Published:
        return PublishModel(self.models, self.packages, OnnxPackageReader(), pipelines=PipelinePackageReader())(folder)

    def compose(self, document: dict[str, Any]) -> Published:
        return self.publish(write_pipeline(self.folder / "pipeline", document))


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model that the pipelines here are made of."""
    folder = tmp_path_factory.mktemp("steps")
    write_steps(folder)
    shift_package(folder / "heavy/1", "heavy", 1, placement="container")
    shift_package(folder / "small/1", "small", 1, max_batch=4)
    text_package(folder / "texts/1")
    flat = [tensor("x", DType.FP32, [-1, 4], layouts=[[2, 2]])], [tensor("y", DType.FP32, [-1, 4])]
    write_package(folder / "four/1", identity_model(DType.FP32, ["n", 4]), manifest("four", 1, *flat))
    square = [tensor("x", DType.FP32, [-1, 2, 2])], [tensor("y", DType.FP32, [-1, 2, 2])]
    write_package(folder / "square/1", identity_model(DType.FP32, ["n", 2, 2]), manifest("square", 1, *square))
    whole = [tensor("x", DType.INT64, [-1])], [tensor("y", DType.INT64, [-1])]
    write_package(folder / "whole/1", identity_model(DType.INT64, ["n"]), manifest("whole", 1, *whole))
    single = [tensor("x", DType.FP32, [1, 3])], [tensor("y", DType.FP32, [1, 3])]
    single_document = manifest("single", 1, *single, batched=False)
    write_package(folder / "single/1", identity_model(DType.FP32, [1, 3]), single_document)
    two = [tensor(name, DType.FP32, [-1, -1]) for name in ("a", "b")]
    both = [tensor(name, DType.FP32, [-1, -1]) for name in ("total", "difference")]
    write_package(folder / "sum/1", sum_model(), manifest("sum", 1, two, both))
    biased = [tensor("x", DType.FP32, [-1, 2]), tensor("bias", DType.FP32, [2], optional=True)]
    write_package(
        folder / "biased/1", biased_model(), manifest("biased", 1, biased, [tensor("y", DType.FP32, [-1, 2])])
    )
    other = [tensor("x", DType.FP32, [-1, 3], features=["a", "b", "c"], minimum=-5, maximum=200)]
    write_package(
        folder / "other/1",
        identity_model(DType.FP32, ["n", 3]),
        manifest("other", 1, other, [tensor("y", DType.FP32, [-1, 3])]),
    )
    far = [tensor("x", DType.FP32, [-1, 3], features=NAMES, minimum=101)]
    far_document = manifest("far", 1, far, [tensor("y", DType.FP32, [-1, 3])])
    write_package(folder / "far/1", identity_model(DType.FP32, ["n", 3]), far_document)
    return folder


@pytest.fixture(scope="module")
def published(steps: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("house"))
    for package in sorted(steps.glob("*/1")):
        house.publish(package)
    return house


@pytest.fixture
def house(published: House, tmp_path: Path) -> House:
    """All steps published; what a test adds goes no further."""
    models = InMemoryModels()
    for summary in published.models.models():
        models.add(summary)
    packages = InMemoryPackages()
    packages.objects.update(published.packages.objects)
    return House(tmp_path, models, packages)


def test_the_outer_signature_is_derived_and_the_digests_of_the_steps_are_kept(house: House) -> None:
    version = house.compose(flow_document(description="a chain", metrics={"accuracy": 0.5})).version
    (values,) = version.signature.inputs
    assert (values.name, values.dtype, values.shape) == ("values", DType.FP32, (None, 3))
    assert (values.features, values.minimum, values.maximum) == (tuple(NAMES), -100, 100)
    assert [spec.name for spec in version.signature.outputs] == ["label", "shifted"]
    assert version.signature.outputs[1].classes == tuple(NAMES)
    assert version.signature.max_batch == 1024
    assert version.placement is Placement.FUNCTION
    assert version.metadata["metrics"] == {"accuracy": 0.5}
    assert version.pipeline is not None
    assert [(s.name, s.model, s.version, s.digest) for s in version.pipeline.steps] == [
        (name, name, 1, house.models.get(name, 1).digest) for name in ("pre", "labels", "post")
    ]
    assert version.pipeline.steps[1].inputs == {"x": Source("pre", "y")}
    assert version.pipeline.outputs == {"label": Source("labels", "label"), "shifted": Source("post", "y")}
    assert house.models.get("flow", 1) == version


def test_what_is_stored_says_all_and_its_digest_covers_the_steps(house: House, tmp_path: Path) -> None:
    version = house.compose(flow_document()).version
    house.packages.download(version, tmp_path / "stored")
    document = json.loads((tmp_path / "stored/manifest.json").read_text())
    assert [s["digest"] for s in document["pipeline"]["steps"]] == [
        house.models.get(name, 1).digest for name in ("pre", "labels", "post")
    ]
    assert document["signature"]["inputs"][0]["name"] == "values"
    assert not house.publish(tmp_path / "stored").created
    assert not house.compose(flow_document()).created
    with pytest.raises(VersionConflict):
        house.compose(flow_document(description="another"))


def test_a_pipeline_of_another_version_of_a_step_has_another_digest(house: House, steps: Path) -> None:
    first = house.compose(flow_document()).version
    shift_package(house.folder / "pre2", "pre", 5, version=2)
    house.publish(house.folder / "pre2")
    document = flow_document(version=2)
    document["pipeline"]["steps"][0]["version"] = 2
    second = house.compose(document).version
    assert second.pipeline is not None
    assert first.pipeline is not None
    assert second.digest != first.digest
    assert second.pipeline.steps[0].digest != first.pipeline.steps[0].digest


def test_a_signature_may_be_given_and_may_be_narrower(house: House) -> None:
    signature = {
        "inputs": [tensor("values", "FP32", [-1, 3], features=NAMES, minimum=0, maximum=50)],
        "outputs": [tensor("shifted", "FP32", [-1, -1]), tensor("label", "BYTES", [-1])],
    }
    version = house.compose(flow_document(signature=signature)).version
    assert version.signature.inputs[0].maximum == 50
    assert version.signature.output_names == ("shifted", "label")
    assert version.signature.max_batch == 1024


def test_optional_inputs_may_be_left_out_or_come_from_outside(house: House) -> None:
    left_out = pipeline_document([step("biased", {"x": "x"})], {"y": "biased.y"})
    assert [spec.name for spec in house.compose(left_out).version.signature.inputs] == ["x"]
    document = pipeline_document([step("biased", {"x": "x", "bias": "b"})], {"y": "biased.y"}, version=2)
    x, bias = house.compose(document).version.signature.inputs
    assert (x.optional, bias.name, bias.optional, bias.shape) == (False, "b", True, (2,))


def test_one_input_may_go_to_several_steps(house: House) -> None:
    document = pipeline_document(
        [
            step("small", {"x": "x"}),
            step("sum", {"a": "x", "b": "small.y"}),
        ],
        {"total": "sum.total"},
    )
    signature = house.compose(document).version.signature
    assert (signature.inputs[0].shape, signature.inputs[0].maximum) == ((None, 3), 100)
    assert signature.max_batch == 4


def test_text_goes_through_and_a_layout_fits(house: House) -> None:
    texts = pipeline_document([step("texts", {"text": "text"})], {"y": "texts.y"})
    assert house.compose(texts).version.signature.inputs[0].content is Content.TEXT
    squares = pipeline_document(
        [step("square", {"x": "x"}), step("four", {"x": "square.y"})], {"y": "four.y"}, version=2
    )
    assert house.compose(squares).version.signature.inputs[0].shape == (None, 2, 2)


def two(first: str, then: str, **more: Any) -> dict[str, Any]:
    return pipeline_document([step(first, {"x": "x"}), step(then, {"x": f"{first}.y"})], {"y": f"{then}.y"}, **more)


def given(**spec: Any) -> dict[str, Any]:
    """A pipeline of `pre` alone whose signature says something about `x` that need not hold."""
    inputs = [{**tensor("x", "FP32", [-1, 3], minimum=-100, maximum=100), **spec.pop("x", {})}]
    outputs = [{**tensor("y", "FP32", [-1, 3]), **spec.pop("y", {})}]
    signature = {"inputs": inputs, "outputs": outputs, **spec}
    return pipeline_document([step("pre", {"x": "x"})], {"y": "pre.y"}, signature=signature)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not published": (two("pre", "gone"), "The step 'gone' (gone version 1) is not published"),
    "another version": (
        pipeline_document([step("pre", {"x": "x"}, version=7)], {"y": "pre.y"}),
        "The step 'pre' (pre version 7) is not published",
    ),
    "a label": (
        pipeline_document([step("pre", {"x": "x"}, version="prod")], {"y": "pre.y"}),
        "pipeline.steps.0.version",
    ),
    "itself": (two("pre", "flow"), "The step 'flow' (flow version 1) is not published"),
    "placement": (two("pre", "heavy"), "Step 'heavy' (heavy version 1) runs in the container, and the pipeline in the"),
    "dtype": (two("pre", "whole"), "Step 'whole' (whole version 1), input 'x': takes INT64, and 'pre.y' is FP32."),
    "shape": (
        two("pre", "four"),
        "Step 'four' (four version 1), input 'x': has the shape [-1, 4], and 'pre.y' has [-1, 3].",
    ),
    "names": (two("pre", "other"), "input 'x': takes the features a, b, c, and 'pre.y' gives f1, f2, f3."),
    "rows": (
        two("pre", "single"),
        "Step 'pre' (pre version 1) is batched and step 'single' (single version 1) is not",
    ),
    "for all rows": (
        pipeline_document(
            [step("biased", {"x": "x"}), step("biased", {"x": "x", "bias": "biased.y"}, name="again")],
            {"y": "again.y"},
        ),
        "input 'bias': holds for all rows of a request, and 'biased.y' has a value for each row.",
    ),
    "unknown input": (
        pipeline_document([step("pre", {"z": "x"})], {"y": "pre.y"}),
        "Step 'pre' (pre version 1) has no input 'z'; it takes x.",
    ),
    "unfed": (
        pipeline_document([step("sum", {"a": "x"})], {"y": "sum.total"}),
        "Nothing feeds 'b' of step 'sum' (sum version 1)",
    ),
    "unknown output": (
        pipeline_document([step("pre", {"x": "x"}), step("post", {"x": "pre.z"})], {"y": "post.y"}),
        "Step 'post' (post version 1), input 'x': the step 'pre' has no output 'z'; it has y.",
    ),
    "unknown last output": (
        pipeline_document([step("pre", {"x": "x"})], {"y": "pre.z"}),
        "The output 'y': the step 'pre' has no output 'z'; it has y.",
    ),
    "outer output is an input": (
        pipeline_document([step("pre", {"x": "x"})], {"y": "x"}),
        "'x' is not <step>.<output>",
    ),
    "later step": (
        pipeline_document([step("pre", {"x": "post.y"}), step("post", {"x": "x"})], {"y": "pre.y"}),
        "step 'pre', input 'x': 'post' is not an earlier step",
    ),
    "misspelt step": (
        pipeline_document([step("pre", {"x": "x"}), step("post", {"x": "per.y"})], {"y": "post.y"}),
        "step 'post', input 'x': 'per.y' names no step",
    ),
    "same name twice": (two("pre", "pre"), "two steps are called 'pre': give each a name of its own"),
    "unused": (
        pipeline_document([step("pre", {"x": "x"}), step("post", {"x": "x"})], {"y": "post.y"}),
        "Nothing uses the outputs of step 'pre' (pre version 1): leave it out.",
    ),
    "too many": (
        pipeline_document(
            [step("pre", {"x": "x" if n == 0 else f"s{n - 1}.y"}, name=f"s{n}") for n in range(9)], {"y": "s8.y"}
        ),
        "pipeline.steps",
    ),
    "none": (pipeline_document([], {"y": "a.y"}), "pipeline.steps"),
    "digest": (
        pipeline_document([step("pre", {"x": "x"}, digest="0" * 64)], {"y": "pre.y"}),
        f"not {'0' * 64}",
    ),
    "input in two dtypes": (
        pipeline_document([step("pre", {"x": "x"}), step("whole", {"x": "x"})], {"y": "pre.y", "z": "whole.y"}),
        "Step 'whole' (whole version 1), input 'x': takes INT64, and the input 'x' is FP32 elsewhere.",
    ),
    "input in two shapes": (
        pipeline_document([step("pre", {"x": "x"}), step("four", {"x": "x"})], {"y": "pre.y", "z": "four.y"}),
        "input 'x': has the shape [-1, 4], and the input 'x' [-1, 3] elsewhere.",
    ),
    "input with two sets of names": (
        pipeline_document([step("pre", {"x": "x"}), step("other", {"x": "x"})], {"y": "pre.y", "z": "other.y"}),
        "input 'x': takes the features a, b, c; elsewhere they are f1, f2, f3.",
    ),
    "no value is in range": (
        pipeline_document([step("pre", {"x": "x"}), step("far", {"x": "x"})], {"y": "pre.y", "z": "far.y"}),
        "No value of the input 'x' is in the range of every step that it goes to.",
    ),
    "nothing required": (
        pipeline_document(
            [step("pre", {"x": "x"}), step("biased", {"x": "x", "bias": "x"})], {"y": "pre.y", "z": "biased.y"}
        ),
        "the input 'x'",
    ),
    "wider below": (given(x={"minimum": -200}), "The input 'x' of the signature: allows values below -100"),
    "no maximum": (given(x={"maximum": None}), "The input 'x' of the signature: allows values above 100"),
    "infinite": (given(x={"allow_non_finite": True}), "allows NaN and infinity, and the steps do not"),
    "optional": (given(x={"optional": True}), "The input 'x' of the signature: is optional, and a step needs it."),
    "other dtype": (given(y={"dtype": "FP64"}), "The output 'y' of the signature: is FP64, and FP32 in the steps."),
    "other shape": (given(y={"shape": [-1, 2]}), "The output 'y' of the signature: has the shape [-1, 2], and [-1, 3]"),
    "other classes": (given(y={"classes": ["a", "b", "c"]}), "has the classes a, b, c, and f1, f2, f3 in the steps"),
    "other content": (given(x={"content": "image"}), "holds image, and none in the steps"),
    "other input": (given(x={"name": "z"}), "The signature has the input 'z', the pipeline has none; it has x."),
    "other output": (given(y={"name": "z"}), "The signature has the output 'z', the pipeline has none; it has y."),
    "not batched": (given(batched=False), "The signature is not batched, and the steps are batched."),
    "larger batch": (given(max_batch=2048), "max_batch is 2048, and the steps take 1024 rows at the most."),
    "own preprocessing": (
        {**two("pre", "post"), "preprocessing": [{"kind": "image", "input": "x", "width": 1, "height": 1}]},
        "a pipeline has no preprocessing or postprocessing of its own",
    ),
    "own batching": (
        {**two("pre", "post"), "serving": {"batching": {"max_rows": 4}}},
        "a pipeline may set cache and join",
    ),
    "example": ({**two("pre", "post"), "example": [1, 2]}, "does not take the example of its manifest"),
    "unknown field": ({**two("pre", "post"), "stages": []}, "stages"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(house: House, case: str) -> None:
    document, message = REFUSED[case]
    with pytest.raises(InvalidPackage) as refused:
        house.compose(document)
    assert message in refused.value.detail
    with pytest.raises(ModelNotFound):
        house.models.get("flow", 1)


def test_a_pipeline_cannot_be_a_step(house: House) -> None:
    house.compose(flow_document())
    document = pipeline_document([step("flow", {"values": "x"})], {"y": "flow.shifted"}, name="outer")
    with pytest.raises(InvalidPackage, match="is a pipeline itself: name its steps in its place"):
        house.compose(document)


def test_a_pipeline_has_no_graph(house: House) -> None:
    folder = write_pipeline(house.folder / "both", flow_document())
    (folder / "model.onnx").write_bytes(b"graph")
    with pytest.raises(InvalidPackage, match="either a pipeline or a model"):
        house.publish(folder)
