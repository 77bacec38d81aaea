"""What of the manifest's block `features` does not fit the model, and which values fit its inputs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import isfinite
from sys import float_info
from typing import Final

from shared.domain.dtypes import DType
from shared.domain.features import Feature, FeatureValue, ModelFeatures, kept_input, value_spec
from shared.domain.signature import Signature, TensorSpec

# The largest finite numbers of the floating-point dtypes.
_LARGEST: Final[Mapping[DType, float]] = {
    DType.FP16: 65_504.0,
    DType.BF16: 3.3895313892515355e38,
    DType.FP32: 3.4028234663852886e38,
    DType.FP64: float_info.max,
}


def misfit(value: FeatureValue, spec: TensorSpec) -> str | None:
    """Why a value cannot be an element of an input; None if it can."""
    if spec.dtype is DType.BYTES:
        return _text_misfit(value, spec)
    if spec.dtype is DType.BOOL:
        return None if isinstance(value, bool) else "is neither true nor false"
    if isinstance(value, bool | str):
        return "is not a number"
    return _number_misfit(value, spec)


def _text_misfit(value: FeatureValue, spec: TensorSpec) -> str | None:
    if not isinstance(value, str):
        return "is not text"
    too_long = spec.max_length is not None and len(value) > spec.max_length
    return f"has more than {spec.max_length} characters" if too_long else None


def _number_misfit(value: float, spec: TensorSpec) -> str | None:
    if isinstance(value, float) and not isfinite(value):
        return "is not a finite number"
    if spec.dtype.is_integer and value != int(value):
        return "is not an integer"
    lowest, highest = _range_of(spec.dtype)
    if not lowest <= value <= highest:
        return f"does not fit into {spec.dtype}"
    if spec.minimum is not None and value < spec.minimum:
        return f"is below the minimum {spec.minimum:g}"
    if spec.maximum is not None and value > spec.maximum:
        return f"is above the maximum {spec.maximum:g}"
    return None


def _range_of(dtype: DType) -> tuple[float, float]:
    if dtype.is_integer:
        bits = int(dtype.value.lstrip("UINT"))
        return (0, 2**bits - 1) if dtype.value.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    largest = _LARGEST[dtype]
    return -largest, largest


def problems_of(features: ModelFeatures, signature: Signature) -> Iterator[str]:
    """What of the block does not fit the model's own signature, or itself."""
    if not signature.batched:
        yield "features need a batched signature: ids are given by row"
        return
    for (name, entity), count in Counter((part.name, part.entity) for part in features.sets).items():
        if count > 1:
            yield f"the set {name!r} is named twice for {entity!r}"
    for (tensor, column), count in Counter((feature.input, feature.column) for feature in features.all).items():
        if count > 1:
            yield f"{_place(tensor, column)} is fed twice"
    for feature in features.all:
        if problem := _target_problem(feature, signature):
            yield problem
    yield from _name_problems(features, signature)


def _target_problem(feature: Feature, signature: Signature) -> str | None:
    spec = signature.input(feature.input)
    if spec is None:
        return f"the feature {feature.name!r} feeds {feature.input!r}, which is no input of the model"
    if problem := _shape_problem(feature, spec, signature):
        return problem
    reason = None if feature.default is None else misfit(feature.default, value_spec(feature, signature))
    return f"the default of {feature.name!r} {reason}" if reason else None


def _shape_problem(feature: Feature, spec: TensorSpec, signature: Signature) -> str | None:
    if spec.takes_images or not signature.has_rows(spec):
        return f"{spec.name!r} cannot be fed: it takes images, or one value for all rows"
    if feature.column is None:
        whole = spec.shape in ((None,), (None, 1))
        return None if whole else f"{spec.name!r} has more than one element a row, and no names for them to be fed by"
    if feature.column not in spec.features:
        return f"{spec.name!r} has no {feature.column!r} among its features"
    columns = spec.shape in ((None, len(spec.features)), (None, None))
    return None if columns else f"{spec.name!r} is not of shape [-1, {len(spec.features)}]: its columns cannot be fed"


def _name_problems(features: ModelFeatures, signature: Signature) -> Iterator[str]:
    """What of the names that callers would use is taken, or cannot be."""
    fed = {feature.input for feature in features.all}
    for entity in features.entities:
        spec = signature.input(entity)
        if spec is None:
            continue
        if entity in fed:
            yield f"{entity!r} is fed by the store, and cannot be the id that it is asked by"
        elif spec.shape != (None,) or spec.optional or not (spec.dtype is DType.BYTES or spec.dtype.is_integer):
            yield f"the input {entity!r} cannot be an id: that is text or an integer for each row, and not optional"
    for spec in signature.inputs:
        columns = {feature.column for feature in features.all if feature.input == spec.name and feature.column}
        if columns and spec.optional and not columns.issuperset(spec.features):
            yield f"{spec.name!r} is optional, and cannot be fed in part"
    overridable = [feature.target for feature in features.all if feature.overridable and feature.column is not None]
    kept = [spec.name for spec in signature.inputs if kept_input(spec, features) is not None]
    new = [name for name in features.entities if name not in kept]
    for name, count in Counter([*kept, *new, *overridable]).items():
        if count > 1:
            yield f"callers would have two inputs named {name!r}"


def _place(tensor: str, column: str | None) -> str:
    return repr(tensor) if column is None else f"{column!r} of {tensor!r}"
