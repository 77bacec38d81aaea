"""Features of many entities from a CSV or Parquet file, read a part at a time."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from io import TextIOWrapper
from math import isnan
from pathlib import Path
from typing import Any, Final

from infra.cli.output import USAGE, Failure
from shared.domain.errors import InvalidRequest, OutOfRange
from shared.domain.new_features import MAX_WRITTEN, NewFeatures

_PARQUET: Final = frozenset({".parquet", ".pq"})
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# How CSV files say that there is no value.
_NOTHING: Final = frozenset({"", "nan", "NaN", "null", "NULL"})
_TRUTH: Final[Mapping[str, bool]] = {"true": True, "True": True, "false": False, "False": False}
# A cell that is longer than this is none of ours; the CSV reader stops there.
_MAX_CELL: Final = 131_072


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what: the entity's id, when its values held, and what is text whatever it looks like."""

    entity: str
    at: str | None = None
    text: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its place in the file (`line 7`): what is to be stored, or the `fault` that keeps it from it."""

    place: str
    new: NewFeatures | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A file's rows; `done` tells how far reading has come, of `total`."""

    rows: Iterator[Row]
    total: int
    done: Callable[[], int]


@contextmanager
def open_features(path: Path, columns: Columns, expires_at: int | None) -> Iterator[Source]:
    """The rows of a file: Parquet by its name (`.parquet`, `.pq`), else CSV with a line of names.

    Every column beside those that `columns` names is a feature, and an empty cell is none. Failure if the file cannot
    be read, or lacks a column; what is wrong with a row is told in its place.
    """
    try:
        if path.suffix.lower() in _PARQUET:
            with _parquet(path, columns, expires_at) as source:
                yield source
        else:
            with _csv(path, columns, expires_at) as source:
                yield source
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"{path} cannot be read: {error}.", exit_code=USAGE) from None


def value_of(text: str) -> object:
    """What a text on the command line stands for: as JSON has it a number, true, false or quoted text, else itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if value is None or isinstance(value, list | dict) else value


def seconds_of(value: object) -> int:
    """A time in seconds since 1970: from a number, RFC 3339, or a date and time; without a zone it is UTC.

    Raises OutOfRange for what is no time.
    """
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else _parsed(text)
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or isnan(value):
        raise OutOfRange.at("/at", f"{value!r} is no time: 2026-11-21T12:00:00Z or seconds since 1970, for example")
    return int(value)


def _parsed(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


@contextmanager
def _csv(path: Path, columns: Columns, expires_at: int | None) -> Iterator[Source]:
    csv.field_size_limit(_MAX_CELL)
    with path.open("rb") as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        names = next(reader, [])
        _check_names(path, names, columns)

        def rows() -> Iterator[Row]:
            for cells in reader:
                if cells:
                    place = f"line {reader.line_num}"
                    if len(cells) == len(names):
                        yield _row(place, _of_cells(names, cells, columns), columns, expires_at)
                    else:
                        yield Row(place, None, f"it has {len(cells)} cells where there are {len(names)} columns")

        yield Source(rows(), path.stat().st_size, raw.tell)


def _of_cells(names: Sequence[str], cells: Sequence[str], columns: Columns) -> Mapping[str, object]:
    row: dict[str, object] = {}
    for name, cell in zip(names, cells, strict=True):
        if name in columns.text or name in (columns.entity, columns.at):
            row[name] = cell or None
        elif cell.strip() not in _NOTHING:
            row[name] = _of_cell(cell)
    return row


def _of_cell(cell: str) -> object:
    text = cell.strip()
    if text in _TRUTH:
        return _TRUTH[text]
    number = _NUMBER.fullmatch(text)
    if number is None:
        return cell
    return int(text) if number[2] is None and number[3] is None else float(text)


@contextmanager
def _parquet(path: Path, columns: Columns, expires_at: int | None) -> Iterator[Source]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Failure(
            "Parquet files are read with PyArrow, which is not installed: `pip install pyarrow`, or use CSV.",
            exit_code=USAGE,
        ) from None
    done = 0
    try:
        with ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names, columns)

            def rows() -> Iterator[Row]:
                nonlocal done
                for batch in file.iter_batches(batch_size=MAX_WRITTEN):
                    for row in batch.to_pylist():
                        done += 1
                        values = {name: _plain(value) for name, value in row.items()}
                        yield _row(f"row {done}", values, columns, expires_at)

            yield Source(rows(), file.metadata.num_rows, lambda: done)
    except ArrowException as error:
        raise Failure(f"{path} is no Parquet file that can be read: {error}", exit_code=USAGE) from None


def _plain(value: object) -> object:
    """What Parquet has beside numbers, text and truth; NaN is how data frames say that there is no value."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and isnan(value) else value


def _row(place: str, row: Mapping[str, object], columns: Columns, expires_at: int | None) -> Row:
    entity = row.get(columns.entity)
    if entity is None:
        return Row(place, None, f"the column {columns.entity!r} is empty")
    if isinstance(entity, bool) or not isinstance(entity, int | str):
        return Row(place, None, f"the column {columns.entity!r}: an id is text or an integer")
    values = {
        name: str(value) if name in columns.text else value
        for name, value in row.items()
        if name not in (columns.entity, columns.at) and value is not None
    }
    at = None
    if columns.at is not None:
        if row.get(columns.at) is None:
            return Row(place, None, f"the column {columns.at!r} is empty")
        try:
            at = seconds_of(row[columns.at])
        except InvalidRequest as error:
            return Row(place, None, error.detail)
    return Row(place, NewFeatures(str(entity), values, at, expires_at))


def _check_names(path: Path, names: Sequence[str], columns: Columns) -> None:
    wanted: Sequence[Any] = [columns.entity, *([columns.at] if columns.at else []), *columns.text]
    if missing := [name for name in wanted if name not in names]:
        found = ", ".join(names[:20]) or "none at all"
        raise Failure(f"{path} has no column {', '.join(missing)}; it has {found}.", exit_code=USAGE)
    if len(set(names)) != len(names):
        raise Failure(f"{path} has two columns of one name.", exit_code=USAGE)
    if set(names) <= {columns.entity, columns.at}:
        raise Failure(f"{path} has no column with features.", exit_code=USAGE)
