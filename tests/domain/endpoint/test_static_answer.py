"""Static answers: what fits a signature, and the tensors that come of it."""

from typing import Any

import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.static_answer import problems, static_outputs
from shared.domain.errors import BackendError
from shared.domain.signature import Dim, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, bf16_to_fp32


def signature(
    dtype: DType, *shape: Dim, classes: tuple[str, ...] = (), batched: bool = True, name: str = "y"
) -> Signature:
    inputs = (TensorSpec("x", DType.FP32, (None, 1)),)
    return Signature(inputs, (TensorSpec(name, dtype, shape, classes=classes),), batched=batched)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((dtype, 3) for dtype in DType if dtype.is_integer),
        *((dtype, 0.5) for dtype in DType if dtype.is_float),
        (DType.BOOL, True),
    ],
)
def test_every_dtype(dtype: DType, value: Any, rows: int) -> None:
    made = static_outputs({"y": [value, value]}, signature(dtype, None, 2), rows)["y"]
    assert (made.shape, made.dtype) == ((rows, 2), NUMPY_DTYPES[dtype])
    assert made.flags.c_contiguous
    shown = bf16_to_fp32(made) if dtype is DType.BF16 else made
    assert shown.tolist() == [[value, value]] * rows


def test_text_and_bytes() -> None:
    made = static_outputs({"y": "grün"}, signature(DType.BYTES, None), 2)["y"]
    assert made.tolist() == ["grün".encode()] * 2
    made = static_outputs({"y": [{"b64": "AP8="}, "a"]}, signature(DType.BYTES, None, None), 1)["y"]
    assert made.tolist() == [[b"\x00\xff", b"a"]]


def test_values_by_class() -> None:
    spec = signature(DType.FP32, None, 2, classes=("yes", "no"))
    assert static_outputs({"y": {"no": 0.25, "yes": 0.75}}, spec, 2)["y"].tolist() == [[0.75, 0.25]] * 2
    assert [problem.pointer for problem in problems({"y": {"yes": 1}}, spec)] == ["/y/no"]
    assert [problem.pointer for problem in problems({"y": {"yes": 1, "no": 0, "maybe": 0}}, spec)] == ["/y/maybe"]


def test_axes_of_any_size_and_models_without_a_batch() -> None:
    three = static_outputs({"y": [[1, 2], [3, 4], [5, 6]]}, signature(DType.INT8, None, None, 2), 2)
    assert three["y"].shape == (2, 3, 2)
    assert static_outputs({"y": []}, signature(DType.INT8, None, None), 2)["y"].shape == (2, 0)
    assert static_outputs({"y": [1, 2]}, signature(DType.INT8, 2, batched=False), 1)["y"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "place", "detail"),
    [
        (DType.FP32, (None,), "0.5", "/y", "must be a number"),
        (DType.FP32, (None,), True, "/y", "must be a number"),
        (DType.FP32, (None,), 1e39, "/y", "does not fit FP32"),
        (DType.FP16, (None,), 70_000, "/y", "does not fit FP16"),
        (DType.FP64, (None,), float("nan"), "/y", "does not fit FP64"),
        (DType.FP64, (None,), None, "/y", "must be a number"),
        (DType.INT8, (None,), 128, "/y", "does not fit INT8 (-128 to 127)"),
        (DType.UINT64, (None,), -1, "/y", "does not fit UINT64"),
        (DType.INT32, (None,), 1.0, "/y", "must be an integer"),
        (DType.BOOL, (None,), 1, "/y", "must be true or false"),
        (DType.BYTES, (None,), 1, "/y", "must be a string"),
        (DType.BYTES, (None,), {"b64": "?"}, "/y/b64", "is not base64"),
        (DType.FP32, (None, 2), 1.0, "/y", "must be a list: one instance has the shape [2]"),
        (DType.FP32, (None, 2), [1.0], "/y", "has 1 elements; expected 2"),
        (DType.FP32, (None, 2), [1.0, "b"], "/y/1", "must be a number"),
        (DType.FP32, (None,), [1.0], "/y", "must be a number"),
        (DType.FP32, (None, None, None), [[1.0], [1.0, 2.0]], "/y/1", "has 2 elements; expected 1"),
    ],
)
def test_what_does_not_fit(dtype: DType, shape: tuple[Dim, ...], value: Any, place: str, detail: str) -> None:
    (problem,) = problems({"y": value}, signature(dtype, *shape), "/fallback/0/outputs")
    assert problem.pointer == f"/fallback/0/outputs{place}"
    assert detail in problem.detail
    with pytest.raises(BackendError, match="does not fit this version"):
        static_outputs({"y": value}, signature(dtype, *shape), 1)


def test_outputs_that_are_missing_or_unknown() -> None:
    found = problems({"z/1": 1}, signature(DType.FP32, None))
    assert [(problem.pointer, problem.detail[:10]) for problem in found] == [
        ("/z~11", "is not an "),
        ("/y", "is missing"),
    ]
    assert problems({"y": 1}, signature(DType.FP32, None)) == []


def test_rows_do_not_share_memory() -> None:
    made = static_outputs({"y": [1, 2]}, signature(DType.INT8, None, 2), 2)["y"]
    made[0, 0] = 9
    assert made.tolist() == [[9, 2], [1, 2]]
