"""Signatures that the tests of codecs decode by, and short ways to decode."""

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import HealthCheck, settings

from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.dtypes import DType
from shared.domain.signature import Content, Dim, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Tensors
from shared.domain.validation import conform

LIMITS = JsonLimits()
# The same examples in every run, few enough for a suite that runs on each change.
BOUNDED = settings(
    derandomize=True,
    database=None,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MANY = settings(BOUNDED, max_examples=300)


def spec(name: str, dtype: DType, shape: Sequence[Dim], **more: Any) -> TensorSpec:
    return TensorSpec(name, dtype, tuple(shape), **more)


def takes(*inputs: TensorSpec, batched: bool = True, max_batch: int = 4) -> Signature:
    output = spec("y", DType.FP32, (None,) if batched else ())
    return Signature(inputs=inputs, outputs=(output,), batched=batched, max_batch=max_batch)


def row(dtype: DType = DType.FP32, width: int = 2, **more: Any) -> Signature:
    """One input `x` of `width` elements an instance."""
    return takes(spec("x", dtype, (None, width), **more))


NAMED = row(width=3, features=("a", "b/c", "d~e"))
PIXELS = row(width=64, layouts=((8, 8), (64, 1)), content=Content.IMAGE)
PAIR = takes(spec("i/d", DType.INT64, (None,)), spec("x", DType.FP32, (None, 2)))
TEXT = takes(spec("text", DType.BYTES, (None,), content=Content.TEXT, max_length=10))
SCALAR = takes(spec("x", DType.FP32, ()), batched=False)
GRID = takes(spec("x", DType.FP32, (2, None)), batched=False)
ALL = (NAMED, PIXELS, PAIR, TEXT, SCALAR, GRID, *(row(dtype) for dtype in DType))


def decode(document: Any, signature: Signature, limits: JsonLimits = LIMITS) -> Tensors:
    """The canonical tensors of a body, given as bytes or as what becomes JSON."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return conform(decode_instances(body, signature, limits), signature)


def assert_fits(tensors: Tensors, signature: Signature) -> None:
    """Every promise that a decoded batch makes to a backend."""
    assert list(tensors) == [spec.name for spec in signature.inputs]
    rows = {tensors[spec.name].shape[0] for spec in signature.inputs} if signature.batched else {1}
    assert len(rows) == 1
    assert 1 <= rows.pop() <= signature.max_batch
    for wanted in signature.inputs:
        array = tensors[wanted.name]
        image = wanted.takes_images and array.dtype == object
        shape = wanted.shape[: int(signature.batched)] if image else wanted.shape
        assert array.dtype == (object if image else NUMPY_DTYPES[wanted.dtype])
        assert len(array.shape) == len(shape)
        assert all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
        if array.dtype == object:
            assert all(isinstance(value, bytes) for value in array.flat)
