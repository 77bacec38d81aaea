"""The checks of `shared.domain.validation` for many requests of one signature: what fits takes about a microsecond.

Whatever is not certainly right goes to the strict checks, which alone make errors.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.signature import Dim, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors
from shared.domain.validation import Inputs, check_structure, tensor_fits


class _Plan:
    """What the quick check needs of one input; `tail` is the exact shape after the rows, None if it varies."""

    __slots__ = ("dtype", "fixed", "name", "rank", "tail")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.dtype = NUMPY_DTYPES[spec.dtype]
        self.rank = len(spec.shape)
        rest: tuple[Dim, ...] = spec.shape[1:]
        self.tail = rest if None not in rest else None
        self.fixed = tuple((axis, dim) for axis, dim in enumerate(spec.shape) if dim is not None)


class InputChecker:
    """Checks the inputs of one signature; may be used from several threads at once."""

    __slots__ = ("_certain", "_max_batch", "_plans", "_rules", "_with_rows", "signature")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._plans = tuple(_Plan(spec) for spec in signature.inputs)
        self._max_batch = signature.max_batch
        # The quick way knows rows only.
        self._certain = all(signature.has_rows(spec) for spec in signature.inputs)
        self._with_rows = tuple(spec.name for spec in signature.inputs if signature.has_rows(spec))
        self._rules = tuple((spec.name, rule) for spec in signature.inputs if (rule := _rule(spec)))

    def __call__(self, inputs: Inputs) -> dict[str, Array]:
        """The tensors in the signature's order and canonical shapes; raises as `check_structure`."""
        tensors = inputs.tensors
        plans = self._plans
        if not self._certain or len(tensors) != len(plans):
            return check_structure(inputs, self.signature)
        checked: dict[str, Array] = {}
        rows = -1
        for plan in plans:
            array = tensors.get(plan.name)
            if array is None or array.dtype is not plan.dtype:
                return check_structure(inputs, self.signature)
            shape = array.shape
            if plan.tail is not None:
                fits = len(shape) == plan.rank and shape[1:] == plan.tail
            else:
                fits = len(shape) == plan.rank and all(shape[axis] == dim for axis, dim in plan.fixed)
            if not fits or not 0 < shape[0] <= self._max_batch or shape[0] != rows != -1:
                return check_structure(inputs, self.signature)
            rows = shape[0]
            checked[plan.name] = array
        return checked

    def values_fit(self, tensors: Tensors) -> bool:
        """Whether all values are allowed; `check_values` says which is not."""
        for name, rule in self._rules:
            array = tensors.get(name)
            if array is not None and not rule(array):
                return False
        return True

    def rows(self, tensors: Tensors) -> int:
        """How many instances checked tensors hold; 1 if the signature is not batched."""
        for name in self._with_rows:
            if name in tensors:
                return int(tensors[name].shape[0])
        return 1


def _rule(spec: TensorSpec) -> Callable[[Array], bool] | None:
    """What tells whether the values of an input are allowed; None if all of its dtype are."""
    kind = NUMPY_DTYPES[spec.dtype].kind
    ranged = spec.minimum is not None or spec.maximum is not None
    if kind == "f" and not ranged and not spec.takes_images:
        return None if spec.allow_non_finite else _is_finite
    if kind == "O" or ranged or spec.takes_images or spec.dtype is DType.BF16:
        return partial(tensor_fits, spec=spec)
    return None


def _is_finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())
