"""How a shadow's answer differs from the primary's."""

from dataclasses import dataclass

import numpy as np

from shared.domain.tensors import Array, Tensors

# Numbers this close are the same answer: providers and graph optimisations round differently.
_RELATIVE = 1e-3
_ABSOLUTE = 1e-6


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to the same inputs.

    `agreeing` of `rows` are the same decision in every output that both have. `distance` is the mean absolute
    difference of all their numbers, `largest` the greatest one; both 0 where there are no numbers to compare.
    """

    rows: int
    agreeing: int
    distance: float
    largest: float


def compare(primary: Tensors, shadow: Tensors, rows: int | None) -> Comparison | None:
    """Compare what both have; None if they have no output of one name, kind and shape in common.

    `rows` is the number of instances, None where outputs have no axis of instances. Two rows agree if texts, whole
    numbers and truth values are equal, and of floating point outputs the largest element is the same one (an axis of
    classes), or the only element is the same to a thousandth.
    """
    agree: Array | None = None
    absolute, count, largest = 0.0, 0, 0.0
    for name, ours in primary.items():
        theirs = shadow.get(name)
        if theirs is None or theirs.shape != ours.shape or _is_float(theirs) != _is_float(ours):
            continue
        left, right = _by_row(ours, rows), _by_row(theirs, rows)
        same = _same_decision(left, right) if _is_float(ours) else (left == right).all(axis=1)
        agree = same if agree is None else agree & same
        if _is_float(ours):
            apart = np.abs(left.astype(np.float64) - right.astype(np.float64))
            apart = apart[np.isfinite(apart)]
            absolute += float(apart.sum())
            count += apart.size
            largest = max(largest, float(apart.max(initial=0.0)))
    if agree is None:
        return None
    return Comparison(len(agree), int(agree.sum()), absolute / count if count else 0.0, largest)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f"


def _by_row(array: Array, rows: int | None) -> Array:
    """Two axes: instances, and everything that belongs to one."""
    return array.reshape((1, -1) if rows is None else (len(array), -1))


def _same_decision(ours: Array, theirs: Array) -> Array:
    if ours.shape[1] > 1:
        same: Array = ours.argmax(axis=1) == theirs.argmax(axis=1)
        return same
    near: Array = np.isclose(ours, theirs, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    return np.asarray(near.all(axis=1))
