"""Answers of a batch's rows, written together, against the strict encoder on each row."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.codecs.batch_rows import BatchRows, RowOutputs
from shared.codecs.v2 import V2Response, encode_response, to_wire
from shared.codecs.v2_quick_answer import quick_v2_row
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, bytes_tensor

NUMBERS = [dtype for dtype in DType if dtype not in (DType.BYTES, DType.BF16)]


def signature_of(outputs: dict[str, tuple[DType, Any]]) -> Signature:
    specs = tuple(TensorSpec(name, dtype, (None, *array.shape[1:])) for name, (dtype, array) in outputs.items())
    return Signature((), specs)


def strict(row: RowOutputs, signature: Signature, request_id: str) -> Any:
    dtypes = {spec.name: spec.dtype for spec in signature.outputs}
    response = V2Response("m", "3", to_wire(dict(row), dtypes), request_id)
    return orjson.loads(encode_response(response, binary=False)[0])


@st.composite
def batches(draw: st.DrawFn) -> dict[str, tuple[DType, Any]]:
    rows = draw(st.integers(1, 5))
    outputs: dict[str, tuple[DType, Any]] = {}
    for name in draw(st.lists(st.sampled_from(["y", "z", 'q"']), min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(NUMBERS))
        shape = (rows, *draw(st.lists(st.integers(0, 3), max_size=2)))
        outputs[name] = dtype, draw(arrays.arrays(NUMPY_DTYPES[dtype], shape))
    return outputs


@given(batches(), st.sampled_from(["", "id-1", 'é"\\']))
def test_every_row_reads_as_the_strict_encoder_writes_it(
    outputs: dict[str, tuple[DType, Any]], request_id: str
) -> None:
    signature = signature_of(outputs)
    batch = BatchRows({name: array for name, (_, array) in outputs.items()})
    rows = len(next(iter(batch.outputs.values())))
    for index in range(rows):
        row = RowOutputs(batch, index)
        body = quick_v2_row("m", 3, request_id, row, signature)
        assert body is not None
        assert orjson.loads(body) == strict(row, signature, request_id)


def test_nan_and_infinity_are_null() -> None:
    array = np.array([[1, np.nan], [np.inf, 2]], dtype=np.float32)
    signature = signature_of({"y": (DType.FP32, array)})
    row = RowOutputs(BatchRows({"y": array}), 1)
    body = quick_v2_row("m", 3, "", row, signature)
    assert orjson.loads(body or b"")["outputs"][0]["data"] == [None, 2]


@pytest.mark.parametrize("dtype", [DType.BYTES, DType.BF16])
def test_what_is_no_plain_number_is_left_to_the_strict_encoder(dtype: DType) -> None:
    array = bytes_tensor([b"a"]) if dtype is DType.BYTES else np.array([1], dtype=np.uint16)
    signature = signature_of({"y": (dtype, array)})
    assert quick_v2_row("m", 3, "", RowOutputs(BatchRows({"y": array}), 0), signature) is None


def test_a_row_is_a_mapping_of_views() -> None:
    array = np.arange(6).reshape(3, 2)
    row = RowOutputs(BatchRows({"y": array, "z": array[:, 0]}), 1)
    assert list(row) == ["y", "z"]
    assert len(row) == 2
    assert row["y"].tolist() == [[2, 3]]
    assert row["z"].tolist() == [2]
    assert np.shares_memory(row["y"], array)
