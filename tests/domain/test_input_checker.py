"""The quick checks say what the strict ones say, for whatever they are given."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, SluiceError
from shared.domain.input_checker import InputChecker
from shared.domain.signature import Content, Signature
from shared.domain.tensors import NUMPY_DTYPES, Array, bytes_tensor
from shared.domain.validation import Inputs, check_structure, check_values, conform, values_fit
from tests.codecs.signatures import ALL, BOUNDED, MANY, PAIR, PIXELS, TEXT, row, spec, takes
from tests.domain.test_validation import CASES

F = np.float32
BIASED = takes(spec("x", DType.FP32, (None, 2)), spec("bias", DType.FP32, (2,), optional=True))
WEIGHTED = takes(spec("x", DType.FP32, (None, 2)), spec("w", DType.FP32, (None,), optional=True))


def outcome(check: Any) -> Any:
    try:
        return {name: (array.shape, array.dtype, array.tobytes()) for name, array in check().items()}
    except SluiceError as error:
        return error.code, error.detail


@pytest.mark.parametrize(("tensors", "signature"), [(case[0], case[1]) for case in CASES])
def test_the_known_cases(tensors: dict[str, Array], signature: Signature) -> None:
    checker = InputChecker(signature)
    inputs = Inputs(tensors)
    assert outcome(lambda: checker(inputs)) == outcome(lambda: check_structure(inputs, signature))
    try:
        checked = checker(inputs)
    except SluiceError:
        return
    try:
        check_values(checked, signature, inputs.locate)
        right = True
    except SluiceError:
        right = False
    assert checker.values_fit(checked) is values_fit(checked, signature) is right


@st.composite
def requests(draw: st.DrawFn) -> tuple[Signature, dict[str, Array]]:
    signature = draw(st.sampled_from([*ALL, BIASED, WEIGHTED, row(minimum=0), row(DType.BF16, maximum=2)]))
    tensors: dict[str, Array] = {}
    for wanted in signature.inputs:
        if draw(st.integers(0, 9)) == 0:
            continue
        dims = [draw(st.integers(0, 3)) if dim is None else dim for dim in wanted.shape]
        if draw(st.integers(0, 4)) == 0:
            dims = draw(st.lists(st.integers(0, 3), max_size=4))
        dtype = draw(st.sampled_from([wanted.dtype] * 5 + [DType.FP32, DType.BYTES]))
        if dtype is DType.BYTES:
            elements: Any = st.one_of(st.binary(max_size=12), st.text(max_size=5).map(str.encode))
        else:
            elements = None
        tensors[wanted.name] = draw(hnp.arrays(NUMPY_DTYPES[dtype], tuple(dims), elements=elements))
    return signature, tensors


@MANY
@given(requests())
def test_quick_and_strict_agree(case: tuple[Signature, dict[str, Array]]) -> None:
    signature, tensors = case
    checker = InputChecker(signature)
    inputs = Inputs(tensors)
    assert outcome(lambda: checker(inputs)) == outcome(lambda: check_structure(inputs, signature))
    whole = outcome(lambda: conform(inputs, signature))

    def in_two_steps() -> Any:
        checked = checker(inputs)
        if not checker.values_fit(checked):
            check_values(checked, signature, inputs.locate)
        return checked

    assert outcome(in_two_steps) == whole


@BOUNDED
@given(
    hnp.arrays(np.float32, (3, 2)), st.sampled_from([None, 0.0, -1.5]), st.sampled_from([None, 0.0, 2.0]), st.booleans()
)
def test_values_of_a_batch(array: Array, minimum: float | None, maximum: float | None, loose: bool) -> None:
    signature = row(minimum=minimum, maximum=maximum, allow_non_finite=loose)
    low, high = minimum if minimum is not None else -np.inf, maximum if maximum is not None else np.inf
    right = all(
        (loose or np.isfinite(value)) and not value < low and not value > high for value in array.ravel().tolist()
    )
    assert InputChecker(signature).values_fit({"x": array}) is right


def test_an_optional_input_may_be_left_out() -> None:
    x = np.ones((2, 2), F)
    assert list(conform(Inputs({"x": x}), BIASED)) == ["x"]
    assert list(conform(Inputs({"bias": np.ones(2, F), "x": x}), BIASED)) == ["x", "bias"]
    with pytest.raises(InvalidRequest) as caught:
        conform(Inputs({"bias": np.ones(2, F)}), BIASED)
    assert caught.value.code == "missing_field"


def test_an_optional_input_of_a_fixed_shape_has_no_rows() -> None:
    checker = InputChecker(BIASED)
    alone, both = {"x": np.ones((3, 2), F)}, {"bias": np.ones(2, F), "x": np.ones((3, 2), F)}
    assert checker.rows(checker(Inputs(alone))) == checker.rows(checker(Inputs(both))) == 3
    with pytest.raises(InvalidRequest):
        checker(Inputs({"x": np.ones((1, 2), F), "bias": np.ones(3, F)}))


def test_an_optional_input_with_rows_has_as_many_as_the_others() -> None:
    checker = InputChecker(WEIGHTED)
    given = {"x": np.ones((3, 2), F), "w": np.ones(3, F)}
    assert checker.rows(checker(Inputs(given))) == 3
    with pytest.raises(InvalidRequest) as caught:
        checker(Inputs({"x": np.ones((3, 2), F), "w": np.ones(2, F)}))
    assert caught.value.code == "wrong_shape"


def test_rows_without_a_batch() -> None:
    checker = InputChecker(takes(spec("x", DType.FP32, (4,)), batched=False))
    assert checker.rows(checker(Inputs({"x": np.ones(4, F)}))) == 1


def test_values_in_another_layout_are_named_as_their_caller_gave_them() -> None:
    pixels = np.zeros((2, 8, 8), F)
    pixels[1, 7, 6] = np.inf
    with pytest.raises(InvalidRequest) as caught:
        InputChecker(PIXELS)(Inputs({"x": pixels}))
    assert caught.value.fields[0].pointer == "/inputs/x/1/7/6"


def test_what_fits_is_not_copied_and_comes_in_order() -> None:
    x, number = np.zeros((2, 2), F), np.zeros(2, np.int64)
    checked = InputChecker(PAIR)(Inputs({"x": x, "i/d": number}))
    assert list(checked) == ["i/d", "x"]
    assert checked["x"] is x


def test_text() -> None:
    checker = InputChecker(TEXT)
    assert checker.values_fit({"text": bytes_tensor([b"a", "ä".encode() * 10])})
    assert not checker.values_fit({"text": bytes_tensor([b"a", "ä".encode() * 11])})
    assert not checker.values_fit({"text": bytes_tensor([b"a", b"\xff"])})
    assert not InputChecker(takes(spec("x", DType.BYTES, (None,)))).values_fit({"x": np.array(["a"], dtype=object)})
    assert InputChecker(takes(spec("x", DType.FP32, (None, 1), content=Content.IMAGE))).values_fit(
        {"x": bytes_tensor([b"\xff"])}
    )
