"""Parts of larger tensors: rows that do not lie one after the other are written all the same."""

import numpy as np
import orjson

from shared.codecs.batch_rows import BatchRows, RowOutputs
from shared.codecs.v2_quick_answer import quick_v2_answer, quick_v2_row
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec

SIGNATURE = Signature((), (TensorSpec("y", DType.FP32, (None, None)),))


def test_an_answer_in_strides() -> None:
    array = np.arange(16, dtype=np.float32).reshape(2, 8)[:, :1]
    found = quick_v2_answer("m", "1", "", {"y": array}, SIGNATURE, binary=False)
    assert found is not None
    assert orjson.loads(found[0])["outputs"][0]["data"] == [0, 8]


def test_a_row_of_a_batch_in_strides() -> None:
    array = np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::3]
    row = RowOutputs(BatchRows({"y": array}), 1)
    body = quick_v2_row("m", 1, "", row, SIGNATURE)
    assert body is not None
    assert orjson.loads(body)["outputs"][0]["data"] == [8, 11, 14]
