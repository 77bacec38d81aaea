"""Which columns of a Parquet file are which inputs, and Arrow's record batches → tensors.

A column is named as in CSV; a column of lists named like an input holds its instances whole.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from shared.codecs.batch.rows import Block, Reason, bad_row, misfits, reason, unbounded
from shared.codecs.csv_columns import Columns, named_columns
from shared.codecs.csv_tensors import shape_of
from shared.codecs.values import Pointer, to_tensor
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, MissingField, NotFinite, SluiceError, UnknownField, WrongDtype, pointer
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, fp32_to_bf16
from shared.domain.validation import Inputs, check_structure, conform


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """The columns of a file: `lists` are the inputs that have one whole column, `scalars` the columns of the others."""

    signature: Signature
    names: tuple[str, ...]
    lists: frozenset[str]
    scalars: Columns

    @property
    def specs(self) -> list[TensorSpec]:
        """The inputs that have columns, in the order of the signature."""
        return [spec for spec in self.signature.inputs if spec.name in self.lists or spec.name in self.scalars.of]


def table_of_schema(schema: Any, signature: Signature) -> ParquetTable:
    """The columns by an Arrow schema; raises InvalidRequest where they do not fit the model."""
    signature = unbounded(signature)
    lists: set[str] = set()
    scalars: list[str] = []
    for field in schema:
        if field.name in lists or field.name in scalars:
            raise UnknownField.at(pointer("", field.name), "is the name of two columns")
        spec = signature.input(field.name)
        if spec is not None and _is_list(field.type):
            lists.add(field.name)
            _check_type(_element(field.type), spec, field.name)
        else:
            scalars.append(field.name)
    others = replace(signature, inputs=tuple(spec for spec in signature.inputs if spec.name not in lists))
    try:
        columns = named_columns(scalars, others, 1) if scalars or others.required else Columns({}, 0)
    except InvalidRequest as error:
        raise _by_column(error, scalars) from None
    for spec in others.inputs:
        for column in columns.of.get(spec.name, ()):
            _check_type(schema.field(schema.get_field_index(scalars[column])).type, spec, scalars[column])
    return ParquetTable(signature, tuple(scalars), frozenset(lists), columns)


def _by_column(error: SluiceError, names: list[str]) -> SluiceError:
    """The error with the column's name for a pointer, where it was one about a header row."""
    if not error.fields:
        return error
    _, _, last = error.fields[0].pointer.rpartition("/lines/1/")
    place = pointer("", names[int(last)]) if last.isdecimal() and int(last) < len(names) else ""
    return type(error).at(place, error.fields[0].detail)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_dictionary(kind: Any) -> bool:
    """Whether values of an Arrow type, or the elements of its lists, are read as places in a dictionary."""
    from pyarrow import types

    return bool(types.is_dictionary(_element(kind)))


def _element(kind: Any) -> Any:
    while _is_list(kind):
        kind = kind.value_type
    return kind


def _check_type(kind: Any, spec: TensorSpec, name: str) -> None:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if spec.dtype is DType.BYTES:
        fits = any(
            check(kind) for check in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        )
    elif spec.dtype is DType.BOOL:
        fits = types.is_boolean(kind)
    elif spec.dtype.is_float:
        fits = types.is_floating(kind) or types.is_integer(kind)
    else:
        fits = types.is_integer(kind)
    if not fits:
        raise WrongDtype.at(pointer("", name), f"is a column of {kind}; the input {spec.name} is {spec.dtype}")


class ParquetReader:
    """Record batches of one file's columns → tensors."""

    def __init__(self, table: ParquetTable) -> None:
        self._table = table
        self._signature = table.signature

    def read(self, batch: Any) -> Iterator[Block]:
        """The rows of a record batch in order, to be joined by `gather`."""
        count = batch.num_rows
        tensors = self._quick(batch, count) if self._signature.batched else None
        if tensors is None:
            yield from (self._strict(batch, at) for at in range(count))
            return
        wrong = misfits(tensors, self._signature)
        if wrong is None:
            yield Block(count, tensors, {})
            return
        errors: dict[int, Reason] = {}
        for at in np.flatnonzero(wrong).tolist():
            alone = self._strict(batch, at)
            wrong[at] = bool(alone.errors)
            if alone.errors:
                errors[at] = alone.errors[0]
        yield Block(count, {name: array[~wrong] for name, array in tensors.items()} if not wrong.all() else {}, errors)

    def _quick(self, batch: Any, count: int) -> dict[str, Array] | None:
        """The tensors of all rows, values not checked; None if some row lacks a value or has another shape."""
        tensors: dict[str, Array] = {}
        try:
            for spec in self._table.specs:
                if spec.name in self._table.lists:
                    array = _from_lists(batch.column(spec.name), spec, count)
                else:
                    array = self._from_scalars(batch, spec, count)
                tensors[spec.name] = array
            return check_structure(Inputs(tensors), self._signature)
        except (_Uneven, InvalidRequest):
            return None

    def _from_scalars(self, batch: Any, spec: TensorSpec, count: int) -> Array:
        columns = self._table.scalars.of[spec.name]
        narrow = _narrow(spec)
        values: Array = np.empty((count, len(columns)), narrow)
        for at, column in enumerate(columns):
            values[:, at] = _elements(batch.column(self._table.names[column]), spec, narrow)
        shape = shape_of(spec, len(columns), self._signature)
        return _carried(values, spec).reshape(count, *shape)

    def _strict(self, batch: Any, at: int) -> Block:
        """One row by the rules of JSON; its pointers are `/<column>` and `/<column>/<i>`."""
        try:
            tensors = {spec.name: self._row(batch, at, spec) for spec in self._table.specs}
            return Block(1, conform(Inputs(tensors, self._locate), self._signature), {})
        except InvalidRequest as error:
            return bad_row(reason(error))

    def _row(self, batch: Any, at: int, spec: TensorSpec) -> Array:
        if spec.name in self._table.lists:
            value = batch.column(spec.name)[at].as_py()
            return self._with_axis(_tensor(value, spec, lambda index: pointer("", spec.name, *index)))
        columns = self._table.scalars.of[spec.name]
        names = [self._table.names[column] for column in columns]
        values = [batch.column(name)[at].as_py() for name in names]
        flat = _tensor(values, spec, lambda index: pointer("", names[index[0]] if index else names[0]))
        return self._with_axis(flat.reshape(shape_of(spec, len(columns), self._signature)))

    def _with_axis(self, array: Array) -> Array:
        return array[np.newaxis] if self._signature.batched else array

    def _locate(self, name: str, index: tuple[int, ...]) -> str:
        inside = index[1:] if self._signature.batched else index
        if name in self._table.lists or not index:
            return pointer("", name, *inside)
        spec = self._signature.input(name)
        columns = self._table.scalars.of.get(name, ())
        if spec is None or not columns:
            return pointer("", name)
        shape = shape_of(spec, len(columns), self._signature)
        return pointer("", self._table.names[columns[int(np.ravel_multi_index(inside, shape)) if inside else 0]])


class _Uneven(Exception):
    """Some row needs a look of its own."""


def _narrow(spec: TensorSpec) -> np.dtype[np.generic]:
    return np.dtype(np.float32) if spec.dtype is DType.BF16 else NUMPY_DTYPES[spec.dtype]


def _carried(values: Array, spec: TensorSpec) -> Array:
    return fp32_to_bf16(values) if spec.dtype is DType.BF16 else values


def _elements(column: Any, spec: TensorSpec, narrow: np.dtype[np.generic]) -> Array:
    """The values of an Arrow array without nulls, as far as their dtype holds them."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        if spec.dtype is DType.BYTES:
            if column.null_count or column.dictionary.null_count:
                raise _Uneven
            # Rows with the same text share it: a file may repeat a long one at the cost of a few bits.
            used, places = np.unique(column.indices.to_numpy(), return_inverse=True)
            shared: Array = _texts(column.dictionary.take(used))[places]
            return shared
        column = column.dictionary_decode()
    if column.null_count:
        raise _Uneven
    if spec.dtype is DType.BYTES:
        return _texts(column)
    values: Array = column.to_numpy(zero_copy_only=False)
    if spec.dtype.is_integer and len(values):
        bounds = np.iinfo(narrow)  # type: ignore[type-var]  # an integer dtype
        if not (bounds.min <= int(values.min()) and int(values.max()) <= bounds.max):
            raise _Uneven
    with np.errstate(over="ignore"):
        array = values.astype(narrow, copy=False)
    if spec.dtype.is_float and spec.allow_non_finite and (np.isinf(array) & np.isfinite(values)).any():
        raise _Uneven  # a number became too large
    return array


def _texts(column: Any) -> Array:
    """The texts of an Arrow array without nulls."""
    texts = np.empty(len(column), np.object_)
    texts[:] = [value.encode() if isinstance(value, str) else value for value in column.to_pylist()]
    return texts


def _from_lists(column: Any, spec: TensorSpec, count: int) -> Array:
    """A column of lists whose rows are all alike: `[count, …]`."""
    from pyarrow import types

    shape = [count]
    while _is_list(column.type):
        if column.null_count:
            raise _Uneven
        total = prod(shape)
        if types.is_fixed_size_list(column.type):
            length = column.type.list_size
        else:
            offsets = column.offsets.to_numpy()
            lengths = np.diff(offsets)
            length = int(lengths[0]) if total else 0
            if (lengths != length).any():
                raise _Uneven
        column = column.flatten()
        shape.append(length)
    return _carried(_elements(column, spec, _narrow(spec)), spec).reshape(shape)


def _tensor(value: Any, spec: TensorSpec, place: Pointer) -> Array:
    """One value, or nested lists, as a tensor; what is missing or not finite is so where the signature allows it."""
    gaps: list[tuple[tuple[int, ...], float]] = []

    def plain(item: Any, index: tuple[int, ...]) -> Any:
        if isinstance(item, list):
            return [plain(part, (*index, at)) for at, part in enumerate(item)]
        if spec.dtype.is_float and spec.allow_non_finite and (item is None or not np.isfinite(item)):
            gaps.append((index, np.nan if item is None else item))
            return 0.0
        if item is None:
            raise MissingField.at(place(index), "is empty")
        if spec.dtype is DType.BYTES and isinstance(item, bytes):
            return {"b64": b64encode(item).decode()}
        if spec.dtype.is_float and not np.isfinite(item):
            raise NotFinite.at(place(index), "is not a finite number")
        return item

    array = to_tensor(plain(value, ()), spec.dtype, place)
    for index, number in gaps:
        array[index] = _carried(np.array([number], _narrow(spec)), spec)[0]
    return array
