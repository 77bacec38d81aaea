"""BF16 against a reference, and the other small promises of `tensors` and `dtypes`."""

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain.dtypes import DType
from shared.domain.tensors import NUMPY_DTYPES, bf16_to_fp32, bytes_tensor, fp32_to_bf16
from tests.codecs.signatures import BOUNDED


def nearest_bf16(value: float) -> int:
    """Round to 8 significant bits, ties to even, in exact rational arithmetic; subnormals have 2^-133 steps."""
    sign = 0x8000 if math.copysign(1, value) < 0 else 0
    size = abs(value)
    if math.isinf(size) or size == 0:
        return sign | (0x7F80 if size else 0)
    step = math.ldexp(1, max(math.frexp(size)[1] - 8, -133))
    rounded = round(size / step) * step  # round() goes to even
    if rounded >= math.ldexp(1, 128):
        return sign | 0x7F80
    bits: int = struct.unpack("<I", struct.pack("<f", rounded))[0]
    return sign | bits >> 16


@BOUNDED
@given(st.floats(width=32, allow_nan=False))
@example(1.00390625)  # a tie, to even: down
@example(1.01171875)  # a tie, to even: up
@example(3.3895314e38)
@example(3.4028235e38)
@example(1e-45)
@example(-0.0)
def test_fp32_to_bf16_rounds_to_nearest_even(value: float) -> None:
    assert int(fp32_to_bf16(np.array(value, np.float32))) == nearest_bf16(value)


def test_every_bf16_survives_fp32() -> None:
    every = np.arange(2**16, dtype=np.uint16)
    back = fp32_to_bf16(bf16_to_fp32(every))
    nan = np.isnan(bf16_to_fp32(every))
    assert (back[~nan] == every[~nan]).all()
    assert np.isnan(bf16_to_fp32(back[nan])).all()


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0xFFFF8000])
def test_nan_stays_nan(bits: int) -> None:
    value = np.array(bits, np.uint32).view(np.float32)
    assert np.isnan(bf16_to_fp32(fp32_to_bf16(value)))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (2, 0, 3)])
def test_bf16_keeps_shapes(shape: tuple[int, ...]) -> None:
    assert fp32_to_bf16(np.ones(shape, np.float32)).shape == shape
    assert fp32_to_bf16(np.ones(shape, np.float32).T).shape == shape[::-1]
    assert bf16_to_fp32(np.ones(shape, np.uint16)).shape == shape


def test_bytes_tensor_keeps_every_byte() -> None:
    values = [b"", b"a\x00", b"\x00", b"\xff" * 3]
    assert bytes_tensor(values).tolist() == values
    assert bytes_tensor([]).shape == (0,)


def test_dtypes_have_a_numpy_dtype_and_a_kind() -> None:
    assert set(NUMPY_DTYPES) == set(DType)
    kinds = {dtype: NUMPY_DTYPES[dtype].kind for dtype in DType if dtype is not DType.BF16}
    assert {dtype for dtype, kind in kinds.items() if kind == "f"} | {DType.BF16} == {d for d in DType if d.is_float}
    assert {dtype for dtype, kind in kinds.items() if kind in "iu"} == {d for d in DType if d.is_integer}
