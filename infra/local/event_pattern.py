"""Event patterns: what rules of EventBridge and filters of event source mappings are written in.

Source: "Comparison operators for use in event patterns" of the EventBridge user guide and "Control which events Lambda
sends to your function" of the Lambda developer guide. A pattern is an object of fields; a field has a list of values or
operators, one of which must hold. Where the event has a list, one of its elements must match, as a whole if it is an
object. `cidr` is not known here.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

EventMatcher = Callable[[Mapping[str, Any]], bool]
"""Whether an event (a decoded JSON object) matches."""

MAX_LENGTH: Final = 4096

_Leaves = Sequence[Any]
_Test = Callable[[_Leaves], bool]
_LeafTest = Callable[[Any], bool]
_ABSENT: Final = object()
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": lambda value, limit: value == limit,
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}


class EventPatternError(ValueError):
    """Text that is no event pattern, or one that is not known here; the message names the place."""


def compile_event_pattern(pattern: str | Mapping[str, Any]) -> EventMatcher:
    """The matcher of a pattern, given as JSON text or decoded.

    Raises:
        EventPatternError: it is not valid; so AWS would refuse it, too.

    """
    if isinstance(pattern, str):
        if len(pattern) > MAX_LENGTH:
            raise EventPatternError(f"a pattern has {MAX_LENGTH} characters at most, this one has {len(pattern)}")
        try:
            pattern = json.loads(pattern)
        except ValueError as error:
            raise EventPatternError(f"not JSON: {error}") from error
    return _fields(pattern, "the pattern")


def _fields(pattern: Any, where: str) -> EventMatcher:
    if not isinstance(pattern, Mapping) or not pattern:
        raise EventPatternError(f"{where} must be an object with at least one field")
    checks = [
        _alternatives(wanted, f"{where}.$or") if name == "$or" else _field(name, wanted, f"{where}.{name}")
        for name, wanted in pattern.items()
    ]
    return lambda event: all(check(event) for check in checks)


def _alternatives(patterns: Any, where: str) -> EventMatcher:
    if not isinstance(patterns, list) or len(patterns) < 2:
        raise EventPatternError(f"{where} must be a list of at least two objects")
    matchers = [_fields(pattern, f"{where}[{index}]") for index, pattern in enumerate(patterns)]
    return lambda event: any(matches(event) for matches in matchers)


def _field(name: str, wanted: Any, where: str) -> EventMatcher:
    if isinstance(wanted, Mapping):
        matches = _fields(wanted, where)
        return lambda event: any(matches(inner) for inner in _objects(event.get(name)))
    if not isinstance(wanted, list) or not wanted:
        raise EventPatternError(f"{where} must be an object, or a list with at least one value")
    tests = [_test(value, f"{where}[{index}]") for index, value in enumerate(wanted)]

    def holds(event: Mapping[str, Any]) -> bool:
        leaves = _leaves(event.get(name, _ABSENT))
        return any(test(leaves) for test in tests)

    return holds


def _objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """The objects at a place; an empty one where there is none, which has no leaves (`exists` may ask for that)."""
    if isinstance(value, Mapping):
        return [value]
    inner = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    return inner or [{}]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [] if value is _ABSENT or isinstance(value, Mapping) else [value]


def _test(wanted: Any, where: str) -> _Test:
    if isinstance(wanted, list):
        raise EventPatternError(f"{where}: a list cannot be a value")
    if not isinstance(wanted, Mapping):
        return _any_leaf(_equals(wanted))
    name, operand = _operator(wanted, where)
    if name == "exists":
        if not isinstance(operand, bool):
            raise EventPatternError(f"{where}: exists takes true or false")
        return lambda leaves: bool(leaves) == operand
    if name == "numeric":
        return _any_leaf(_numeric(operand, where))
    if name == "anything-but":
        return _any_leaf(_anything_but(operand, where))
    return _any_leaf(_of_text(name, operand, where))


def _any_leaf(test: _LeafTest) -> _Test:
    return lambda leaves: any(test(leaf) for leaf in leaves)


def _operator(wanted: Mapping[str, Any], where: str) -> tuple[str, Any]:
    if len(wanted) != 1:
        raise EventPatternError(f"{where}: an object here has exactly one operator")
    return next(iter(wanted.items()))


def _equals(wanted: Any) -> _LeafTest:
    # The types, too: 1, 1.0 and true are three values to AWS, which compares the text of numbers.
    return lambda leaf: type(leaf) is type(wanted) and leaf == wanted


def _of_text(name: str, operand: Any, where: str) -> _LeafTest:
    if name in {"prefix", "suffix"} and isinstance(operand, Mapping):
        inner, text = _operator(operand, where)
        if inner != "equals-ignore-case" or not isinstance(text, str):
            raise EventPatternError(f"{where}: {name} takes text or equals-ignore-case")
        test = _text_test(name, text.lower(), where)
        return lambda leaf: isinstance(leaf, str) and test(leaf.lower())
    if not isinstance(operand, str):
        raise EventPatternError(f"{where}: {name} takes text")
    test = _text_test(name, operand, where)
    return lambda leaf: isinstance(leaf, str) and test(leaf)


def _text_test(name: str, operand: str, where: str) -> Callable[[str], bool]:
    match name:
        case "prefix":
            return lambda leaf: leaf.startswith(operand)
        case "suffix":
            return lambda leaf: leaf.endswith(operand)
        case "equals-ignore-case":
            lowered = operand.lower()
            return lambda leaf: leaf.lower() == lowered
        case "wildcard":
            regex = _wildcard(operand, where)
            return lambda leaf: regex.fullmatch(leaf) is not None
    raise EventPatternError(f"{where}: the operator {name} is not known here")


def _wildcard(operand: str, where: str) -> re.Pattern[str]:
    r"""`*` stands for any text; `\*` and `\\` are the characters themselves."""
    parts = re.findall(r"\\[\\*]|\*+|[^\\*]+|\\", operand)
    if any(part == "\\" or (part[0] == "*" and len(part) > 1) for part in parts):
        raise EventPatternError(f"{where}: {operand!r} has a lone backslash or two wildcards in a row")
    return re.compile("".join(".*" if part == "*" else re.escape(_unescaped(part)) for part in parts), re.DOTALL)


def _unescaped(part: str) -> str:
    return part[1] if part in {"\\*", "\\\\"} else part


def _anything_but(operand: Any, where: str) -> _LeafTest:
    if isinstance(operand, Mapping):
        name, texts = _operator(operand, where)
        if name not in {"prefix", "suffix", "equals-ignore-case", "wildcard"}:
            raise EventPatternError(f"{where}: anything-but {name} is not known here")
        tests = [_of_text(name, text, where) for text in _several(texts, where)]
    else:
        wanted = _several(operand, where)
        if not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in wanted):
            raise EventPatternError(f"{where}: anything-but takes texts, numbers or an operator")
        tests = [_equals(each) for each in wanted]
    return lambda leaf: not any(test(leaf) for test in tests)


def _several(operand: Any, where: str) -> list[Any]:
    values = operand if isinstance(operand, list) else [operand]
    if not values:
        raise EventPatternError(f"{where}: the list is empty")
    return values


def _numeric(operand: Any, where: str) -> _LeafTest:
    if not isinstance(operand, list) or len(operand) not in {2, 4}:
        raise EventPatternError(f'{where}: numeric takes a list such as [">", 0, "<=", 5]')
    limits = []
    for name, limit in zip(operand[::2], operand[1::2], strict=True):
        if name not in _COMPARISONS or not _is_number(limit):
            raise EventPatternError(f"{where}: numeric does not know {json.dumps([name, limit])}")
        limits.append((_COMPARISONS[name], limit))
    return lambda leaf: _is_number(leaf) and all(compare(leaf, limit) for compare, limit in limits)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
