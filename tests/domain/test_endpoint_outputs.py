"""What callers of an endpoint get of a model's outputs: thresholds, labels, the response filter."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig, ResponseFilter, Threshold
from shared.domain.endpoint.outputs import OutputPlan, problems_with
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, bytes_tensor, fp32_to_bf16
from tests.conftest import ROOT

INPUTS = (TensorSpec("x", DType.FP32, (None, 4)),)
SCORE = TensorSpec("score", DType.FP32, (None,))
COLUMN = TensorSpec("column", DType.FP64, (None, 1))
PROBABILITIES = TensorSpec("probabilities", DType.FP32, (None, 3), classes=("a", "b", "c"))
LABEL = TensorSpec("label", DType.BYTES, (None,), classes=("a", "b", "c"))
GRID = TensorSpec("grid", DType.FP32, (None, 2, 3))
SIGNATURE = Signature(INPUTS, (SCORE, COLUMN, PROBABILITIES, LABEL, GRID))
OUTPUTS: dict[str, Array] = {
    "score": np.array([0.2, 0.5, 0.9], np.float32),
    "column": np.array([[0.2], [0.5], [0.9]]),
    "probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5]], np.float32),
    "label": bytes_tensor([b"a", b"b", b"c"]),
    "grid": np.arange(18, dtype=np.float32).reshape(3, 2, 3),
}


def config(**fields: Any) -> EndpointConfig:
    return EndpointConfig("iris", **fields)


def plan(signature: Signature = SIGNATURE, **fields: Any) -> OutputPlan:
    made = OutputPlan.of(config(**fields), signature)
    assert made.problems == ()
    return made


def decisions(scores: Array, at: float, spec: TensorSpec = SCORE) -> list[bytes]:
    threshold = Threshold(spec.name, at, below="no", above="yes")
    made = plan(Signature(INPUTS, (spec,)), thresholds={"decision": threshold})
    decided = made.apply({spec.name: scores})["decision"]
    assert decided.dtype == np.object_
    assert decided.shape == (len(scores),)
    return list(decided)


def test_without_settings_nothing_is_done() -> None:
    made = plan()
    assert made.is_identity
    assert made.signature is SIGNATURE
    assert made.apply(OUTPUTS) is OUTPUTS
    assert made.needed(()) == ()
    assert made.needed(("label",)) == ("label",)


@pytest.mark.parametrize("output", ["score", "column"])
def test_a_threshold_adds_an_output(output: str) -> None:
    made = plan(thresholds={"decision": Threshold(output, 0.5, below="refuse", above="accept")})
    seen = made.apply(OUTPUTS)
    assert list(seen) == [*OUTPUTS, "decision"] == list(made.signature.output_names)
    assert list(seen["decision"]) == [b"refuse", b"accept", b"accept"]
    assert all(seen[name] is array for name, array in OUTPUTS.items())
    spec = made.signature.outputs[-1]
    assert (spec.dtype, spec.shape, spec.classes) == (DType.BYTES, (None,), ("refuse", "accept"))
    assert made.signature.inputs is INPUTS


def test_a_threshold_takes_the_column_of_its_class() -> None:
    made = plan(thresholds={"b?": Threshold("probabilities", 0.5, "no", "yes", class_name="b")})
    assert list(made.apply(OUTPUTS)["b?"]) == [b"no", b"yes", b"yes"]


def test_a_model_without_rows_has_one_decision() -> None:
    for shape in ((), (1,)):
        signature = Signature(INPUTS, (TensorSpec("score", DType.FP32, shape),), batched=False)
        made = plan(signature, thresholds={"decision": Threshold("score", 0.5, "no", "yes")})
        assert made.signature.outputs[-1].shape == (1,)
        assert list(made.apply({"score": np.full(shape, 0.7, np.float32)})["decision"]) == [b"yes"]


def test_no_rows_have_no_decisions() -> None:
    assert decisions(np.empty(0, np.float32), 0.5) == []


@pytest.mark.parametrize("dtype", [DType.FP16, DType.FP32, DType.FP64, DType.BF16])
def test_a_score_that_is_not_a_number_has_no_decision(dtype: DType) -> None:
    scores: Array = np.array([np.nan, -np.inf, 0.0, 0.1, np.inf], np.float32)
    spec = TensorSpec("score", dtype, (None,))
    given = {DType.FP16: scores.astype(np.float16), DType.BF16: fp32_to_bf16(scores)}.get(dtype, scores)
    if dtype is DType.FP64:
        given = np.array([np.nan, -np.inf, 0.0, 0.1, np.inf])
    # 0.1 has another value in each precision, and reaches the threshold in all of them.
    assert decisions(given, 0.1, spec) == [b"", b"no", b"no", b"yes", b"yes"]


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16, DType.FP32])
def test_a_threshold_beyond_the_type_is_reached_by_infinity_only(dtype: DType) -> None:
    scores: Array = np.array([60000, np.inf], np.float32)
    given = (
        fp32_to_bf16(scores)
        if dtype is DType.BF16
        else scores.astype(np.float16 if dtype is DType.FP16 else np.float32)
    )
    assert decisions(given, 1e300, TensorSpec("score", dtype, (None,))) == [b"no", b"yes"]


@pytest.mark.parametrize(("at", "expected"), [(2.0, "nyy"), (2.5, "nny"), (1e30, "nnn"), (-1e30, "yyy")])
@pytest.mark.parametrize("dtype", [DType.INT8, DType.UINT64, DType.INT64])
def test_whole_scores_are_compared_exactly(at: float, expected: str, dtype: DType) -> None:
    scores = np.array([1, 2, 3], {DType.INT8: np.int8, DType.UINT64: np.uint64, DType.INT64: np.int64}[dtype])
    made = decisions(scores, at, TensorSpec("score", dtype, (None,)))
    assert "".join(value.decode()[0] for value in made) == expected


def test_labels_rename_text_and_classes() -> None:
    names = {"a": "Setosa", "c": "Virginica ✿"}
    made = plan(class_labels={"label": names, "probabilities": names})
    seen = made.apply(OUTPUTS)
    assert list(seen["label"]) == [b"Setosa", b"b", "Virginica ✿".encode()]
    assert seen["probabilities"] is OUTPUTS["probabilities"]
    assert {spec.name: spec.classes for spec in made.signature.outputs if spec.classes} == {
        "label": ("Setosa", "b", "Virginica ✿"),
        "probabilities": ("Setosa", "b", "Virginica ✿"),
    }
    assert list(OUTPUTS["label"]) == [b"a", b"b", b"c"]


def test_classes_of_text_may_be_merged_and_swapped() -> None:
    made = plan(class_labels={"label": {"a": "b", "b": "a", "c": "a"}})
    assert list(made.apply(OUTPUTS)["label"]) == [b"b", b"a", b"a"]
    assert made.signature.outputs[3].classes == ("b", "a")


def test_text_of_any_shape_is_renamed() -> None:
    words = TensorSpec("words", DType.BYTES, (None, 2))
    made = plan(Signature(INPUTS, (words,)), class_labels={"words": {"x": "y"}})
    texts = bytes_tensor([b"x", b"z", b"\xff", b"x"]).reshape(2, 2)
    assert made.apply({"words": texts})["words"].tolist() == [[b"y", b"z"], [b"\xff", b"y"]]


def test_the_filter_keeps_and_orders_outputs() -> None:
    made = plan(
        thresholds={"decision": Threshold("score", 0.5, "no", "yes")},
        response=ResponseFilter(outputs=("label", "decision", "column")),
    )
    seen = made.apply(OUTPUTS)
    assert list(seen) == ["label", "decision", "column"] == list(made.signature.output_names)


def test_the_filter_keeps_and_orders_classes_by_the_models_names() -> None:
    made = plan(
        class_labels={"probabilities": {"a": "Setosa"}},
        thresholds={"decision": Threshold("probabilities", 0.5, "no", "yes", class_name="b")},
        response=ResponseFilter(classes={"probabilities": ("c", "a")}),
    )
    seen = made.apply(OUTPUTS)
    assert seen["probabilities"].tolist() == OUTPUTS["probabilities"][:, [2, 0]].tolist()
    assert seen["probabilities"].flags.c_contiguous
    assert seen["probabilities"].base is None, "what is left out is not in the tensor either"
    spec = made.signature.outputs[2]
    assert (spec.shape, spec.classes) == ((None, 2), ("c", "Setosa"))
    # A threshold sees what callers do not.
    assert list(seen["decision"]) == [b"no", b"yes", b"yes"]


def test_the_filter_keeps_classes_of_a_model_without_rows() -> None:
    signature = Signature(
        INPUTS, (TensorSpec("probabilities", DType.FP32, (3,), classes=("a", "b", "c")),), batched=False
    )
    made = plan(signature, response=ResponseFilter(classes={"probabilities": ("b",)}))
    assert made.signature.outputs[0].shape == (1,)
    assert made.apply({"probabilities": np.array([1, 2, 3], np.float32)})["probabilities"].tolist() == [2]


def test_a_visible_output_names_the_models_outputs_that_it_needs() -> None:
    made = plan(
        thresholds={
            "decision": Threshold("score", 0.5, "no", "yes"),
            "b?": Threshold("probabilities", 0.5, "no", "yes", class_name="b"),
        },
        response=ResponseFilter(outputs=("decision", "b?", "probabilities")),
    )
    assert made.needed(("decision",)) == ("score",)
    assert made.needed(("probabilities", "b?")) == ("probabilities",)
    assert set(made.needed(())) == {"score", "probabilities"}
    # What was not run is not answered, and what was run for another's sake stays inside.
    assert list(made.apply({"score": OUTPUTS["score"]})) == ["decision"]


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"thresholds": {"d": Threshold("none", 0.5, "n", "y")}}, "/thresholds/d/output"),
    ({"thresholds": {"a/b": Threshold("none", 0.5, "n", "y")}}, "/thresholds/a~1b/output"),
    ({"thresholds": {"score": Threshold("score", 0.5, "n", "y")}}, "/thresholds/score"),
    ({"thresholds": {"d": Threshold("label", 0.5, "n", "y")}}, "/thresholds/d/output"),
    ({"thresholds": {"d": Threshold("grid", 0.5, "n", "y")}}, "/thresholds/d/output"),
    ({"thresholds": {"d": Threshold("probabilities", 0.5, "n", "y")}}, "/thresholds/d/output"),
    ({"thresholds": {"d": Threshold("probabilities", 0.5, "n", "y", "z")}}, "/thresholds/d/class_name"),
    ({"thresholds": {"d": Threshold("score", 0.5, "n", "y", "a")}}, "/thresholds/d/class_name"),
    ({"thresholds": {"d": Threshold("score", float("nan"), "n", "y")}}, "/thresholds/d/at"),
    ({"thresholds": {"d": Threshold("score", float("inf"), "n", "y")}}, "/thresholds/d/at"),
    ({"class_labels": {"none": {"a": "A"}}}, "/class_labels/none"),
    ({"class_labels": {"score": {"a": "A"}}}, "/class_labels/score"),
    ({"class_labels": {"label": {"z": "A"}}}, "/class_labels/label/z"),
    ({"class_labels": {"probabilities": {"a": "b"}}}, "/class_labels/probabilities"),
    ({"response": ResponseFilter(outputs=("score", "none"))}, "/response/outputs/1"),
    ({"response": ResponseFilter(classes={"none": ("a",)})}, "/response/classes/none"),
    ({"response": ResponseFilter(classes={"score": ("a",)})}, "/response/classes/score"),
    ({"response": ResponseFilter(classes={"label": ("a",)})}, "/response/classes/label"),
    ({"response": ResponseFilter(classes={"probabilities": ("a", "z")})}, "/response/classes/probabilities/1"),
]


@pytest.mark.parametrize(("fields", "pointer"), PROBLEMS)
def test_what_does_not_fit_a_version_is_told_and_has_no_effect(fields: dict[str, Any], pointer: str) -> None:
    problems = problems_with(config(**fields), SIGNATURE)
    assert [problem.pointer for problem in problems] == [pointer]
    assert problems[0].detail
    made = OutputPlan.of(config(**fields), SIGNATURE)
    seen = made.apply(OUTPUTS)
    assert list(seen) == list(made.signature.output_names)
    assert seen.keys() <= OUTPUTS.keys()


def test_a_configuration_is_checked_without_numpy() -> None:
    script = """
import sys
sys.modules["numpy"] = None  # the admin function does not have it
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig, ResponseFilter, Threshold
from shared.domain.endpoint.outputs import problems_with
from shared.domain.signature import Signature, TensorSpec
outputs = (
    TensorSpec("p", DType.FP32, (None, 2), classes=("a", "b")), TensorSpec("q", DType.INT8, (None,)),
    TensorSpec("r", DType.BF16, (None,)), TensorSpec("t", DType.BYTES, (None,)),
)
config = EndpointConfig(
    "iris",
    thresholds={
        "d": Threshold("p", 0.5, "no", "yes", "a"), "e": Threshold("q", 0.5, "no", "yes"),
        "f": Threshold("r", 0.5, "no", "yes"), "g": Threshold("none", 0.5, "no", "yes"),
    },
    class_labels={"t": {"a": "A"}, "p": {"a": "A"}},
    response=ResponseFilter(outputs=("d", "p", "t"), classes={"p": ("b",)}),
)
print([problem.pointer for problem in problems_with(config, Signature((), outputs))])
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("['/thresholds/g/output']", "")


def test_what_fits_has_no_problems() -> None:
    fields = {
        "thresholds": {"decision": Threshold("column", 0.5, "no", "yes")},
        "class_labels": {"label": {"a": "A"}},
        "response": ResponseFilter(outputs=("decision", "label")),
    }
    assert problems_with(config(**fields), SIGNATURE) == []


def test_a_filter_that_does_not_fit_lets_nothing_more_through() -> None:
    for settings in (
        ResponseFilter(outputs=("of the version before",)),
        ResponseFilter(outputs=("probabilities",), classes={"probabilities": ("z",)}),
        ResponseFilter(outputs=("label",), classes={"label": ("a",)}),
    ):
        made = OutputPlan.of(config(response=settings), SIGNATURE)
        assert made.apply(OUTPUTS) == {}
        assert made.signature.outputs == ()


def test_an_output_of_the_model_is_never_replaced() -> None:
    made = OutputPlan.of(config(thresholds={"label": Threshold("score", 0.5, "no", "yes")}), SIGNATURE)
    assert made.apply(OUTPUTS)["label"] is OUTPUTS["label"]
