"""Blocks of CSV → tensors: many rows at once by Arrow's parser, and row by row only what that does not read.

Arrow parses numbers several times as quickly as NumPy, and without the interpreter's lock. Where it takes more than
`shared.codecs.csv_tensors` does, or rounds in another way, its result is not used: floats are read as FP64 and narrowed
from there, and rows of a form that it might read differently go to the strict decoder.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codecs.batch.csv_table import CsvTable
from shared.codecs.batch.cutting import TextBlock
from shared.codecs.batch.row_ends import well_quoted
from shared.codecs.batch.rows import Block, Reason, by_row, misfits
from shared.domain.dtypes import DType
from shared.domain.signature import TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, fp32_to_bf16

_NUMBER = rb"[ \t]*-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*"
_GAP = rb"[ \t]*(?:[nN][aA][nN])?[ \t]*"
_INTEGER = rb"[ \t]*-?[0-9]{1,18}[ \t]*"
_BOOLEAN = rb"(?:true|True|TRUE|false|False|FALSE|1|0)"
_PLAIN = rb'[^",\r\n]*'
_QUOTED = rb'(?:[^"]|"")*'
_FEW = 2048  # rows of a block that is cut no further
_CUTS = 16
_PIECES = (b"-n", b"-N", b"(")  # of what Arrow takes for NaN and the strict decoder does not


class CsvReader:
    """Reads blocks of one file's rows."""

    def __init__(self, table: CsvTable) -> None:
        self._table = table
        self._specs = table.specs
        self._of: dict[int, TensorSpec] = {}
        for spec in self._specs:
            self._of |= dict.fromkeys(table.columns.of[spec.name], spec)
        self._names = [str(column) for column in range(table.columns.width)]
        self._types = {name: _arrow_type(self._of[int(name)]) for name in self._names}
        self._gaps = any(spec.dtype.is_float and spec.allow_non_finite for spec in self._specs)
        self._has_text = any(spec.dtype is DType.BYTES for spec in self._specs)
        self._has_integers = any(spec.dtype.is_integer for spec in self._specs)
        self._simple: re.Pattern[bytes] | None = None

    def read(self, block: TextBlock) -> Iterator[Block]:
        """The block's rows in order, to be joined by `gather`.

        A block that Arrow refuses is cut: what is wrong is in few places as a rule, and the rest is read quickly.
        """
        found = self._quick(block)
        if found is not None:
            count, tensors = found
            wrong = self._suspects(tensors, block.text)
            yield Block(count, tensors, {}) if wrong is None else self._mend(tensors, block.rows(), wrong)
        elif block.count > _FEW:
            for piece in block.pieces(_CUTS):
                yield from self.read(piece)
        elif block.count:
            yield self._by_row(block)

    def _by_row(self, block: TextBlock) -> Block:
        """The rows that are plainly fine at once, the others one by one."""
        rows = block.rows()
        count = len(rows)
        simple = self._pattern()
        plain = np.fromiter((simple.fullmatch(row) is not None for row in rows), np.bool_, count)
        tensors = self._table.empty(count)
        text = b"\n".join([row for row, is_plain in zip(rows, plain.tolist(), strict=True) if is_plain])
        chosen, found = self._quick(block.of(text)) or (0, {})
        if chosen != np.count_nonzero(plain) or not chosen:
            return self._mend(tensors, rows, np.ones(count, np.bool_))
        wrong = ~plain
        suspects = self._suspects(found, text)
        if suspects is not None:
            wrong[np.flatnonzero(plain)[suspects]] = True
        for name, array in found.items():
            tensors[name][plain] = array
        return self._mend(tensors, rows, wrong)

    def _mend(self, tensors: dict[str, Array], rows: list[bytes], wrong: npt.NDArray[np.bool_]) -> Block:
        """The tensors with the rows that are marked read strictly."""
        errors: dict[int, Reason] = {}
        for at in np.flatnonzero(wrong).tolist():
            row = self._table.strict(rows[at])
            if isinstance(row, tuple):
                errors[at] = row
            else:
                for name, array in row.items():
                    tensors[name][at] = array[0]
        if errors:
            good = np.ones(len(rows), np.bool_)
            good[list(errors)] = False
            tensors = {name: array[good] for name, array in tensors.items()}
        return Block(len(rows), tensors, errors)

    def _quick(self, block: TextBlock) -> tuple[int, dict[str, Array]] | None:
        """The rows' number and tensors, values not yet checked; None where some row is not surely what it seems."""
        import pyarrow as pa
        from pyarrow import csv

        text = block.text
        if self._is_odd(text):
            return None
        try:
            table = csv.read_csv(
                pa.BufferReader(text),
                memory_pool=pa.system_memory_pool(),
                read_options=csv.ReadOptions(column_names=self._names, use_threads=False, block_size=len(text) + 1),
                parse_options=csv.ParseOptions(newlines_in_values=b'"' in text),
                convert_options=csv.ConvertOptions(
                    column_types=self._types,
                    null_values=[""] if self._gaps else [],
                    strings_can_be_null=False,
                    true_values=["true", "True", "TRUE", "1"],
                    false_values=["false", "False", "FALSE", "0"],
                    check_utf8=False,
                ),
            )
        except pa.ArrowInvalid:
            return None
        count = table.num_rows
        if b'"' in text and count != block.count:  # without quotes both count line breaks
            return None
        try:
            return count, {spec.name: self._tensor(table, spec, count) for spec in self._specs}
        except _NotNumbers:
            return None

    def _is_odd(self, text: bytes) -> bool:
        """Whether Arrow may read the text in another way than the strict decoder."""
        if b'"' in text and not (text.count(b'"') % 2 == 0 and well_quoted(text)):
            return True
        if self._has_integers and (b"x" in text or b"X" in text):
            return True  # Arrow reads hexadecimal integers
        return self._has_text and not _is_utf8(text)

    def _tensor(self, table: Any, spec: TensorSpec, count: int) -> Array:
        columns = self._table.columns.of[spec.name]
        shape = (count, *self._table.shape(spec))
        if spec.dtype is DType.BYTES:
            cells = np.empty((count, len(columns)), np.object_)
            for at, column in enumerate(columns):
                cells[:, at] = table.column(column).to_pylist()
            return cells.reshape(shape)
        narrow = np.dtype(np.float32) if spec.dtype is DType.BF16 else NUMPY_DTYPES[spec.dtype]
        values: Array = np.empty((count, len(columns)), narrow)
        with np.errstate(over="ignore"):
            for at, column in enumerate(columns):
                numbers = _numbers(table.column(column), spec)
                if spec.dtype.is_integer:
                    bounds = np.iinfo(narrow)  # type: ignore[type-var]  # an integer dtype
                    if count and not bounds.min <= numbers.min() <= numbers.max() <= bounds.max:
                        raise _NotNumbers
                values[:, at] = numbers
        return (fp32_to_bf16(values) if spec.dtype is DType.BF16 else values).reshape(shape)

    def _suspects(self, tensors: dict[str, Array], text: bytes) -> npt.NDArray[np.bool_] | None:
        """The rows that the strict decoder is to judge; None if there is none."""
        wrong = misfits(tensors, self._table.signature)
        if not self._gaps:
            return wrong
        odd = any(piece in text for piece in _PIECES)
        for spec in self._specs:
            if not (spec.dtype.is_float and spec.allow_non_finite):
                continue
            values = tensors[spec.name]
            if spec.dtype is DType.BF16:
                bits = values & 0x7FFF
                bad = bits >= 0x7F80 if odd else bits == 0x7F80
            else:
                bad = ~np.isfinite(values) if odd else np.isinf(values)
            if bad.any():
                wrong = by_row(bad) if wrong is None else wrong | by_row(bad)
        return wrong

    def _pattern(self) -> re.Pattern[bytes]:
        """What a row looks like that Arrow reads as the strict decoder does."""
        if self._simple is None:
            cells = [self._cell(self._of[column]) for column in range(len(self._names))]
            self._simple = re.compile(b",".join(cells), re.DOTALL)
        return self._simple

    def _cell(self, spec: TensorSpec) -> bytes:
        if spec.dtype is DType.BYTES:
            return rb'(?:%s|"%s")' % (_PLAIN, _QUOTED)
        form = _BOOLEAN if spec.dtype is DType.BOOL else _NUMBER if spec.dtype.is_float else _INTEGER
        if spec.dtype.is_float and spec.allow_non_finite:
            form = rb"(?:%s|%s)" % (form, _GAP)
        return rb'(?:%s|"%s")' % (form, form)


class _NotNumbers(Exception):
    """A cell is empty, or an integer that its dtype does not hold."""


def _numbers(column: Any, spec: TensorSpec) -> Array:
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if chunk.null_count and not spec.dtype.is_float:
        raise _NotNumbers
    values: Array = chunk.to_numpy(zero_copy_only=False)  # a gap among floats becomes NaN
    return values


def _arrow_type(spec: TensorSpec) -> Any:
    import pyarrow as pa

    if spec.dtype is DType.BYTES:
        return pa.binary()
    if spec.dtype is DType.BOOL:
        return pa.bool_()
    if spec.dtype.is_float:
        return pa.float64()
    return pa.uint64() if spec.dtype is DType.UINT64 else pa.int64()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
