"""Batches: what may merge, and that everybody gets their own rows back."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpu_service.scheduling.batch import Batch, BatchPlan
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError
from shared.domain.serving import Padding, ServingPolicy, StateTensor, Unpadding
from shared.domain.signature import Content, Dim, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bf16_to_fp32, bytes_tensor


class Request:
    def __init__(self, inputs: dict[str, Array], outputs: tuple[str, ...] = (), rows: int | None = None) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.rows = len(next(iter(inputs.values()))) if rows is None else rows
        self.result: Tensors | None = None


def spec(name: str, shape: tuple[Dim, ...], dtype: DType = DType.FP32, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, dtype, shape, optional=optional)


def signature(*inputs: TensorSpec, outputs: Sequence[TensorSpec] = (), batched: bool = True) -> Signature:
    return Signature(inputs, tuple(outputs) or (spec("y", (None, 2)),), batched=batched)


def plan_of(*inputs: TensorSpec, outputs: Sequence[TensorSpec] = (), **policy: object) -> BatchPlan:
    return BatchPlan(signature(*inputs, outputs=outputs), ServingPolicy(**policy))  # type: ignore[arg-type]


def numbers(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def run(batch: Batch) -> dict[str, Array]:
    """What a model would give that returns its inputs."""
    wanted = batch.outputs or tuple(batch.tensors)
    return {name: batch.tensors[name].copy() for name in wanted}


FIXED = plan_of(spec("x", (None, 3)))


def test_requests_of_a_fixed_shape_always_merge() -> None:
    assert FIXED.shape_key({"x": numbers(1, 3)}) == FIXED.shape_key({"x": numbers(7, 3)})


def test_different_shapes_of_a_row_never_merge() -> None:
    plan = plan_of(spec("x", (None, None)), spec("z", (None, None, 2)))
    keys = [plan.shape_key({"x": numbers(1, x), "z": numbers(1, z, 2)}) for x, z in ((3, 4), (4, 3), (3, 3), (4, 4))]
    assert len(set(keys)) == 4
    assert plan.shape_key({"x": numbers(5, 3), "z": numbers(5, 4, 2)}) == keys[0]


def test_requests_without_a_batch_axis_never_merge() -> None:
    plan = BatchPlan(signature(spec("x", (3,)), batched=False), ServingPolicy())
    assert plan.shape_key({"x": numbers(3)}) != plan.shape_key({"x": numbers(3)})


@pytest.mark.parametrize(
    "policy",
    [ServingPolicy(batching=False), ServingPolicy(state=(StateTensor("h", "h2", DType.FP32, (None, 4)),))],
)
def test_a_policy_may_forbid_merging(policy: ServingPolicy) -> None:
    plan = BatchPlan(signature(spec("x", (None, 3))), policy)
    assert plan.shape_key({"x": numbers(1, 3)}) != plan.shape_key({"x": numbers(1, 3)})


def test_only_the_same_optional_inputs_merge() -> None:
    plan = plan_of(spec("x", (None, 3)), spec("o", (None, 1), optional=True))
    x, o = numbers(1, 3), numbers(1, 1)
    assert plan.shape_key({"x": x, "o": o}) != plan.shape_key({"x": x})
    assert plan.shape_key({"x": x, "o": o}) == plan.shape_key({"x": x + 1, "o": o + 1})


def test_an_input_for_all_rows_keeps_its_request_alone() -> None:
    plan = plan_of(spec("x", (None, 3)), spec("scale", (), optional=True))
    x = numbers(1, 3)
    assert plan.shape_key({"x": x, "scale": numbers()}) != plan.shape_key({"x": x, "scale": numbers()})
    assert plan.shape_key({"x": x}) == plan.shape_key({"x": x})


def test_encoded_images_do_not_merge_with_numbers() -> None:
    plan = plan_of(TensorSpec("x", DType.FP32, (None, 4), content=Content.IMAGE))
    assert plan.shape_key({"x": numbers(1, 4)}) != plan.shape_key({"x": bytes_tensor([b"png"])})


@pytest.mark.parametrize("shape", [(None, None), (None, 2, None)])
def test_texts_do_not_merge_where_the_longest_would_set_an_answers_shape(shape: tuple[Dim, ...]) -> None:
    text = TensorSpec("x", DType.BYTES, (None,), content=Content.TEXT)
    plan = plan_of(text, outputs=[spec("y", shape)])
    assert plan.shape_key({"x": bytes_tensor([b"a"])}) != plan.shape_key({"x": bytes_tensor([b"a"])})
    fixed = plan_of(text, outputs=[spec("y", (None, 4))])
    assert fixed.shape_key({"x": bytes_tensor([b"a"])}) == fixed.shape_key({"x": bytes_tensor([b"long text"])})


def test_a_lone_request_is_not_copied() -> None:
    request = Request({"x": numbers(2, 3)})
    batch = Batch([request], FIXED)
    assert batch.tensors["x"] is request.inputs["x"]
    y = numbers(2, 2)
    batch.split({"y": y})
    assert request.result is not None
    assert request.result["y"] is y


DTYPES = st.sampled_from([dtype for dtype in DType if dtype is not DType.BYTES])
WANTS = st.sampled_from([(), ("x",), ("z",), ("z", "x")])


@given(DTYPES, st.lists(st.tuples(st.integers(1, 4), WANTS), min_size=1, max_size=9), st.data())
def test_everybody_gets_their_own_rows(
    dtype: DType, sizes: list[tuple[int, tuple[str, ...]]], data: st.DataObject
) -> None:
    inner = data.draw(st.sampled_from([(), (3,), (2, 2), (0,)]))
    plan = plan_of(spec("x", (None, *inner), dtype), spec("z", (None,), DType.BYTES))
    requests = [
        Request(
            {
                "x": data.draw(arrays(NUMPY_DTYPES[dtype], (rows, *inner))),
                "z": bytes_tensor([data.draw(st.binary(max_size=3)) for _ in range(rows)]),
            },
            wanted,
        )
        for rows, wanted in sizes
    ]
    batch = Batch(requests, plan)
    assert batch.rows == sum(rows for rows, _ in sizes)
    assert batch.tensors["x"].dtype == NUMPY_DTYPES[dtype]
    batch.split(run(batch))
    for request in requests:
        assert request.result is not None
        assert tuple(request.result) == (request.outputs or ("x", "z"))
        for name, array in request.result.items():
            np.testing.assert_array_equal(array, request.inputs[name])
            assert array.shape == request.inputs[name].shape


def test_views_of_other_arrays_merge_by_value() -> None:
    wide = numbers(4, 6)
    parts = [wide[:, ::2], np.asfortranarray(numbers(2, 3)), wide[::-1, 3:]]
    batch = Batch([Request({"x": part}) for part in parts], FIXED)
    np.testing.assert_array_equal(batch.tensors["x"], np.concatenate(parts))


@pytest.mark.parametrize(
    ("wants", "union"),
    [([("a",), ("b",)], {"a", "b"}), ([("a",), ()], set()), ([("b",), ("b",)], {"b"}), ([(), ()], set())],
)
def test_a_batch_asks_for_what_anybody_wants(wants: list[tuple[str, ...]], union: set[str]) -> None:
    batch = Batch([Request({"x": numbers(1, 3)}, want) for want in wants], FIXED)
    assert set(batch.outputs) == union


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("answered", [1, 2, 5])
def test_outputs_with_other_rows_go_to_nobody(rows: int, answered: int) -> None:
    requests = [Request({"x": numbers(rows, 3)}), Request({"x": numbers(rows, 3)})]
    batch = Batch(requests, FIXED)
    if answered == batch.rows:
        return
    with pytest.raises(BackendError, match=f"answered {batch.rows} rows"):
        batch.split({"y": numbers(answered, 2)})
    assert all(request.result is None for request in requests)


IDS = spec("ids", (None, None), DType.INT64)
PADDED = plan_of(
    IDS,
    spec("mask", (None, None), DType.INT64),
    outputs=[spec("y", (None, None))],
    padding=(Padding("ids", 1, 9, buckets=(4, 8)), Padding("mask", 1, 0, buckets=(4, 8))),
    unpad=(Unpadding("ids", 1, "ids", 1), Unpadding("mask", 1, "mask", 1)),
)


def tokens(rows: int, length: int) -> dict[str, Array]:
    ids = np.arange(rows * length, dtype=np.int64).reshape(rows, length)
    return {"ids": ids, "mask": np.ones((rows, length), dtype=np.int64)}


def test_requests_of_one_bucket_merge_padded() -> None:
    requests = [Request(tokens(1, 3)), Request(tokens(2, 4)), Request(tokens(1, 1))]
    assert len({PADDED.shape_key(request.inputs) for request in requests}) == 1
    batch = Batch(requests, PADDED)
    assert batch.tensors["ids"].tolist() == [[0, 1, 2, 9], [0, 1, 2, 3], [4, 5, 6, 7], [0, 9, 9, 9]]
    assert batch.tensors["mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize("lengths", [(3, 5), (4, 8), (8, 9), (9, 10)])
def test_other_buckets_do_not_merge(lengths: tuple[int, int]) -> None:
    one, two = (PADDED.shape_key(tokens(1, length)) for length in lengths)
    assert one != two


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=6))
def test_padding_is_cut_from_the_answers(sizes: list[tuple[int, int]]) -> None:
    requests = [Request(tokens(*size)) for size in sizes]
    batch = Batch(requests, PADDED)
    assert batch.tensors["ids"].shape == (batch.rows, 4)
    batch.split(run(batch))
    for request in requests:
        assert request.result is not None
        for name in ("ids", "mask"):
            np.testing.assert_array_equal(request.result[name], request.inputs[name])


def test_what_is_larger_than_every_bucket_stays_as_it_is() -> None:
    request = Request(tokens(2, 11))
    batch = Batch([request], PADDED)
    assert batch.tensors["ids"] is request.inputs["ids"]


def test_a_signature_without_a_batch_axis_is_padded_too() -> None:
    plan = BatchPlan(
        signature(spec("x", (None,)), outputs=[spec("x", (None,))], batched=False),
        ServingPolicy(padding=(Padding("x", 0, -1.0, multiple_of=4),), unpad=(Unpadding("x", 0, "x", 0),)),
    )
    request = Request({"x": numbers(5)}, rows=1)
    batch = Batch([request], plan)
    assert batch.tensors["x"].tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    batch.split(run(batch))
    assert request.result is not None
    assert request.result["x"].tolist() == [0, 1, 2, 3, 4]


def test_padding_values_have_the_inputs_dtype() -> None:
    rules = (Padding("h", 1, 1.5, multiple_of=4), Padding("s", 1, "", multiple_of=2), Padding("b", 1, True, (3,)))
    plan = plan_of(
        spec("h", (None, None), DType.BF16),
        spec("s", (None, None), DType.BYTES),
        spec("b", (None, None), DType.BOOL),
        padding=rules,
    )
    words = bytes_tensor([b"a\0"]).reshape(1, 1)
    inputs = {"h": np.zeros((1, 3), dtype=np.uint16), "s": words, "b": np.zeros((1, 1), dtype=np.bool_)}
    tensors = Batch([Request(inputs)], plan).tensors
    assert bf16_to_fp32(tensors["h"]).tolist() == [[0, 0, 0, 1.5]]
    assert tensors["s"].tolist() == [[b"a\0", b""]]
    assert tensors["b"].tolist() == [[False, True, True]]
