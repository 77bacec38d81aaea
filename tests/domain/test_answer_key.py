"""Keys of kept answers: whatever could change the answer changes the key, and nothing else does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.domain.answer_key import PUBLIC, answer_key, is_repeatable, tenant_of
from shared.domain.dtypes import DType
from shared.domain.model import ModelVersion, Placement
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, bytes_tensor
from tests.codecs.signatures import BOUNDED, MANY

SIGNATURE = Signature((TensorSpec("x", DType.FP32, (None, 2)),), (TensorSpec("y", DType.FP32, (None,)),))
VERSION = ModelVersion("iris", 3, "d" * 64, (), SIGNATURE, Placement.FUNCTION, "2026-01-01T00:00:00Z")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Request:
    """All that goes into a key."""

    inputs: dict[str, Array]
    version: ModelVersion = VERSION
    outputs: tuple[str, ...] = ()
    parameters: Any = None
    tenant: str | None = "acme"
    endpoint: str = "iris"

    @property
    def key(self) -> str:
        return answer_key(self.version, self.inputs, self.outputs, self.parameters or {}, self.tenant, self.endpoint)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    dtype, shape = draw(st.sampled_from(DType)), draw(SHAPES)
    if dtype is not DType.BYTES:
        return np.asarray(draw(hnp.arrays(NUMPY_DTYPES[dtype], shape)))
    size = int(np.prod(shape, dtype=int))
    return bytes_tensor(draw(st.lists(st.binary(max_size=4), min_size=size, max_size=size))).reshape(shape)


REQUESTS = st.dictionaries(st.text(min_size=1, max_size=3), arrays(), min_size=1, max_size=3).map(Request)


def contents(array: Array) -> object:
    """What must be equal for two tensors to be the same."""
    values = array.reshape(-1).tolist() if array.dtype == np.object_ else array.tobytes()
    return (array.dtype, array.shape, values)


@MANY
@given(REQUESTS, REQUESTS)
def test_two_requests_share_a_key_only_if_their_inputs_are_the_same(one: Request, other: Request) -> None:
    same = {name: contents(array) for name, array in one.inputs.items()} == {
        name: contents(array) for name, array in other.inputs.items()
    }
    assert (one.key == other.key) is same


@BOUNDED
@given(REQUESTS, st.randoms(use_true_random=False))
def test_neither_the_order_of_inputs_nor_their_layout_counts(request_: Request, random: Any) -> None:
    names = list(request_.inputs)
    random.shuffle(names)
    laid_out: dict[str, Array] = {}
    for name in names:
        array = request_.inputs[name]
        wider = np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
        laid_out[name] = random.choice([np.asfortranarray(array).reshape(array.shape, order="A"), wider, array.copy()])
    assert replace(request_, inputs=laid_out).key == request_.key


@BOUNDED
@given(REQUESTS, st.data())
def test_every_single_byte_counts(request_: Request, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(request_.inputs)))
    array = request_.inputs[name]
    assume(array.size)
    changed = array.copy()
    if array.dtype == np.object_:
        flat = changed.reshape(-1)
        flat[data.draw(st.integers(0, flat.size - 1))] += b"\0"
    else:
        raw = changed.reshape(-1).view(np.uint8)
        raw[data.draw(st.integers(0, raw.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert replace(request_, inputs={**request_.inputs, name: changed}).key != request_.key


@MANY
@given(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.dictionaries(st.text(max_size=3), VALUES, max_size=3)
)
def test_parameters_count_by_their_json(one: dict[str, Any], other: dict[str, Any]) -> None:
    def kinds(value: Any) -> Any:
        """Equal for equal JSON: Python takes 1, 1.0 and True for the same."""
        if isinstance(value, dict):
            return {name: kinds(item) for name, item in value.items()}
        return [kinds(item) for item in value] if isinstance(value, list) else (type(value), repr(value))

    request_ = Request({"x": np.zeros((1, 2), np.float32)}, parameters=one)
    backwards = dict(reversed(one.items()))
    assert replace(request_, parameters=backwards).key == request_.key
    assert (replace(request_, parameters=other).key == request_.key) is (kinds(one) == kinds(other))


X = {"x": np.array([[0.0, 1.0]], np.float32)}
CHANGES: dict[str, Callable[[Request], Request]] = {
    "endpoint": lambda r: replace(r, endpoint="other"),
    "model": lambda r: replace(r, version=replace(VERSION, model="other")),
    "version": lambda r: replace(r, version=replace(VERSION, version=4)),
    "package": lambda r: replace(r, version=replace(VERSION, digest="e" * 64)),
    "tenant": lambda r: replace(r, tenant="globex"),
    "public": lambda r: replace(r, tenant=None),
    "a tenant called like the mark": lambda r: replace(r, tenant=PUBLIC),
    "outputs": lambda r: replace(r, outputs=("y",)),
    "parameters": lambda r: replace(r, parameters={"temperature": 0.5}),
    "name": lambda r: replace(r, inputs={"z": X["x"]}),
    "dtype": lambda r: replace(r, inputs={"x": X["x"].view(np.int32)}),
    "shape": lambda r: replace(r, inputs={"x": X["x"].reshape(2, 1)}),
    "one more input": lambda r: replace(r, inputs={**X, "z": np.zeros(0, np.float32)}),
    "sign of zero": lambda r: replace(r, inputs={"x": np.array([[-0.0, 1.0]], np.float32)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_part_counts(change: str) -> None:
    before = Request(X)
    after = CHANGES[change](before)
    assert before.key != after.key
    assert len({CHANGES[name](before).key for name in CHANGES}) == len(CHANGES)


def test_kinds_of_nan_differ() -> None:
    quiet, signalling = (np.array([[bits, 0]], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FA00000))
    assert Request({"x": quiet}).key != Request({"x": signalling}).key


def test_the_bounds_between_bytes_count() -> None:
    keys = {Request({"x": bytes_tensor(values)}).key for values in ([b"ab", b"c"], [b"a", b"bc"], [b"abc", b""])}
    assert len(keys) == 3


def test_large_inputs_in_any_layout_have_one_key() -> None:
    large = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    changed = large.copy()
    changed[-1, -1] += 1
    assert Request({"a": large, "b": large}).key == Request({"b": np.asfortranarray(large), "a": large}).key
    assert Request({"a": large, "b": large}).key != Request({"a": large, "b": changed}).key


def test_outputs_are_a_set() -> None:
    assert Request(X, outputs=("a", "b")).key == Request(X, outputs=("b", "a", "b")).key
    assert Request(X, outputs=("ab",)).key != Request(X, outputs=("a", "b")).key


@pytest.mark.parametrize("name", ["timeout", "priority", "binary_data_output"])
def test_what_cannot_change_the_outputs_does_not_count(name: str) -> None:
    assert Request(X, parameters={name: 1}).key == Request(X).key


def test_a_key_tells_its_tenant() -> None:
    assert tenant_of(Request(X).key) == "acme"
    assert tenant_of(Request(X, tenant=None).key) == PUBLIC
    assert len(Request(X).key) == len("acme/") + 64


def test_a_request_of_a_session_is_not_repeatable() -> None:
    assert is_repeatable({})
    assert is_repeatable({"sequence_id": 0, "timeout": 5})
    assert not is_repeatable({"sequence_id": 7})
    assert not is_repeatable({"sequence_id": "user-7", "sequence_start": True})
