"""What Pydantic finds wrong with a document as errors of ours, each place with its JSON pointer."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Never

from pydantic_core import ErrorDetails

from shared.domain import errors
from shared.domain.errors import FieldError, pointer
from shared.domain.field_errors import refused

# Source: Pydantic, "Validation Errors". What is not named here and does not end in `_type` or `_parsing` is a bound.
_KINDS: Mapping[str, type[errors.InvalidRequest]] = {
    "missing": errors.MissingField,
    "extra_forbidden": errors.UnknownField,
    "unexpected_keyword_argument": errors.UnknownField,  # as dataclasses have it
    "string_too_long": errors.TextTooLong,
    "timezone_aware": errors.WrongDtype,
}
_DETAILS: Mapping[str, str] = {"unexpected_keyword_argument": "Extra inputs are not permitted"}
# Parts of a location that are no part of the document: members of a union, and the name of a member itself.
_TAGS = frozenset({"constrained-int", "constrained-str", "[key]"})


def refusal(found: Sequence[ErrorDetails], base: str = "") -> errors.SluiceError:
    """The error for what was found, of the kind of the first one, with the first eight places below `base`."""
    first = found[0]
    if first["type"] == "json_invalid":
        return errors.NotJson(f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}.")
    places = _places(found)
    fields = [FieldError(pointer(base, *path), _detail(item)) for path, item in places.items()]
    return refused(_kind(next(iter(places.values()))["type"]), fields)


def check_json(text: bytes | str) -> None:
    """Refuse what Pydantic's parser lets pass: members given twice (UnknownField), NaN and Infinity (NotJson)."""
    json.loads(text, object_pairs_hook=_refuse_repeats, parse_constant=_refuse_constant)


def _places(found: Sequence[ErrorDetails]) -> dict[tuple[int | str, ...], ErrorDetails]:
    """The errors by place, without what follows from others."""
    deeper = {item["loc"][:length] for item in found for length in range(len(item["loc"]))}
    places: dict[tuple[int | str, ...], ErrorDetails] = {}
    for item in found:
        loc = item["loc"]
        # A list whose items are refused is also said to have too few of them.
        if item["type"] == "too_short" and loc in deeper:
            continue
        path = loc[:-1] if loc and loc[-1] in _TAGS and _is_tagged(loc, found) else loc
        known = places.get(path)
        # Of a union's members the one that the value was meant for has the better message.
        if known is None or (known["type"].endswith("_type") and not item["type"].endswith("_type")):
            places[path] = item
    return places


def _is_tagged(loc: tuple[int | str, ...], found: Sequence[ErrorDetails]) -> bool:
    """Whether a location ends in a tag: `[key]` always does, the name of a union's member only beside another one."""
    return loc[-1] == "[key]" or any(
        other["loc"][:-1] == loc[:-1] and other["loc"][-1] in _TAGS and other["loc"] != loc
        for other in found
        if other["loc"]
    )


def _detail(item: ErrorDetails) -> str:
    return _DETAILS.get(item["type"]) or item["msg"].removeprefix("Value error, ")


def _kind(type_: str) -> type[errors.InvalidRequest]:
    if type_ in _KINDS:
        return _KINDS[type_]
    return errors.WrongDtype if type_.endswith(("_type", "_parsing")) else errors.OutOfRange


def _refuse_repeats(members: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise errors.UnknownField.at(pointer("", name), "is given twice in one object")
        seen.add(name)


def _refuse_constant(name: str) -> Never:
    raise errors.NotJson(f"The body is not JSON: it has no {name}.")
