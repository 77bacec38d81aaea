"""Tensors: NumPy arrays by name, with the dtypes of the Open Inference Protocol.

A `BYTES` tensor is an array of dtype object whose elements are `bytes`; text in it is UTF-8.
BF16 has no NumPy dtype: it is carried as its raw 16 bits in an array of uint16.
Source of the names: Open Inference Protocol, "Tensor Data Types".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.domain.dtypes import DType

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

NUMPY_DTYPES: Mapping[DType, np.dtype[np.generic]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.UINT8: np.dtype(np.uint8),
    DType.UINT16: np.dtype(np.uint16),
    DType.UINT32: np.dtype(np.uint32),
    DType.UINT64: np.dtype(np.uint64),
    DType.INT8: np.dtype(np.int8),
    DType.INT16: np.dtype(np.int16),
    DType.INT32: np.dtype(np.int32),
    DType.INT64: np.dtype(np.int64),
    DType.FP16: np.dtype(np.float16),
    DType.BF16: np.dtype(np.uint16),
    DType.FP32: np.dtype(np.float32),
    DType.FP64: np.dtype(np.float64),
    DType.BYTES: np.dtype(np.object_),
}


def bytes_tensor(values: list[bytes]) -> Array:
    """A BYTES tensor of shape [len(values)]."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def bf16_to_fp32(raw: Array) -> npt.NDArray[np.float32]:
    """The FP32 values of BF16 bits (uint16, any shape): BF16 is the upper half of FP32."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def fp32_to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """BF16 bits (uint16) of FP32 values, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)  # at least one axis, so sums wrap silently
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16).reshape(values.shape)
