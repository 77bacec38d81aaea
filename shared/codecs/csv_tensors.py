"""CSV (RFC 4180): each row is an instance.

Columns go by a header row: a feature of the only input, `<input>` where an instance is one element, or
`<input>.<feature>` and `<input>.<index>` (`x.0`, `x.1`, …; row-major). Without one they are the elements of the inputs
that must be given, in the order of the signature. The first row is a header if all of its cells are such names.
Places are `/lines/<number of the line, from 1>/<column>`: its name where there is a header, else its number from 0.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from shared.codecs.csv_columns import Columns, is_header, named_columns, refuse_header, unnamed_columns
from shared.codecs.json_documents import JsonLimits
from shared.codecs.values import to_tensor
from shared.domain.dtypes import DType
from shared.domain.errors import (
    EmptyBatch,
    InvalidRequest,
    MissingField,
    NotFinite,
    PayloadTooLarge,
    UnsupportedMediaType,
    WrongDtype,
    WrongShape,
)
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32
from shared.domain.validation import Inputs, check_rows

_CHARSETS = {
    "": "utf-8-sig",
    "utf-8": "utf-8-sig",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin-1": "latin-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Decoded rows; `header` says whether the body had a header row, as its answer will have one then."""

    inputs: Inputs
    header: bool


def decode_csv(
    body: bytes, signature: Signature, limits: JsonLimits, *, charset: str = "", header: bool | None = None
) -> CsvRows:
    """The tensors of a body; `header` None says that its first row tells by itself. Raises InvalidRequest."""
    rows, numbers = _rows(body, limits, charset)
    has_header = is_header(rows[0], signature) if header is None else header
    if header is None and not has_header:
        refuse_header(rows[0], signature, numbers[0])
    columns = named_columns(rows[0], signature, numbers[0]) if has_header else unnamed_columns(rows[0], signature)
    if has_header:
        rows, numbers = rows[1:], numbers[1:]
    if not rows:
        raise EmptyBatch("The body holds no instance; give one in each row.")
    check_rows(len(rows), signature, "/lines")
    for row, number in zip(rows, numbers, strict=True):
        if len(row) != columns.width:
            raise WrongShape.at(f"/lines/{number}", f"has {len(row)} columns; expected {columns.width}")
    tensors = {
        spec.name: _tensor(rows, numbers, spec, columns, signature)
        for spec in signature.inputs
        if spec.name in columns.of
    }
    return CsvRows(Inputs(tensors, _Places(numbers, columns, signature)), has_header)


class _Places:
    """Where an element of a tensor stands."""

    def __init__(self, numbers: Sequence[int], columns: Columns, signature: Signature) -> None:
        self._numbers = numbers
        self._columns = columns
        self._signature = signature

    def __call__(self, name: str, index: tuple[int, ...]) -> str:
        spec = self._signature.input(name)
        columns = self._columns.of.get(name)
        if spec is None or columns is None or not index:
            return "/lines"
        row, rest = (index[0], index[1:]) if self._signature.batched else (0, index)
        shape = shape_of(spec, len(columns), self._signature)
        at = int(np.ravel_multi_index(rest, shape)) if rest else 0
        return f"/lines/{self._numbers[row]}{self._columns.pointer(columns[at])}"


def shape_of(spec: TensorSpec, columns: int, signature: Signature) -> tuple[int, ...]:
    """The shape of one instance that has so many columns."""
    dims = spec.shape[1:] if signature.batched else spec.shape
    known = prod(dim for dim in dims if dim is not None)
    return tuple(columns // known if dim is None else dim for dim in dims)


def _rows(body: bytes, limits: JsonLimits, charset: str) -> tuple[list[list[str]], list[int]]:
    """The rows that hold anything, and the lines that they end on."""
    if len(body) > limits.max_bytes:
        raise PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {limits.max_bytes}.")
    if body.count(b",") + max(body.count(b"\n"), body.count(b"\r")) >= limits.max_values:
        raise PayloadTooLarge(f"The body holds more than {limits.max_values} values.")
    encoding = _CHARSETS.get(charset.lower())
    if encoding is None:
        raise UnsupportedMediaType(
            f"The charset {charset[:40]!r} is not read; send {', '.join(filter(None, _CHARSETS))}."
        )
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        reader = csv.reader(io.StringIO(body.decode(encoding), newline=""), strict=True)
        for row in reader:
            if row:
                rows.append(row)
                numbers.append(reader.line_num)
    except UnicodeDecodeError:
        raise InvalidRequest(f"The body is not text in {charset or 'utf-8'}.") from None
    except csv.Error as error:
        line = reader.line_num
        raise InvalidRequest.at(f"/lines/{line}", f"is not CSV: {error}") from None
    if not rows:
        raise EmptyBatch("The body holds no instance; give one in each row.")
    return rows, numbers


def _tensor(
    rows: list[list[str]], numbers: list[int], spec: TensorSpec, columns: Columns, signature: Signature
) -> Array:
    own = columns.of[spec.name]
    width = len(own)

    def place(at: int) -> str:
        return f"/lines/{numbers[at // width]}{columns.pointer(own[at % width])}"

    cells = [row[column] for row in rows for column in own]
    lead = (len(rows),) if signature.batched else ()
    shape = (*lead, *shape_of(spec, width, signature))
    if spec.dtype is DType.BYTES:
        values: list[Any] = cells
        missing: list[int] = []
    else:
        values, missing = _values(cells, spec, place)
    array = to_tensor(values, spec.dtype, lambda index: place(index[0]))
    if missing:
        array[missing] = 0x7FC0 if spec.dtype is DType.BF16 else np.nan
    return array.reshape(shape)


def _values(cells: list[str], spec: TensorSpec, place: Any) -> tuple[list[Any], list[int]]:
    """The values of cells, and the positions of those that are NaN; these are 0 among the values."""
    values: list[Any] = []
    missing: list[int] = []
    form = _NUMBER if spec.dtype.is_float else _INTEGER
    for at, cell in enumerate(cells):
        text = cell.strip(" \t")
        if spec.dtype is DType.BOOL:
            value: Any = _BOOLEANS.get(text.lower())
            if value is None:
                raise WrongDtype.at(place(at), "must be true or false")
        elif form.fullmatch(text):
            value = float(text) if spec.dtype.is_float else int(text)
        elif spec.dtype.is_float and spec.allow_non_finite and text.lower() in ("", "nan"):
            missing.append(at)
            value = 0.0
        else:
            _refuse(text, spec, place(at))
        values.append(value)
    return values, missing


def _refuse(text: str, spec: TensorSpec, place: str) -> None:
    if not text:
        raise MissingField.at(place, "is empty")
    if spec.dtype.is_float and _NOT_FINITE.fullmatch(text):
        raise NotFinite.at(place, "is not a finite number")
    raise WrongDtype.at(place, f"must be {'a number' if spec.dtype.is_float else 'an integer'} ({spec.dtype})")


def encode_csv(outputs: Tensors, signature: Signature, *, header: bool) -> bytes:
    """The outputs as CSV in UTF-8, lines ending in CR LF: a row for each instance, a column for each element.

    Columns are named like those of inputs: `<output>`, `<output>.<class>` where the last axis has class names,
    `<output>.<index>` otherwise. A NaN is `nan`, a BOOL `true` or `false`; bytes that are no UTF-8 have U+FFFD.
    """
    specs = [spec for spec in signature.outputs if spec.name in outputs]
    tables = [_table(outputs[spec.name], spec.dtype, signature.batched) for spec in specs]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        names = [column_names(spec, table.shape[1]) for spec, table in zip(specs, tables, strict=True)]
        writer.writerow([name for group in names for name in group])
    columns = [column for table in tables for column in table.T.tolist()]
    writer.writerows(zip(*(map(_cell, column) for column in columns), strict=True))
    return text.getvalue().encode("utf-8")


def _table(array: Array, dtype: DType, batched: bool) -> Array:
    """The tensor as rows and columns; float32 as text by its own precision, not by that of the float that holds it."""
    values = bf16_to_fp32(array) if dtype is DType.BF16 else array
    rows = values.shape[0] if batched else 1
    flat = values.reshape(rows, prod(values.shape[1:]) if batched else values.size)
    return flat if flat.dtype.kind in "OiubU" or flat.dtype == np.float64 else flat.astype(str)


def column_names(spec: TensorSpec, width: int) -> list[str]:
    """The names of an output's columns."""
    if spec.dtype is not DType.BYTES and len(spec.classes) == width:  # those of text are what it may say
        return [f"{spec.name}.{name}" for name in spec.classes]
    return [spec.name] if width == 1 else [f"{spec.name}.{at}" for at in range(width)]


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value).lower() if isinstance(value, bool) else value
