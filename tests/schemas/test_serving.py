"""The block `serving` of a manifest: what it turns into, and what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from shared.domain.dtypes import DType
from shared.domain.serving import CachePolicy, Padding, ServingPolicy, StateTensor, Unpadding
from shared.schemas.manifest import Manifest

INPUTS: list[dict[str, Any]] = [
    {"name": "ids", "dtype": "INT64", "shape": [-1, -1], "minimum": 0, "maximum": 100},
    {"name": "text", "dtype": "BYTES", "shape": [-1, -1], "max_length": 3},
    {"name": "flag", "dtype": "BOOL", "shape": [-1, -1]},
    {"name": "half", "dtype": "FP16", "shape": [-1, -1]},
    {"name": "free", "dtype": "FP32", "shape": [-1, -1], "allow_non_finite": True},
    {"name": "image", "dtype": "FP32", "shape": [-1, -1], "content": "image"},
    {"name": "byte", "dtype": "UINT8", "shape": [-1, -1, 3]},
    {"name": "scale", "dtype": "FP32", "shape": [], "optional": True},
]
NAMES = [tensor["name"] for tensor in INPUTS if tensor["name"] != "scale"]


def manifest(serving: Any) -> dict[str, Any]:
    outputs = [{"name": "y", "dtype": "FP32", "shape": [-1, -1, 2]}]
    signature = {"inputs": INPUTS, "outputs": outputs, "max_batch": 8}
    return {"name": "m", "version": 1, "signature": signature, "serving": serving}


def pad(input_: str = "ids", **fields: Any) -> dict[str, Any]:
    return {"input": input_, "axis": 1, "multiple_of": 8, **fields}


def shapes(**fields: Any) -> dict[str, Any]:
    return {name: [2, 4, 3] if name == "byte" else [2, 4] for name in NAMES} | fields


def test_everything_is_off_unless_it_is_asked_for() -> None:
    document = manifest({})
    assert Manifest.model_validate(document).serving_policy() == ServingPolicy()
    del document["serving"]
    assert Manifest.model_validate(document).serving_policy() == ServingPolicy()
    assert ServingPolicy().cache is None
    assert not ServingPolicy().join


def test_all_of_it_is_read_and_written() -> None:
    document = manifest(
        {
            "batching": {"max_rows": 64, "max_bytes": 1_000_000},
            "padding": [pad(buckets=[8, 16], multiple_of=None), pad("text"), pad("flag", value=True)],
            "unpad": [{"output": "y", "axis": 1, "input": "ids", "input_axis": 1}],
            "instances": 2,
            "state": [{"input": "h", "output": "h_out", "dtype": "FP32", "shape": [2, -1, 16]}],
            "warm_up": [shapes(), shapes(scale=[])],
        }
    )
    read = Manifest.model_validate(document)
    assert read.serving_policy() == ServingPolicy(
        max_rows=64,
        max_bytes=1_000_000,
        padding=(
            Padding("ids", 1, 0, buckets=(8, 16)),
            Padding("text", 1, "", multiple_of=8),
            Padding("flag", 1, True, multiple_of=8),
        ),
        unpad=(Unpadding("y", 1, "ids", 1),),
        instances=2,
        state=(StateTensor("h", "h_out", DType.FP32, (2, None, 16)),),
        warm_up=({key: tuple(value) for key, value in shapes().items()}, {**read.serving_policy().warm_up[1]}),
    )
    assert Manifest.model_validate_json(read.model_dump_json()) == read
    assert "serving" not in read.metadata()


def test_cache_and_joining() -> None:
    read = Manifest.model_validate(manifest({"cache": {"max_bytes": 1000, "ttl_s": 60}, "join": True}))
    assert read.serving_policy() == ServingPolicy(cache=CachePolicy(1000, 60.0), join=True)


@pytest.mark.parametrize(
    "rule",
    [
        pad(value=100),
        pad("text", value="abc"),
        pad("half", value=65504.0),
        pad("free", value=float("nan")),
        pad("byte", value=255),
    ],
)
def test_padding_values_that_the_model_takes(rule: dict[str, Any]) -> None:
    assert Manifest.model_validate(manifest({"padding": [rule]})).serving_policy().padding[0].value is not None


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({"unknown": 1}, "Extra inputs"),
        ({"batching": {"max_rows": 0}}, "greater than or equal"),
        ({"padding": [pad(multiple_of=None)]}, "either buckets or multiple_of"),
        ({"padding": [pad(buckets=[8])]}, "either buckets or multiple_of"),
        ({"padding": [pad(multiple_of=None, buckets=[8, 8])]}, "buckets must ascend"),
        ({"padding": [pad("z")]}, "'z', which the signature does not have"),
        ({"padding": [pad(axis=0)]}, "counts its instances"),
        ({"padding": [pad(axis=2)]}, "not one of any size"),
        ({"padding": [pad("byte", axis=2)]}, "not one of any size"),
        ({"padding": [pad(), pad()]}, "padding names a place twice"),
        ({"padding": [pad("image")]}, "images, which are not padded"),
        ({"padding": [pad(value=101)]}, "101 is no value of 'ids'"),
        ({"padding": [pad(value=-1)]}, "-1 is no value of 'ids'"),
        ({"padding": [pad(value=1.5)]}, "1.5 is no value"),
        ({"padding": [pad(value=True)]}, "True is no value"),
        ({"padding": [pad("byte", value=256)]}, "256 is no value"),
        ({"padding": [pad("text", value=0)]}, "0 is no value"),
        ({"padding": [pad("text", value="long")]}, "'long' is no value"),
        ({"padding": [pad("flag", value=1)]}, "1 is no value"),
        ({"padding": [pad("half", value=70000)]}, "70000 is no value"),
        ({"padding": [pad("half", value=float("nan"))]}, "nan is no value"),
        ({"padding": [pad("free", value=10**400)]}, "is no value"),
        ({"unpad": [{"output": "y", "axis": 1, "input": "ids", "input_axis": 1}]}, "which is not padded"),
        (
            {"padding": [pad()], "unpad": [{"output": "z", "axis": 1, "input": "ids", "input_axis": 1}]},
            "unpad names the tensor 'z'",
        ),
        (
            {"padding": [pad()], "unpad": [{"output": "y", "axis": 2, "input": "ids", "input_axis": 1}]},
            "not one of any size",
        ),
        ({"cache": {}}, "Field required"),
        ({"cache": {"max_bytes": 1, "ttl_s": 0}}, "greater than 0"),
        ({"instances": 0}, "greater than or equal"),
        ({"state": [{"input": "ids", "output": "o", "dtype": "FP32", "shape": []}]}, "part of the signature"),
        ({"state": [{"input": "h", "output": "y", "dtype": "FP32", "shape": []}]}, "part of the signature"),
        ({"state": [{"input": "h", "output": "o", "dtype": "FP32", "shape": [-1, -1]}]}, "more than one axis"),
        ({"state": [{"input": "h", "output": o, "dtype": "FP32", "shape": []} for o in "op"]}, "state names a place"),
        (
            {"state": [{"input": "h", "output": "o", "dtype": "FP32", "shape": []}], "join": True},
            "cannot be cached or joined",
        ),
        ({"warm_up": [{"ids": [1, 1]}]}, "needs the inputs of the signature; see text"),
        ({"warm_up": [shapes(z=[1])]}, "see z"),
        ({"warm_up": [shapes(byte=[2, 4, 4])]}, r"shape \[2, 4, 4\] to warm up is none of 'byte'"),
        ({"warm_up": [shapes(ids=[2])]}, r"shape \[2\] to warm up is none of 'ids'"),
        ({"warm_up": [shapes(ids=[3, 4])]}, "more rows than the model takes, or different ones"),
        ({"warm_up": [{name: [9, 4, 3][: len(size)] for name, size in shapes().items()}]}, "more rows"),
    ],
)
def test_refused(serving: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(manifest(serving))


@pytest.mark.parametrize(
    ("padding", "sizes"),
    [
        (Padding("x", 1, buckets=(4, 16)), {0: 4, 1: 4, 4: 4, 5: 16, 16: 16, 17: 17}),
        (Padding("x", 1, multiple_of=8), {0: 0, 1: 8, 8: 8, 9: 16}),
    ],
)
def test_sizes_are_filled_up_to_the_next_bucket(padding: Padding, sizes: dict[int, int]) -> None:
    assert {size: padding.padded(size) for size in sizes} == sizes
