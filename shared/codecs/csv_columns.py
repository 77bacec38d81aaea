"""Which columns of a CSV row are which elements of which input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import prod

from shared.domain.errors import InvalidRequest, MissingField, UnknownField, WrongShape
from shared.domain.signature import Signature, TensorSpec

_MOST_SHOWN = 8
_MOST_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of each input's elements, row-major, in a row of `width` columns."""

    of: Mapping[str, Sequence[int]]
    width: int


def is_header(row: Sequence[str], signature: Signature) -> bool:
    """Whether every cell names a column that the model can have."""
    return all(_find(cell.strip(), signature) is not None for cell in row)


def named_columns(row: Sequence[str], signature: Signature, line: int) -> Columns:
    """The columns by a header row; UnknownField, MissingField or WrongShape where it does not fit the signature."""
    places: dict[str, dict[int, int]] = {}
    for column, cell in enumerate(row):
        name = cell.strip()
        found = _find(name, signature)
        here = f"/lines/{line}/{column}"
        if found is None:
            raise UnknownField.at(here, f"{name[:100]!r} names no column of this model; it has {_shown(signature)}")
        spec, element = found
        if element in places.setdefault(spec.name, {}):
            raise UnknownField.at(here, f"{name[:100]!r} is given twice")
        places[spec.name][element] = column
    for spec in signature.required:
        if spec.name not in places:
            raise MissingField.at(f"/lines/{line}", f"has no column for the input {spec.name}")
    of: dict[str, Sequence[int]] = {}
    for name, elements in places.items():
        count = max(elements) + 1
        wanted = _count(_spec(name, signature), signature)
        if len(elements) != (count if wanted is None else wanted) or not _fills(
            _spec(name, signature), count, signature
        ):
            raise MissingField.at(f"/lines/{line}", f"lacks columns of the input {name}")
        of[name] = [elements[element] for element in range(count)]
    return Columns(of, len(row))


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
        elements = _count(spec, signature)
        if spec.features:
            alone = len(signature.required) == 1 and spec in signature.required
            yield from spec.features if alone else (f"{spec.name}.{feature}" for feature in spec.features)
        elif elements == 1:
            yield spec.name
        else:
            yield from (f"{spec.name}.{at}" for at in range(_MOST_SHOWN + 1 if elements is None else elements))


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
