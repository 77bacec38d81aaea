"""Predictions as CSV: the columns of a synchronous answer, then `error`; lines end in CR LF, values are in UTF-8."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from shared.codecs.batch.answers import ERROR, fixed_dims
from shared.codecs.batch.rows import Rows
from shared.codecs.csv_tensors import column_names, encode_csv
from shared.codecs.json_documents import dumps
from shared.codecs.json_tensors import encode_predictions
from shared.domain.batch_formats import RowError
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32, bytes_tensor

_TEXT = (None,)
_MOST_CELLS = 4096


class CsvWriter:
    """Rows of CSV without a header, which comes when parts are joined.

    An output whose size varies is one column of JSON. A row with an error has empty cells but the last, which says
    `code: pointer: detail`.
    """

    def __init__(self, sink: BinaryIO, signature: Signature) -> None:
        self._sink = sink
        self._outer = signature
        self._columns = _by_column(signature)
        self._width = sum(len(names) for _, names in _named(signature))
        self._cells: dict[bytes, bytes] = {}

    def write(self, rows: Rows, outputs: Tensors) -> None:
        """See `PartWriter`."""
        columns = self._arrays(outputs) if rows.good else {}
        done = start = 0
        for error in rows.errors:
            at = error.row - rows.first_row
            self._run(columns, done, done + at - start)
            done, start = done + at - start, at + 1
            self._sink.write(self._error(error))
        self._run(columns, done, rows.good)

    def close(self) -> None:
        """See `PartWriter`."""

    def _run(self, columns: Tensors, start: int, stop: int) -> None:
        if stop > start:
            part = {name: array[start:stop] for name, array in columns.items()}
            self._sink.write(self._quick(part) or self._plain(part, stop - start))

    def _arrays(self, outputs: Tensors) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        for spec in self._outer.outputs:
            array = outputs[spec.name] if self._outer.batched else outputs[spec.name][np.newaxis]
            if fixed_dims(spec, self._outer) is None:
                array = _json_cells(array, spec)
            elif spec.dtype is DType.BF16:
                array = bf16_to_fp32(array)
            arrays[spec.name] = array
        return arrays

    def _quick(self, columns: Tensors) -> bytes | None:
        """The rows by the JSON encoder, which writes numbers as shortly as NumPy does; None where it could not."""
        tables = []
        for array in columns.values():
            if not array.size or not _is_finite(array):
                return None
            table = self._texts(array) if array.dtype == np.object_ else _numbers(array)
            if table is None:
                return None
            tables.append(table)
        lines = tables[0] if len(tables) == 1 else map(b",".join, zip(*tables, strict=True))
        return b",\r\n".join(lines) + b",\r\n"

    def _texts(self, array: Array) -> list[bytes] | None:
        """Text as cells, of which most are alike: names of classes; None where that is not so."""
        if array.size != len(array):
            return None
        values: list[bytes] = array.ravel().tolist()
        new = set(values).difference(self._cells)
        if len(self._cells) + len(new) > _MOST_CELLS:
            return None
        # A second cell: csv quotes an empty one that stands alone.
        self._cells |= {value: _line([value.decode("utf-8", errors="replace"), ""])[:-3] for value in new}
        return list(map(self._cells.__getitem__, values))

    def _plain(self, columns: Tensors, count: int) -> bytes:
        return encode_csv({**columns, ERROR: bytes_tensor([b""] * count)}, self._columns, header=False)

    def _error(self, error: RowError) -> bytes:
        return _line([*[""] * self._width, error.text()])


def csv_header(signature: Signature) -> bytes:
    """The header row of an answer."""
    return _line([*(name for _, names in _named(signature) for name in names), ERROR])


def _named(signature: Signature) -> Iterator[tuple[TensorSpec, list[str]]]:
    for spec in signature.outputs:
        dims = fixed_dims(spec, signature)
        yield spec, [spec.name] if dims is None else column_names(spec, int(np.prod(dims)))


def _by_column(signature: Signature) -> Signature:
    """The signature of what is written: text for outputs of JSON and for errors, FP32 for BF16."""
    outputs: list[TensorSpec] = []
    for spec in signature.outputs:
        if fixed_dims(spec, signature) is None:
            outputs.append(TensorSpec(spec.name, DType.BYTES, _TEXT))
        else:
            outputs.append(replace(spec, dtype=DType.FP32) if spec.dtype is DType.BF16 else spec)
    return Signature(signature.inputs, (*outputs, TensorSpec(ERROR, DType.BYTES, _TEXT)))


def _json_cells(array: Array, spec: TensorSpec) -> Array:
    alone = Signature((), (spec,))
    return bytes_tensor([dumps(value) for value in encode_predictions({spec.name: array}, alone)])


def _numbers(array: Array) -> list[bytes]:
    """Each row's numbers."""
    return dumps(np.ascontiguousarray(array).reshape(len(array), -1))[2:-2].split(b"],[")


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _line(cells: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()
