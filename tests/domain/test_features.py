"""The manifest's features: what callers see, what is refused, and the tensors that are made."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.dtypes import DType
from shared.domain.feature_checks import misfit, problems_of
from shared.domain.feature_tensors import Misfit, assemble, column_of
from shared.domain.features import Feature, FeaturePlan, FeatureSet, ModelFeatures, caller_signature
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, bf16_to_fp32
from shared.domain.validation import Inputs, conform

X = TensorSpec("x", DType.FP32, (None, 3), features=("age", "amount", "income"), layouts=((3, 1),), minimum=0)
VISITS = TensorSpec("visits", DType.INT64, (None, 1), maximum=1000)
SEGMENT = TensorSpec("segment", DType.BYTES, (None,), content=Content.TEXT, max_length=8)
IMAGE = TensorSpec("image", DType.FP32, (None, 4), content=Content.IMAGE)
BIAS = TensorSpec("bias", DType.FP32, (2,), optional=True)
USER = TensorSpec("user", DType.INT64, (None,))
SIGNATURE = Signature((X, VISITS, SEGMENT), (TensorSpec("y", DType.FP32, (None, 1)),), max_batch=8)


def block(*features: Feature, entity: str = "customer_id", name: str = "customer") -> ModelFeatures:
    return ModelFeatures((FeatureSet(name, entity, features),))


AGE = Feature("age", "x", "age")
INCOME = Feature("yearly_income", "x", "income", default=1)
ALL = block(AGE, INCOME, Feature("visits", "visits"), Feature("segment", "segment"))


def inputs(signature: Signature) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in signature.inputs}


# ---------------------------------------------------------------- what callers see
def test_callers_send_the_rest_and_the_id() -> None:
    seen = caller_signature(SIGNATURE, ALL)
    assert list(inputs(seen)) == ["x", "customer_id"]
    assert inputs(seen)["x"] == replace(X, shape=(None, 1), features=("amount",), layouts=())
    assert inputs(seen)["customer_id"] == TensorSpec(
        "customer_id", DType.BYTES, (None,), content=Content.TEXT, max_length=256
    )
    assert (seen.outputs, seen.max_batch) == (SIGNATURE.outputs, 8)
    assert list(problems_of(ALL, SIGNATURE)) == []


def test_an_input_of_which_everything_is_stored_is_gone() -> None:
    all_of_x = block(*(Feature(name, "x", name) for name in X.features))
    assert list(inputs(caller_signature(SIGNATURE, all_of_x))) == ["visits", "segment", "customer_id"]


def test_what_may_be_overridden_is_an_optional_input_of_its_own() -> None:
    features = block(replace(AGE, overridable=True), Feature("visits", "visits", overridable=True))
    seen = inputs(caller_signature(SIGNATURE, features))
    assert list(seen) == ["x", "visits", "segment", "customer_id", "age"]
    assert seen["visits"] == replace(VISITS, optional=True)
    assert seen["age"] == TensorSpec("age", DType.FP32, (None,), minimum=0, optional=True)
    assert list(problems_of(features, SIGNATURE)) == []


def test_sets_may_share_an_id_or_have_one_each() -> None:
    merchant = FeatureSet("merchant", "merchant_id", (INCOME,))
    features = ModelFeatures(
        (*block(AGE).sets, merchant, FeatureSet("visits", "customer_id", (Feature("v", "visits"),)))
    )
    assert list(inputs(caller_signature(SIGNATURE, features))) == ["x", "segment", "customer_id", "merchant_id"]
    assert list(problems_of(features, SIGNATURE)) == []


@pytest.mark.parametrize("spec", [USER, TensorSpec("user", DType.BYTES, (None,), max_length=300)])
def test_the_id_may_be_an_input_of_the_model(spec: TensorSpec) -> None:
    signature = replace(SIGNATURE, inputs=(X, spec))
    features = block(AGE, entity="user")
    assert list(problems_of(features, signature)) == []
    seen = inputs(caller_signature(signature, features))
    assert list(seen) == ["x", "user"]
    if spec.dtype is DType.BYTES:
        assert (seen["user"].content, seen["user"].max_length) == (Content.TEXT, 256)


@pytest.mark.parametrize(
    ("features", "signature", "said"),
    [
        (ALL, replace(SIGNATURE, batched=False), "batched"),
        (block(Feature("age", "z", "age")), SIGNATURE, "no input of the model"),
        (block(Feature("size", "x", "size")), SIGNATURE, "no 'size' among its features"),
        (block(Feature("x", "x")), SIGNATURE, "more than one element"),
        (block(Feature("i", "image")), replace(SIGNATURE, inputs=(X, IMAGE)), "takes images"),
        (block(Feature("b", "bias")), replace(SIGNATURE, inputs=(X, BIAS)), "one value for all rows"),
        (block(AGE, Feature("other", "x", "age")), SIGNATURE, "fed twice"),
        (ModelFeatures(block(AGE).sets + block(INCOME).sets), SIGNATURE, "named twice"),
        (block(AGE, entity="x"), SIGNATURE, "fed by the store"),
        (block(AGE, entity="visits"), SIGNATURE, "cannot be an id"),
        (block(replace(AGE, overridable=True), entity="age"), SIGNATURE, "two inputs named 'age'"),
        (block(replace(AGE, default="old")), SIGNATURE, "the default of 'age' is not a number"),
        (block(replace(AGE, default=-1)), SIGNATURE, "below the minimum"),
        (block(Feature("visits", "visits", default=1.5)), SIGNATURE, "not an integer"),
        (block(AGE), replace(SIGNATURE, inputs=(USER, replace(X, optional=True))), "fed in part"),
        (
            block(AGE),
            replace(SIGNATURE, inputs=(replace(X, shape=(None, 2, 3)),)),
            "its columns cannot be fed",
        ),
    ],
)
def test_blocks_that_do_not_fit(features: ModelFeatures, signature: Signature, said: str) -> None:
    assert any(said in problem for problem in problems_of(features, signature))


# --------------------------------------------------------------------- tensors
def test_columns_go_where_they_belong() -> None:
    plan = FeaturePlan(ALL, SIGNATURE)
    stored: dict[str, Sequence[Any]] = {
        "age": [41, 20.5],
        "yearly_income": [100.0, 7],
        "visits": [3, 4.0],
        "segment": ["gold", "ümlaut"],
    }
    fetched = {each.place: column_of(stored[each.name], plan.elements[each.input]) for each in ALL.all}
    sent = {"x": np.array([[9], [8]], np.float32), "customer_id": np.array([b"a", b"b"], object)}
    made = assemble(plan, sent, fetched, 2)
    assert list(made) == ["x", "visits", "segment"]
    assert made["x"].tolist() == [[41, 9, 100], [20.5, 8, 7]]
    assert made["visits"].tolist() == [[3], [4]]
    assert made["segment"].tolist() == [b"gold", "ümlaut".encode()]
    assert conform(Inputs(made), SIGNATURE).keys() == made.keys()


def test_what_the_caller_sent_goes_before_the_store() -> None:
    features = block(replace(AGE, overridable=True), Feature("visits", "visits", overridable=True))
    plan = FeaturePlan(features, SIGNATURE)
    sent = {
        "x": np.array([[1, 2]], np.float32),
        "segment": np.array([b"s"], object),
        "customer_id": np.array([b"a"], object),
        "age": np.array([30], np.float32),
        "visits": np.array([[5]], np.int64),
    }
    made = assemble(plan, sent, {}, 1)
    assert made["x"].tolist() == [[30, 1, 2]]
    assert made["visits"].tolist() == [[5]]


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype not in (DType.BYTES, DType.BOOL)])
def test_numbers_of_every_dtype(dtype: DType) -> None:
    array = column_of([0, 1.0, 7], TensorSpec("x", dtype, (None,)))
    assert array.dtype == NUMPY_DTYPES[dtype]
    assert (bf16_to_fp32(array) if dtype is DType.BF16 else array).tolist() == [0, 1, 7]


@pytest.mark.parametrize(
    ("dtype", "value", "limits", "said"),
    [
        (DType.FP32, "1", {}, "not a number"),
        (DType.FP32, True, {}, "not a number"),
        (DType.FP32, 1e39, {}, "does not fit into FP32"),
        (DType.FP32, 1e39, {"allow_non_finite": True}, "does not fit into FP32"),
        (DType.FP16, 70_000, {}, "does not fit into FP16"),
        (DType.BF16, 3.4e38, {}, "does not fit into BF16"),
        (DType.FP64, 10**400, {}, "does not fit into FP64"),
        (DType.FP64, 2, {"maximum": 1.5}, "above the maximum 1.5"),
        (DType.BF16, 1.005, {"maximum": 1.005}, "once it is rounded to BF16"),
        (DType.UINT8, 256, {}, "does not fit into UINT8"),
        (DType.UINT8, -1, {}, "does not fit into UINT8"),
        (DType.INT8, -129.0, {}, "does not fit into INT8"),
        (DType.INT64, 0.5, {}, "not an integer"),
        (DType.INT64, float("inf"), {}, "not a finite number"),
        (DType.INT64, 2**63, {}, "does not fit into INT64"),
        (DType.INT64, 3, {"minimum": 4}, "below the minimum 4"),
        (DType.BOOL, 1, {}, "neither true nor false"),
        (DType.BYTES, 1, {}, "not text"),
        (DType.BYTES, "four", {"max_length": 3}, "more than 3 characters"),
    ],
)
def test_values_that_do_not_fit(dtype: DType, value: Any, limits: dict[str, Any], said: str) -> None:
    spec = TensorSpec("x", dtype, (None,), **limits)
    fitting: Any = {DType.BYTES: "a", DType.BOOL: True}.get(dtype, 4 if "minimum" in limits else 1)
    with pytest.raises(Misfit, match=said) as refused:
        column_of([fitting, fitting, value], spec)
    assert refused.value.index == 2


@given(st.lists(st.booleans() | st.integers() | st.floats() | st.text(max_size=4), min_size=1, max_size=4))
def test_a_column_holds_the_values_or_says_which_does_not_fit(values: list[Any]) -> None:
    """No dtype bends a value: what comes out is what went in, to the dtype's precision."""
    for dtype in DType:
        spec = TensorSpec("x", dtype, (None,))
        try:
            made = column_of(values, spec)
        except Misfit:
            continue
        if not dtype.is_float:  # floats are rounded first
            assert all(misfit(value, spec) is None for value in values)
        if dtype is DType.BYTES:
            assert [each.decode() for each in made.tolist()] == values
        elif not dtype.is_float:
            assert made.tolist() == values
        elif dtype is DType.FP64:
            assert made.tolist() == [float(value) for value in values]
