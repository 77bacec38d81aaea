"""The response cache: what makes two requests the same, and the bounds of what is kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_service.inference.response_cache import RequestKeys, ResponseCache
from shared.domain.dtypes import DType
from shared.domain.serving import CachePolicy
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import Array, bytes_tensor


def keys_of(dtypes: Mapping[str, DType], name: str = "m", version: int = 1, digest: str = "") -> RequestKeys:
    inputs = tuple(TensorSpec(tensor, dtype, (None,)) for tensor, dtype in dtypes.items())
    return RequestKeys(name, version, Signature(inputs, (TensorSpec("y", DType.FP32, (None,)),)), digest)


FLOATS = {"a": DType.FP32, "b": DType.FP32}


def floats(*values: float) -> Array:
    return np.array(values, dtype=np.float32)


BASE: dict[str, Any] = {
    "name": "m",
    "version": 1,
    "digest": "d",
    "dtypes": FLOATS,
    "tenant": "t",
    "inputs": {"a": floats(1, 2), "b": floats(3)},
    "outputs": ("y", "z"),
    "parameters": {"p": 1},
}


def key_of(**changes: Any) -> bytes:
    fields = BASE | changes
    keys = keys_of(fields["dtypes"], fields["name"], fields["version"], fields["digest"])
    return keys.key(fields["tenant"], fields["inputs"], fields["outputs"], fields["parameters"])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n"},
        {"version": 2},
        {"version": 11, "name": ""},
        {"digest": "e"},
        {"tenant": "u"},
        {"tenant": ""},
        {"inputs": {"a": floats(1, 2)}},
        {"inputs": {"a": floats(1, 2.0000002), "b": floats(3)}},
        {"inputs": {"a": floats(3), "b": floats(1, 2)}},
        {"inputs": {"a": floats(1, 2, 3), "b": floats()}},
        {"inputs": {"a": floats(1, 2).reshape(1, 2), "b": floats(3)}},
        {"inputs": {"a": floats(1, 2), "b": floats(3).reshape(1, 1)}},
        {"inputs": {"a": floats(1, 2), "c": floats(3)}, "dtypes": FLOATS | {"c": DType.FP32}},
        {"inputs": {"a": floats(-0.0, 2), "b": floats(3)}},
        {"dtypes": FLOATS | {"b": DType.INT32}},
        {"outputs": ("z", "y")},
        {"outputs": ("y",)},
        {"outputs": ()},
        {"outputs": ("yz",)},
        {"parameters": {}},
        {"parameters": {"p": 2}},
        {"parameters": {"p": 1.0}},
        {"parameters": {"p": True}},
        {"parameters": {"p": "1"}},
        {"parameters": {"p": None}},
        {"parameters": {"p": [1]}},
        {"parameters": {"p": {"1": 1}}},
        {"parameters": {"q": 1}},
        {"parameters": {"p": 1, "q": 1}},
    ],
)
def test_every_part_counts(change: dict[str, Any]) -> None:
    assert key_of(**change) != key_of()


def test_equal_requests_have_one_key_however_their_tensors_lie_in_memory() -> None:
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    given = [wide[:, ::2], np.asfortranarray(wide[:, ::2]), wide[:, ::2].copy()]
    assert len({key_of(inputs={"b": floats(3), "a": array}) for array in given}) == 1
    assert key_of(inputs={"b": floats(3), "a": given[0]}) == key_of(inputs={"a": given[0], "b": floats(3)})
    assert key_of(inputs={"a": wide.T, "b": floats(3)}) != key_of(inputs={"a": wide.reshape(4, 3), "b": floats(3)})


def test_the_order_of_parameters_does_not_count() -> None:
    assert key_of(parameters={"p": 1, "q": 2}) == key_of(parameters={"q": 2, "p": 1})


def test_bf16_and_uint16_differ_though_their_arrays_do_not() -> None:
    array = {"a": np.array([1, 2], dtype=np.uint16)}
    one, two = (key_of(inputs=array, dtypes={"a": dtype}) for dtype in (DType.BF16, DType.UINT16))
    assert one != two


def test_an_encoded_image_differs_from_numbers() -> None:
    spec = TensorSpec("a", DType.UINT8, (None, 4), content=Content.IMAGE)
    keys = RequestKeys("m", 1, Signature((spec,), (spec,)))
    encoded = bytes_tensor([b"abcd"])
    pixels = np.frombuffer(b"abcd", dtype=np.uint8)
    assert keys.key("", {"a": encoded}, (), {}) != keys.key("", {"a": pixels}, (), {})
    again = bytes_tensor([bytes(bytearray(b"abcd"))])
    assert keys.key("", {"a": encoded}, (), {}) == keys.key("", {"a": again}, (), {})


def test_the_order_of_dimensions_counts() -> None:
    one, two = (key_of(inputs={"a": floats(1, 2).reshape(shape)}) for shape in ((1, 2), (2, 1)))
    assert one != two


STRINGS = st.lists(st.binary(max_size=4), max_size=4)


@given(STRINGS, STRINGS)
def test_strings_cannot_be_cut_otherwise(one: list[bytes], two: list[bytes]) -> None:
    first, second = (
        key_of(inputs={"a": bytes_tensor(values)}, dtypes={"a": DType.BYTES}, outputs=(), parameters={})
        for values in (one, two)
    )
    assert (first == second) == (one == two)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
NAMED = st.dictionaries(st.text(max_size=2), JSON, max_size=3)


@given(st.lists(st.text(max_size=2), max_size=3), NAMED, st.lists(st.text(max_size=2), max_size=3), NAMED)
def test_names_and_parameters_cannot_run_into_one_another(
    outputs: list[str], parameters: dict[str, Any], other_outputs: list[str], other_parameters: dict[str, Any]
) -> None:
    one = key_of(outputs=tuple(outputs), parameters=parameters)
    two = key_of(outputs=tuple(other_outputs), parameters=other_parameters)
    same = outputs == other_outputs and repr(_sorted(parameters)) == repr(_sorted(other_parameters))
    assert (one == two) == same


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {"": [(name, _sorted(value[name])) for name in sorted(value)]}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def cache_of(max_bytes: int, ttl_s: float | None = None) -> ResponseCache:
    return ResponseCache(CachePolicy(max_bytes, ttl_s))


def answer(value: float, size: int = 100) -> dict[str, Array]:
    return {"y": np.full(size, value, dtype=np.float32)}


def test_what_was_put_is_got() -> None:
    cache = cache_of(100_000)
    assert cache.get(b"k", 0.0) is None
    cache.put(b"k", answer(1) | {"s": bytes_tensor([b"x"])}, 0.0)
    got = cache.get(b"k", 1e9)
    assert got is not None
    assert got["y"].tolist() == [1.0] * 100
    assert got["s"].tolist() == [b"x"]
    assert cache.get(b"other", 0.0) is None


def test_what_is_kept_cannot_be_changed_from_outside() -> None:
    cache = cache_of(100_000)
    given = answer(1)
    cache.put(b"k", given, 0.0)
    given["y"][:] = 9
    got = cache.get(b"k", 0.0)
    assert got is not None
    with pytest.raises(ValueError, match="read-only"):
        got["y"][0] = 5
    del got["y"]
    again = cache.get(b"k", 0.0)
    assert again is not None
    assert again["y"].tolist() == [1.0] * 100


def test_a_view_does_not_keep_its_batch_alive() -> None:
    cache = cache_of(10_000)
    batch = np.zeros((1000, 10), dtype=np.float32)
    cache.put(b"k", {"y": batch[3:4]}, 0.0)
    got = cache.get(b"k", 0.0)
    assert got is not None
    assert got["y"].base is None
    assert cache.nbytes < 1000


def test_entries_expire() -> None:
    cache = cache_of(10_000, ttl_s=10.0)
    cache.put(b"k", answer(1), 100.0)
    assert cache.get(b"k", 109.9) is not None
    assert cache.get(b"k", 110.0) is None
    assert (len(cache), cache.nbytes) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    cache = cache_of(4000)
    for name in (b"a", b"b", b"c"):
        cache.put(name, answer(1), 0.0)
    cache.get(b"a", 0.0)
    cache.put(b"d", answer(1), 0.0)
    assert [cache.get(name, 0.0) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_an_answer_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = cache_of(4000)
    cache.put(b"a", answer(1), 0.0)
    cache.put(b"b", answer(1, 5000), 0.0)
    assert cache.get(b"b", 0.0) is None
    assert cache.get(b"a", 0.0) is not None


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 600), st.integers(0, 3)), max_size=60))
def test_the_bound_holds_and_the_count_is_right(steps: list[tuple[int, int, int]]) -> None:
    cache = cache_of(5000, ttl_s=10.0)
    for now, (name, size, strings) in enumerate(steps):
        cache.put(b"%d" % name, answer(name, size) | {"s": bytes_tensor([b"x" * size] * strings)}, now)
        assert cache.nbytes <= 5000
        got = cache.get(b"%d" % name, now)
        assert got is None or got["y"].tolist() == [name] * size
    for name in range(9):
        cache.get(b"%d" % name, 1000.0)
    assert (len(cache), cache.nbytes) == (0, 0)
