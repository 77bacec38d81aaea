"""Data types of the Open Inference Protocol; free of NumPy, which what only describes models does not need."""

from enum import StrEnum


class DType(StrEnum):
    """Data types of the Open Inference Protocol."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def is_float(self) -> bool:
        """Whether values can be NaN or infinite."""
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether this is a signed or unsigned integer."""
        return self.value.startswith(("INT", "UINT"))


_FLOATS = frozenset({DType.FP16, DType.BF16, DType.FP32, DType.FP64})
