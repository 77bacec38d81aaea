"""What Pydantic finds wrong with a document as errors of ours, each place with its JSON pointer."""

import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Never, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

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
# What is said of these, with the members of the error's `ctx`.
_BOUNDS: Mapping[str, str] = {
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
}
# The same of a value that is of another type or form: the member's example follows.
_FORMS: Mapping[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "dataclass_type"), "must be an object"),
    "string_type": "must be a text",
}
_TIME = "must be a time with its offset from UTC (RFC 3339)"
_DATE = "must be a date"
_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_MOST_KNOWN = 16
# Parts of a location that are no part of the document: members of a union, and the name of a member itself.
_TAGS = frozenset({"constrained-int", "constrained-str", "[key]"})


def refusal(found: Sequence[ErrorDetails], base: str = "", model: type[BaseModel] | None = None) -> errors.SluiceError:
    """The error for what was found, of the kind of the first one, with the first eight places below `base`.

    What a document of `model` may have, and the examples of its members, are part of what is said.
    """
    first = found[0]
    if first["type"] == "json_invalid":
        return errors.NotJson(f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}.")
    places = _places(_without_null(found))
    fields = [FieldError(pointer(base, *path), _detail(item, model)) for path, item in places.items()]
    return refused(_kind(next(iter(places.values()))["type"]), fields)


def check_json(text: bytes | str) -> None:
    """Refuse what Pydantic's parser lets pass: members given twice (UnknownField), NaN and Infinity (NotJson)."""
    json.loads(text, object_pairs_hook=_refuse_repeats, parse_constant=_refuse_constant)


def _without_null(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors of members that may be left out, without what is said of null, and without the tags of that union."""
    unions = {item["loc"][:-1] for item in found if item["type"] == "none_required" and item["loc"][-1:] == ("none",)}
    cleaned: list[ErrorDetails] = []
    for item in found:
        loc = item["loc"]
        if item["type"] == "none_required" and loc[:-1] in unions:
            continue
        base = next((loc[:length] for length in range(len(loc)) if loc[:length] in unions), None)
        cleaned.append(item if base is None else {**item, "loc": (*base, *loc[len(base) + 1 :])})
    return cleaned or list(found)


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


def _detail(item: ErrorDetails, model: type[BaseModel] | None) -> str:
    kind, loc = item["type"], item["loc"]
    member = model.model_fields.get(str(loc[0])) if model is not None and len(loc) == 1 else None
    if kind in _UNKNOWN:
        return "is not known here" + (_known(model) if model is not None and len(loc) == 1 else "")
    if kind in _BOUNDS:
        text = _BOUNDS[kind].format_map({name: _plain(value) for name, value in item.get("ctx", {}).items()})
        return text.replace(" 1 entries", " 1 entry").replace(" 1 characters", " 1 character")
    example = _example(member)
    if kind == "timezone_aware" or kind.startswith("datetime_"):
        return f"{_TIME}, such as {example or '2026-11-21T10:00:00Z'}"
    if kind.startswith("date_"):
        return f"{_DATE}, such as {example or '2026-11-21'}"
    such_as = f", such as {example}" if example else ""
    if kind == "string_pattern_mismatch":
        meaning = "" if member is None or not member.description else f": {member.description}"
        return f"must be of the form {item['ctx']['pattern']}{such_as}{meaning}"
    return _FORMS[kind] + such_as if kind in _FORMS else item["msg"].removeprefix("Value error, ")


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _known(model: type[BaseModel]) -> str:
    """The members that a document may have, or the parameters of a query."""
    names = list(model.model_fields)
    shown = ", ".join([*names[:_MOST_KNOWN], "…"] if len(names) > _MOST_KNOWN else names)
    return f"; known: {shown}" if shown else ""


def _example(member: FieldInfo | None) -> str:
    """An example of a member, or what holds without it; empty if there is neither."""
    if member is None:
        return ""
    # Of a member that may be null the example is told by its other type.
    arms = get_args(member.annotation) if get_origin(member.annotation) in (Union, UnionType) else ()
    infos = [info for arm in arms for info in getattr(arm, "__metadata__", ())]
    given = [info.examples[0] for info in (member, *infos) if isinstance(info, FieldInfo) and info.examples]
    example = given[0] if given else member.default
    if example is None or example is PydanticUndefined:
        return ""
    return example if isinstance(example, str) else json.dumps(example, default=str)


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
