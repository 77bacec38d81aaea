"""Rows of a batch file on their way to a model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.domain.batch_formats import RowError
from shared.domain.dtypes import DType
from shared.domain.errors import SluiceError
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32
from shared.domain.validation import tensor_fits

MOST_ROWS = 1 << 40  # a signature with this bound takes any batch

Reason = tuple[str, str, str]
"""What is wrong with a row: the pointer inside it, the detail, the code."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows `first_row` to `first_row + count - 1` of a file.

    `tensors` hold the good ones alone, as the signature wants them; `positions` (int64) are their places among the
    rows, None if all are good. Each of the others has its entry in `errors`.
    """

    first_row: int
    count: int
    tensors: Tensors
    positions: npt.NDArray[np.int64] | None = None
    errors: tuple[RowError, ...] = ()

    @property
    def good(self) -> int:
        """How many rows are good."""
        return self.count if self.positions is None else len(self.positions)

    def halves(self) -> tuple["Rows", "Rows"]:
        """Two parts of rows that are batched, each with about half of the good ones; there must be two at least."""
        middle = self.good // 2
        cut = middle if self.positions is None else int(self.positions[middle])
        if self.positions is None:
            places: tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None] = (None, None)
        else:
            places = self.positions[:middle], self.positions[middle:] - cut
        split = self.first_row + cut
        first = Rows(
            self.first_row,
            cut,
            {name: array[:middle] for name, array in self.tensors.items()},
            places[0],
            tuple(error for error in self.errors if error.row < split),
        )
        second = Rows(
            split,
            self.count - cut,
            {name: array[middle:] for name, array in self.tensors.items()},
            places[1],
            tuple(error for error in self.errors if error.row >= split),
        )
        return first, second

    def failed(self, code: str, detail: str) -> "Rows":
        """The same rows, none of them good any more."""
        places = range(self.count) if self.positions is None else self.positions.tolist()
        more = (RowError(self.first_row + place, "", detail, code) for place in places)
        errors = sorted((*self.errors, *more), key=lambda error: error.row)
        return Rows(self.first_row, self.count, {}, np.empty(0, np.int64), tuple(errors))


@dataclass(slots=True)
class Block:
    """Consecutive rows as they were read: `tensors` of the good ones, and what is wrong with the others by place."""

    count: int
    tensors: Tensors
    errors: dict[int, Reason]

    def batches(self, first_row: int, batch_rows: int, *, batched: bool = True) -> Iterator[Rows]:
        """The rows in batches of about equal size; all in one where there is no axis of rows, and one at most."""
        good = np.ones(self.count, np.bool_)
        good[list(self.errors)] = False
        before = np.concatenate(([0], np.cumsum(good)))
        pieces = -(-self.count // batch_rows) if batched else 1
        for piece in range(pieces):
            start, stop = piece * self.count // pieces, (piece + 1) * self.count // pieces
            low, high = int(before[start]), int(before[stop])
            tensors = {name: array[low:high] if batched else array for name, array in self.tensors.items()}
            places = np.flatnonzero(good[start:stop])
            whole = len(places) == stop - start
            wrong = () if whole else (start + np.flatnonzero(~good[start:stop])).tolist()
            yield Rows(
                first_row + start,
                stop - start,
                tensors if high > low else {},
                None if whole else places,
                tuple(RowError(first_row + at, *self.errors[at]) for at in wrong),
            )


def reason(error: SluiceError, prefix: str = "") -> Reason:
    """The pointer inside the row, the detail and the code of an error about the row at `prefix`."""
    if not error.fields:
        return "", error.detail, error.code
    place, detail = error.fields[0].pointer, error.fields[0].detail
    inside = place.removeprefix(prefix) if place == prefix or place.startswith(f"{prefix}/") else ""
    return inside, detail, error.code


def unbounded(signature: Signature) -> Signature:
    """The signature for batches of any size: how many rows run at once is the caller's choice."""
    return replace(signature, max_batch=MOST_ROWS) if signature.batched else signature


def misfits(tensors: Tensors, signature: Signature) -> npt.NDArray[np.bool_] | None:
    """Which rows have a value that the signature does not allow; None if there is none. The signature is batched."""
    found: npt.NDArray[np.bool_] | None = None
    for spec in signature.inputs:
        array = tensors.get(spec.name)
        if array is None or tensor_fits(array, spec):
            continue
        mask: npt.NDArray[np.bool_]
        if array.dtype == np.object_:
            mask = np.array([not tensor_fits(array[at : at + 1], spec) for at in range(len(array))])
        else:
            mask = by_row(_outside(array, spec))
        found = mask if found is None else found | mask
    return found


def by_row(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which rows have a mark."""
    rows: npt.NDArray[np.bool_] = np.asarray(marks.reshape(len(marks), -1).any(axis=1))
    return rows


def _outside(array: Array, spec: TensorSpec) -> npt.NDArray[np.bool_]:
    values = bf16_to_fp32(array) if spec.dtype is DType.BF16 else array
    wrong: npt.NDArray[np.bool_] = np.zeros(values.shape, np.bool_)
    if spec.dtype.is_float and not spec.allow_non_finite:
        wrong |= ~np.isfinite(values)
    with np.errstate(over="ignore"):
        if spec.minimum is not None:
            wrong |= values < spec.minimum
        if spec.maximum is not None:
            wrong |= values > spec.maximum
    return wrong


def bad_row(wrong: Reason) -> Block:
    """One row that has no tensors."""
    return Block(1, {}, {0: wrong})


def gather(found: Iterable[Block], *, batched: bool) -> Iterator[Block]:
    """The same rows in fewer blocks: neighbours that are alike in names and shapes are joined, if rows have an axis."""
    if not batched:
        yield from found
        return
    run: list[Block] = []
    form: Any = None
    for block in found:
        own = [(name, array.shape[1:]) for name, array in block.tensors.items()]
        if own and form and own != form:
            yield _joined(run)
            run, form = [], None
        run.append(block)
        form = own or form
    if run:
        yield _joined(run)


def _joined(run: list[Block]) -> Block:
    if len(run) == 1:
        return run[0]
    filled = [block.tensors for block in run if block.tensors]
    names = filled[0] if filled else ()
    tensors = {name: np.concatenate([part[name] for part in filled]) for name in names}
    errors: dict[int, Reason] = {}
    count = 0
    for block in run:
        errors |= {count + at: wrong for at, wrong in block.errors.items()}
        count += block.count
    return Block(count, tensors, errors)
