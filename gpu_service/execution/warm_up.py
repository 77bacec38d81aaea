"""The runs that a model makes before it takes traffic: they fill its arenas, and tell how long it takes."""

from collections.abc import Mapping
from time import perf_counter
from typing import Protocol

import numpy as np

from shared.adapters.onnx.graph import zeros
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import Array, Tensors

Shapes = Mapping[str, tuple[int, ...]]

# An axis of any size: large enough that work, not the calls of the kernels, is what is measured.
_USUAL_SIZE = 32
_MAX_ELEMENTS = 1 << 24
_MIDDLE_ROWS = 16
_BUDGET_S = 0.15
_REPEATS = 5


class Run(Protocol):
    """Runs the model on outer tensors."""

    def __call__(self, inputs: Tensors) -> object:
        """The outputs, which nobody looks at here."""


def measure(run: Run, inputs: Tensors) -> float:
    """Seconds of one run, the shortest of a few; the first, which allocates, is not counted."""
    run(inputs)
    best, spent = float("inf"), 0.0
    for _ in range(_REPEATS):
        start = perf_counter()
        run(inputs)
        took = perf_counter() - start
        best, spent = min(best, took), spent + took
        if spent > _BUDGET_S:
            break
    return best


def middle_rows(seconds: float, limit: int) -> int:
    """The rows of a batch that takes a fraction of a second, given the seconds of one row; 1 if there is none."""
    return max(1, min(_MIDDLE_ROWS, limit, int(_BUDGET_S / seconds))) if seconds > 0 else 1


def of_shapes(signature: Signature, shapes: Shapes) -> dict[str, Array]:
    """Zeros, or text, of declared shapes; axes that are not declared have the size 1."""
    tensors: dict[str, Array] = {}
    for spec in signature.inputs:
        if spec.name in shapes:
            tensors[spec.name] = _filled(spec, shapes[spec.name])
        elif not spec.optional:
            tensors[spec.name] = _filled(spec, tuple(1 if dim is None else dim for dim in spec.shape))
    return tensors


def usual(signature: Signature) -> dict[str, Array] | None:
    """One instance whose axes of any size have a usual one; None if that would be large, or if there are none."""
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in signature.required:
        lead = 1 if signature.batched else 0
        rest = tuple(_USUAL_SIZE if dim is None else dim for dim in spec.shape[lead:])
        shapes[spec.name] = (1,) * lead + rest
    varies = any(None in spec.shape[1 if signature.batched else 0 :] for spec in signature.required)
    elements = sum(int(np.prod(shape)) for shape in shapes.values())
    return of_shapes(signature, shapes) if varies and elements <= _MAX_ELEMENTS else None


def repeated(inputs: Tensors, rows: int) -> dict[str, Array]:
    """One instance `rows` times."""
    return {name: np.repeat(array[:1], rows, axis=0) for name, array in inputs.items()}


def _filled(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    array = zeros(spec.dtype, shape, rows=1)
    if spec.content is Content.TEXT:
        array[...] = b"warm-up " * 4
    return array
