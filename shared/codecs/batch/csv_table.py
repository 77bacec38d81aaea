"""What the head of a CSV file says about its columns."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.codecs.batch.rows import Reason, reason, unbounded
from shared.codecs.csv_columns import Columns, is_header, named_columns, refuse_header, unnamed_columns
from shared.codecs.csv_tensors import decode_csv, shape_of
from shared.codecs.json_documents import JsonLimits
from shared.domain.errors import InvalidRequest, WrongDtype, WrongShape
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array
from shared.domain.validation import conform

_ROOM = 1 << 20
_MAX_VALUES = 1 << 40


@dataclass(frozen=True, slots=True)
class CsvTable:
    """The columns of a file: `header` is its header row as it is written, empty if there is none."""

    signature: Signature
    columns: Columns
    header: bytes

    @property
    def specs(self) -> list[TensorSpec]:
        """The inputs that have columns, in the order of the signature."""
        return [spec for spec in self.signature.inputs if spec.name in self.columns.of]

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of one instance."""
        return shape_of(spec, len(self.columns.of[spec.name]), self.signature)

    def empty(self, rows: int) -> dict[str, Array]:
        """Tensors for so many rows, not filled."""
        return {spec.name: np.empty((rows, *self.shape(spec)), NUMPY_DTYPES[spec.dtype]) for spec in self.specs}

    def strict(self, row: bytes) -> dict[str, Array] | Reason:
        """The tensors of one row as a synchronous request would have them, or what is wrong with it.

        Pointers are `/<column>`: its name where there is a header, else its number from 0.
        """
        body = self.header + b"\r\n" + row if self.header else row
        limits = JsonLimits(max_bytes=len(body) + _ROOM, max_values=_MAX_VALUES)
        try:
            rows = list(csv.reader(io.StringIO(row.decode(), newline=""), strict=True))
            if len(rows) != 1:
                return "", "is not CSV: it is more than one row", InvalidRequest.code
            if len(rows[0]) != self.columns.width:
                return "", f"has {len(rows[0])} columns; expected {self.columns.width}", WrongShape.code
            decoded = decode_csv(body, self.signature, limits, header=bool(self.header))
            return dict(conform(decoded.inputs, self.signature))
        except (UnicodeDecodeError, csv.Error) as error:
            return "", f"is not CSV in UTF-8: {error}", InvalidRequest.code
        except InvalidRequest as error:
            place = error.fields[0].pointer if error.fields else ""
            return reason(error, "/".join(place.split("/", 3)[:3]))


def table_of(first: bytes, signature: Signature) -> CsvTable:
    """The columns by a file's first row.

    Raises InvalidRequest where it is no row of this model: a header that names one column wrongly looks like that, and
    taking the others by their order would be a guess.
    """
    signature = unbounded(signature)
    try:
        cells = next(csv.reader(io.StringIO(first.decode(), newline=""), strict=True), [])
    except UnicodeDecodeError:
        raise InvalidRequest("The file is not text in UTF-8.") from None
    except csv.Error as error:
        raise InvalidRequest(f"The first row is not CSV: {error}") from None
    if is_header(cells, signature):
        return CsvTable(signature, named_columns(cells, signature, 1), first)
    refuse_header(cells, signature, 1)
    table = CsvTable(signature, unnamed_columns(cells, signature), b"")
    found = table.strict(first)
    if isinstance(found, tuple) and found[2] == WrongDtype.code:
        shown = ", ".join(cells)[:200]
        raise WrongDtype.at(
            f"/lines/1{found[0]}", f"{found[1]}: the first row ({shown}) is neither a header nor a row of this model"
        )
    return table


def table_from(details: Mapping[str, Any], signature: Signature) -> CsvTable:
    """The columns by the details of a layout: `header` and `width`."""
    signature = unbounded(signature)
    if details["header"]:
        header = details["header"].encode()
        cells = next(csv.reader(io.StringIO(details["header"], newline="")))
        return CsvTable(signature, named_columns(cells, signature, 1), header)
    return CsvTable(signature, unnamed_columns([""] * details["width"], signature), b"")
