"""`conform` alone: tensors as codecs and other servers hand them over."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, bytes_tensor
from shared.domain.validation import Inputs, check_rows, conform, locate_by_name
from tests.codecs.signatures import BOUNDED, GRID, PAIR, PIXELS, TEXT, assert_fits, row, spec, takes

F = np.float32


def refuse(tensors: dict[str, Array], signature: Signature) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        conform(Inputs(tensors), signature)
    return caught.value.code, caught.value.fields[0].pointer


CASES: list[tuple[dict[str, Array], Signature, str | None, str | None]] = [
    ({}, row(), "missing_field", "/inputs/x"),
    ({"z/": np.zeros((1, 2), F)}, row(), "unknown_field", "/inputs/z~1"),
    ({"x": np.zeros((1, 2))}, row(), "wrong_dtype", "/inputs/x"),
    ({"x": np.zeros((1, 2), np.int8)}, row(DType.UINT8), "wrong_dtype", "/inputs/x"),
    ({"x": np.array([["a", "b"]])}, row(DType.BYTES), "wrong_dtype", "/inputs/x"),
    ({"x": np.array([[b"a", "b"]], object)}, row(DType.BYTES), "wrong_dtype", "/inputs/x/0/1"),
    ({"x": bytes_tensor([b"a"])}, row(), "wrong_dtype", "/inputs/x"),
    ({"x": np.zeros((0, 2), F)}, row(), "empty_batch", "/inputs/x"),
    ({"x": np.zeros((5, 2), F)}, row(), "batch_too_large", "/inputs/x"),
    ({"x": np.zeros((2, 1), F)}, row(), "wrong_shape", "/inputs/x"),
    ({"x": np.zeros((1, 2, 1), F)}, row(), "wrong_shape", "/inputs/x"),
    ({"x": np.zeros((), F)}, row(), "wrong_shape", "/inputs/x"),
    ({"x": np.zeros((3, 2), F)}, GRID, "wrong_shape", "/inputs/x"),
    (
        {"x": np.zeros((3, 8, 8), F)},
        takes(spec("x", DType.FP32, (1, 64), layouts=((8, 8),))),
        "wrong_shape",
        "/inputs/x",
    ),
    ({"x": np.zeros((8, 8), F)}, PIXELS, "wrong_shape", "/inputs/x"),
    ({"x": bytes_tensor([b"a"]).reshape(1, 1)}, PIXELS, "wrong_shape", "/inputs/x"),
    ({"i/d": np.zeros(2, np.int64), "x": np.zeros((3, 2), F)}, PAIR, "wrong_shape", "/inputs/x"),
    ({"x": np.array([[0, np.nan]], F)}, row(), "not_finite", "/inputs/x/0/1"),
    ({"x": np.array([[0, 0], [-np.inf, 0]], F)}, row(minimum=0), "not_finite", "/inputs/x/1/0"),
    ({"x": np.array([[0, 0x7F80]], np.uint16)}, row(DType.BF16), "not_finite", "/inputs/x/0/1"),
    ({"x": np.array([[0, 0x4000]], np.uint16)}, row(DType.BF16, maximum=1.5), "out_of_range", "/inputs/x/0/1"),
    ({"x": np.array([[0, 256]], np.int64)}, row(DType.INT64, maximum=255), "out_of_range", "/inputs/x/0/1"),
    ({"x": np.array([[0, np.inf]], F)}, row(allow_non_finite=True, maximum=1e300), None, None),
    ({"x": np.array([[np.nan, 0]], F)}, row(allow_non_finite=True, minimum=0, maximum=1), None, None),
    ({"x": np.array([[0, 60000]], np.float16)}, row(DType.FP16, maximum=70000), None, None),
    ({"text": bytes_tensor(["ä".encode() * 11])}, TEXT, "text_too_long", "/inputs/text/0"),
    ({"text": bytes_tensor([b"a", b"\xff"])}, TEXT, "wrong_dtype", "/inputs/text/1"),
    ({"x": bytes_tensor([b"\xff", b""]).reshape(1, 2)}, row(DType.BYTES), None, None),
]


@pytest.mark.parametrize(("tensors", "signature", "code", "place"), CASES)
def test_conform(tensors: dict[str, Array], signature: Signature, code: str | None, place: str | None) -> None:
    if code is None:
        assert_fits(conform(Inputs(tensors), signature), signature)
    else:
        assert refuse(tensors, signature) == (code, place)


def test_order_is_that_of_the_signature() -> None:
    tensors: dict[str, Array] = {"x": np.zeros((2, 2), F), "i/d": np.zeros(2, np.int64)}
    assert list(conform(Inputs(tensors), PAIR)) == ["i/d", "x"]


def test_pointers_are_of_the_layout_that_was_given() -> None:
    pixels = np.zeros((2, 8, 8), F)
    pixels[1, 7, 6] = np.nan
    assert refuse({"x": pixels}, PIXELS) == ("not_finite", "/inputs/x/1/7/6")


def test_no_copy_of_what_fits() -> None:
    array = np.zeros((2, 2), F)
    assert conform(Inputs({"x": array}), row())["x"] is array


@pytest.mark.parametrize(
    ("rows", "batched", "code"), [(0, True, "empty_batch"), (5, True, "batch_too_large"), (2, False, "batch_too_large")]
)
def test_check_rows(rows: int, batched: bool, code: str) -> None:
    signature = takes(spec("x", DType.FP32, (None,)), batched=batched)
    check_rows(1, signature, "/instances")
    with pytest.raises(InvalidRequest) as caught:
        check_rows(rows, signature, "/instances")
    assert caught.value.code == code


LAYOUTS = st.sampled_from([(), ((2, 3),), ((2, 3), (3, 2)), ((1, 6), (6, 1, 1))])
DTYPES = st.sampled_from([dtype for dtype in DType if dtype is not DType.BYTES])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Signature, Array]:
    batched = draw(st.booleans())
    shape = draw(st.sampled_from([(6,), (None,), (None, 3), (2, 3), (2, None)]))
    wanted = TensorSpec("x", draw(DTYPES), ((None,) if batched else ()) + shape, layouts=draw(LAYOUTS))
    given = draw(
        st.sampled_from([(6,), (2, 3), (3, 2), (1, 6), (6, 1, 1), (), (5,), (1, 2, 3), (2, 2, 3), (4, 6), (0, 6)])
    )
    dtype = draw(st.sampled_from([wanted.dtype] * 4 + [DType.FP32]))
    return takes(wanted, batched=batched), draw(hnp.arrays(NUMPY_DTYPES[dtype], given))


@BOUNDED
@given(cases())
def test_only_declared_layouts_are_reshaped(case: tuple[Signature, Any]) -> None:
    signature, array = case
    try:
        tensors = conform(Inputs({"x": np.asarray(array)}, locate_by_name), signature)
    except InvalidRequest:
        return
    assert_fits(tensors, signature)
    lead = int(signature.batched)
    assert tensors["x"].shape == array.shape or array.shape[lead:] in signature.inputs[0].layouts
    assert tensors["x"].shape[:lead] == array.shape[:lead]
    assert tensors["x"].tobytes() == array.tobytes()
