"""Which columns of a CSV row are which elements of which input."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from math import prod

from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, MissingField, UnknownField, WrongShape, pointer
from shared.domain.signature import Signature, TensorSpec

_MOST_SHOWN = 8
_MOST_NAMED = 4  # of a header's names that are wrong
_MOST_CHARACTERS = 60
_VALUE = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)|true|false", re.I)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of each input's elements, row-major, in a row of `width` columns.

    `names` are those of the header row, in the order of the columns; there are none without one.
    """

    of: Mapping[str, Sequence[int]]
    width: int
    names: Sequence[str] = ()

    def pointer(self, column: int) -> str:
        """The way from a row to one of its cells: the column's name in the header, without one its number from 0."""
        return pointer("", self.names[column] if self.names else column)


def is_header(row: Sequence[str], signature: Signature) -> bool:
    """Whether every cell names a column that the model can have."""
    return all(_find(cell.strip(), signature) is not None for cell in row)


def refuse_header(row: Sequence[str], signature: Signature, line: int) -> None:
    """Refuse a first row that is meant as a header and has unknown names; UnknownField.

    It is no row of this model, and has no number: some of its cells name columns, or the model takes nothing but
    numbers. Any other row is left to those who read its values.
    """
    known = False
    for cell in row:
        if _find(cell.strip(), signature) is not None:
            known = True
        elif _VALUE.fullmatch(cell.strip()):
            return
    numeric = all(spec.dtype not in (DType.BYTES, DType.BOOL) for spec in signature.required)
    if (known or (numeric and all(cell.strip() for cell in row))) and not _may_be_values(row, signature):
        named_columns(row, signature, line)


def _may_be_values(row: Sequence[str], signature: Signature) -> bool:
    """Whether a row can be one of the model's, as far as texts and numbers go; an empty cell may be a gap."""
    try:
        columns = unnamed_columns(row, signature)
    except InvalidRequest:
        return False
    own = {name: [row[column].strip() for column in columns.of[name]] for name in columns.of}
    return all(
        not cell or _VALUE.fullmatch(cell)
        for name, cells in own.items()
        if _spec(name, signature).dtype is not DType.BYTES
        for cell in cells
    )


def named_columns(row: Sequence[str], signature: Signature, line: int) -> Columns:
    """The columns by a header row; UnknownField or MissingField where it does not fit the signature."""
    places: dict[str, dict[int, int]] = {}
    names = [cell.strip() for cell in row]
    unknown: list[int] = []
    for column, name in enumerate(names):
        found = _find(name, signature)
        if found is None:
            unknown.append(column)
            continue
        spec, element = found
        if element in places.setdefault(spec.name, {}):
            raise UnknownField.at(f"/lines/{line}/{column}", f"{name[:_MOST_CHARACTERS]!r} is given twice")
        places[spec.name][element] = column
    missing = _missing(places, signature)
    if unknown:
        verb = "names" if len(unknown) == 1 else "name"
        wrong = _listed((names[column] for column in unknown), len(unknown))
        detail = f"{wrong} {verb} no column of this model; it has {_shown(signature)}"
        if missing and places:  # where no name fits, those that it has say it all
            detail += f"; missing: {missing}"
        raise UnknownField.at(f"/lines/{line}/{unknown[0]}", detail)
    if missing:
        raise MissingField.at(f"/lines/{line}", f"has no column {missing}")
    of: dict[str, Sequence[int]] = {}
    for name, elements in places.items():
        if not _fills(_spec(name, signature), len(elements), signature):
            raise MissingField.at(
                f"/lines/{line}", f"lacks columns of the input {name}: {len(elements)} make no whole instance"
            )
        of[name] = [elements[element] for element in range(len(elements))]
    return Columns(of, len(row), names)


def unnamed_columns(row: Sequence[str], signature: Signature) -> Columns:
    """The columns of a body without a header: all elements of all inputs that must be given, in order."""
    specs = signature.required
    counts = [_count(spec, signature) for spec in specs]
    fixed = sum(count for count in counts if count is not None)
    if counts.count(None) > 1:
        raise InvalidRequest("Several inputs of this model have variable sizes: name the columns in a header row.")
    of: dict[str, Sequence[int]] = {}
    start = 0
    for spec, count in zip(specs, counts, strict=True):
        width = len(row) - fixed if count is None else count
        if width < 0 or not _fills(spec, width, signature):
            raise WrongShape.at("/lines", f"have {len(row)} columns, which do not fill the input {spec.name}")
        of[spec.name] = range(start, start + width)
        start += width
    if start != len(row):
        raise WrongShape.at("/lines", f"have {len(row)} columns; this model takes {start}")
    return Columns(of, len(row))


def _find(name: str, signature: Signature) -> tuple[TensorSpec, int] | None:
    """The input and the element that a column's name stands for."""
    found = _named(signature).get(name)
    if found is not None:
        return found
    prefix, _, index = name.rpartition(".")
    first = _named(signature).get(f"{prefix}.0")
    if first is None or not (index.isascii() and index.isdecimal() and len(index) <= 6):
        return None
    count = _count(first[0], signature)
    return (first[0], int(index)) if count is None or int(index) < count else None


@lru_cache(maxsize=64)
def _named(signature: Signature) -> Mapping[str, tuple[TensorSpec, int]]:
    """All names of columns but those by an index above 0; of two meanings of a name the more precise one counts."""
    names: dict[str, tuple[TensorSpec, int]] = {}
    for spec in signature.inputs:
        if signature.batched and not signature.has_rows(spec):
            continue  # no row can hold what counts for all rows
        names[f"{spec.name}.0"] = (spec, 0)
        if _count(spec, signature) in (1, None):
            names[spec.name] = (spec, 0)
        names |= {f"{spec.name}.{feature}": (spec, at) for at, feature in enumerate(spec.features)}
    if len(signature.required) == 1:
        spec = signature.required[0]
        names |= {feature: (spec, at) for at, feature in enumerate(spec.features)}
    return names


def _missing(places: Mapping[str, Mapping[int, int]], signature: Signature) -> str:
    """The columns that a header lacks, for a message; empty if it has all of them."""
    count = 0
    names: list[Iterator[str]] = []
    for spec in signature.inputs:
        given = places.get(spec.name, {})
        if not given and spec not in signature.required:
            continue
        elements = _count(spec, signature)
        wanted = max(given, default=0) + 1 if elements is None else max(elements, 1)
        count += wanted - len(given)
        names.append(_left(spec, given, wanted, signature))
    return _listed(chain.from_iterable(names), count) if count else ""


def _left(spec: TensorSpec, given: Mapping[int, int], wanted: int, signature: Signature) -> Iterator[str]:
    """The names of the input's columns that are not given; not all at once, a caller may make up a high index."""
    return (_name(spec, at, signature) for at in range(wanted) if at not in given)


def _listed(names: Iterable[str], count: int) -> str:
    """The first of so many names, for a message."""
    shown = [repr(name[:_MOST_CHARACTERS]) for name in islice(names, _MOST_NAMED)]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")


def _shown(signature: Signature) -> str:
    """The first columns, for a message."""
    names = list(islice(_names(signature), _MOST_SHOWN + 1))
    shown = [name[:_MOST_CHARACTERS] for name in names[:_MOST_SHOWN]]
    return ", ".join([*shown, "…"] if len(names) > len(shown) else shown)


def _names(signature: Signature) -> Iterator[str]:
    """One name of each column, in order; where an input's size varies, more than are shown."""
    for spec in signature.inputs:
        if signature.batched and not signature.has_rows(spec):
            continue
        elements = len(spec.features) or _count(spec, signature)
        for at in range(_MOST_SHOWN + 1 if elements is None else elements):
            yield _name(spec, at, signature)


def _name(spec: TensorSpec, element: int, signature: Signature) -> str:
    """What the column of an element is called, of several names the one that its owner would choose."""
    if element < len(spec.features):
        alone = len(signature.required) == 1 and spec in signature.required
        return spec.features[element] if alone else f"{spec.name}.{spec.features[element]}"
    return spec.name if _count(spec, signature) == 1 else f"{spec.name}.{element}"


def _spec(name: str, signature: Signature) -> TensorSpec:
    return next(spec for spec in signature.inputs if spec.name == name)


def _count(spec: TensorSpec, signature: Signature) -> int | None:
    """How many elements an instance has; None if it varies."""
    dims = spec.shape[1:] if signature.batched else spec.shape
    sizes = [dim for dim in dims if dim is not None]
    return prod(sizes) if len(sizes) == len(dims) else None


def _fills(spec: TensorSpec, count: int, signature: Signature) -> bool:
    """Whether so many elements make a whole instance; only one dimension may be left to find out."""
    dims = spec.shape[1:] if signature.batched else spec.shape
    known = prod(dim for dim in dims if dim is not None)
    if None not in dims:
        return count == known
    return dims.count(None) == 1 and known > 0 and count > 0 and count % known == 0
