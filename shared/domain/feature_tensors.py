"""Tensors of a model's own signature, from what callers sent and what the feature store holds."""

from collections.abc import Mapping, Sequence

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.feature_checks import misfit
from shared.domain.features import Feature, FeaturePlan, FeatureValue, Place
from shared.domain.signature import TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bytes_tensor, fp32_to_bf16
from shared.domain.validation import tensor_fits


class Misfit(ValueError):
    """The value at `index` cannot be an element of the input: `reason` continues a sentence about it."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"the value at {index} {reason}")
        self.index = index
        self.reason = reason


def column_of(values: Sequence[FeatureValue], spec: TensorSpec) -> Array:
    """The values as a tensor of shape [len(values)] and the dtype of `spec`; raises Misfit for the first that is none.

    Numbers are rounded to the dtype and never cut: 40.0 may be an integer, 40.5 may not.
    """
    if spec.dtype is DType.BYTES:
        if all(type(value) is str for value in values):
            array = bytes_tensor([str(value).encode() for value in values])
            if tensor_fits(array, spec):
                return array
        raise _first(values, spec)
    kinds = set(map(type, values))
    wanted = {bool} if spec.dtype is DType.BOOL else {int} if spec.dtype.is_integer else {int, float}
    if not kinds <= wanted:
        _check(values, spec)
        values = [int(value) for value in values]  # integers among them came as 40.0
    with np.errstate(over="ignore"):
        try:
            if spec.dtype is DType.BF16:
                array = fp32_to_bf16(np.array(values, dtype=np.float32))
            else:
                array = np.array(values, dtype=NUMPY_DTYPES[spec.dtype])
        except OverflowError:
            raise _first(values, spec) from None
    if spec.allow_non_finite:
        _check(values, spec)  # a number that overflowed is refused even where callers may send infinity
    if not tensor_fits(array, spec):
        _check(values, spec)
        index = next(index for index in range(len(array)) if not tensor_fits(array[index : index + 1], spec))
        raise Misfit(index, f"is out of range once it is rounded to {spec.dtype}")
    return array


def assemble(plan: FeaturePlan, given: Tensors, fetched: Mapping[Place, Array], rows: int) -> dict[str, Array]:
    """The tensors of the model's own signature.

    `given` conforms to the caller's signature, `fetched` has a tensor of shape [rows] for what each feature fills that
    the caller did not send.
    """
    tensors: dict[str, Array] = {}
    for spec in plan.signature.inputs:
        fed = plan.fed.get(spec.name, ())
        if fed and fed[0].column is None:
            own = given.get(spec.name)
            tensors[spec.name] = fetched[fed[0].place].reshape(rows, *spec.shape[1:]) if own is None else own
        elif fed:
            tensors[spec.name] = _joined(spec, fed, given, fetched, rows)
        elif spec.name in given:
            tensors[spec.name] = given[spec.name]
    return tensors


def _joined(
    spec: TensorSpec, fed: Sequence[Feature], given: Tensors, fetched: Mapping[Place, Array], rows: int
) -> Array:
    """An input whose columns come from the store, from inputs of their own, and from what is left of it."""
    sources = {
        feature.column: fetched[feature.place] if feature.place in fetched else given[feature.target] for feature in fed
    }
    rest = iter(range(len(spec.features)))
    array = np.empty((rows, len(spec.features)), dtype=NUMPY_DTYPES[spec.dtype])
    for at, name in enumerate(spec.features):
        array[:, at] = sources[name] if name in sources else given[spec.name][:, next(rest)]
    return array


def _check(values: Sequence[FeatureValue], spec: TensorSpec) -> None:
    for index, value in enumerate(values):
        if reason := misfit(value, spec):
            raise Misfit(index, reason)


def _first(values: Sequence[FeatureValue], spec: TensorSpec) -> Misfit:
    for index, value in enumerate(values):
        if reason := misfit(value, spec):
            return Misfit(index, reason)
    return Misfit(0, f"does not fit into {spec.dtype}")
