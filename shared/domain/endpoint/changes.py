"""What differs between two configurations, as a plan that is read before it is applied."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import msgspec

from shared.domain.endpoint.config import EndpointConfig

Kind = Literal["add", "remove", "change"]

_SIGNS: Final[Mapping[Kind, str]] = {"add": "+", "remove": "-", "change": "~"}
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_MAX_TEXT = 200
_NOTHING: Final[tuple[Any, ...]] = (None, {}, [])


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan: `path` leads to the value (`variants[candidate].weight`, `labels.prod`, `fallback[0]`).

    `before` and `after` are values as JSON has them, None where there is none.
    """

    kind: Kind
    path: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        """The line, such as `+ labels.prod = 3`, `~ timeout_ms: 29000 -> 1000` or `- labels.prod`."""
        line = f"{_SIGNS[self.kind]} {self.path}"
        if self.kind == "add":
            return f"{line} = {_text(self.after)}"
        return line if self.kind == "remove" else f"{line}: {_text(self.before)} -> {_text(self.after)}"


def changes(before: EndpointConfig | None, after: EndpointConfig) -> list[Change]:
    """From one configuration to the next, in the order of the fields; variants are compared by name.

    Before None is an endpoint for which nothing is stored: what `after` has beside the defaults is added, and its
    variants are.
    """
    new = _document(after)
    if before is not None:
        return list(_compared("", _document(before), new))
    default = _document(EndpointConfig(after.endpoint)) | {"variants": []}
    return [replace(change, kind="add", before=None) for change in _compared("", default, new)]


def _document(config: EndpointConfig) -> Any:
    return json.loads(msgspec.json.encode(config))


def _compared(path: str, before: Any, after: Any) -> Iterator[Change]:
    match before, after:
        case dict(), dict():
            yield from _members(path, before, after)
        case list(), list() if path == "variants":
            yield from _variants(before, after)
        case list(), list() if _has_objects(before) or _has_objects(after):
            yield from _items(path, before, after)
        case _ if after in _NOTHING:
            if before not in _NOTHING:
                yield Change("remove", path, before)
        case _ if before in _NOTHING:
            yield from _added(path, after)
        case _ if json.dumps(before) != json.dumps(after):  # in Python true is 1
            yield Change("change", path, before, after)


def _members(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in after:
        yield from _compared(_member(path, name), before.get(name), after[name])
    for name in before:
        if name not in after:
            yield Change("remove", _member(path, name), before[name])


def _variants(before: Sequence[Any], after: Sequence[Any]) -> Iterator[Change]:
    old = {variant["name"]: variant for variant in before}
    new = {variant["name"]: variant for variant in after}
    for name, variant in new.items():
        yield from _compared(f"variants[{name}]", _unnamed(old.get(name)), _unnamed(variant))
    for name, variant in old.items():
        if name not in new:
            yield Change("remove", f"variants[{name}]", _unnamed(variant))
    stayed = ([name for name in old if name in new], [name for name in new if name in old])
    if stayed[0] != stayed[1]:
        yield Change("change", "variants", *stayed)


def _items(path: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[Change]:
    """Entries whose order has a meaning, by their place."""
    for place, item in enumerate(after):
        yield from _compared(f"{path}[{place}]", before[place] if place < len(before) else None, item)
    for place in range(len(after), len(before)):
        yield Change("remove", f"{path}[{place}]", before[place])


def _added(path: str, value: Any) -> Iterator[Change]:
    """A line for each value that is there now."""
    if isinstance(value, dict):
        for name, member in value.items():
            if member not in _NOTHING:
                yield from _added(_member(path, name), member)
    elif isinstance(value, list) and _has_objects(value):
        yield from _items(path, (), value)
    else:
        yield Change("add", path, None, value)


def _unnamed(variant: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if variant is None else {name: value for name, value in variant.items() if name != "name"}


def _has_objects(values: Sequence[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)


def _member(path: str, name: str) -> str:
    """Names of outputs and labels may have dots, which separate members otherwise."""
    if not _PLAIN.fullmatch(name):
        return f"{path}[{json.dumps(name, ensure_ascii=False)}]"
    return f"{path}.{name}" if path else name


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
