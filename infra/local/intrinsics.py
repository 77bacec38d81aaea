"""CloudFormation's intrinsic functions, evaluated against a scope that knows names, attributes and conditions.

Source: "Intrinsic function reference" and "Condition functions" of the AWS CloudFormation user guide. What is not
written here is refused by name; nothing is passed through unevaluated.
"""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol


class TemplateError(Exception):
    """A template, or a parameter given to it, that cannot be used; the message names the place and what to do."""


class NoValue:
    """`AWS::NoValue`: the property that holds it is left out."""


NO_VALUE: Final = NoValue()
_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]*)\}")


class Scope(Protocol):
    """What the functions look things up in. Each method raises `TemplateError`, naming `where`, for what it lacks."""

    def ref(self, name: str, where: str) -> Any:
        """The value of a parameter, a pseudo parameter or a resource."""

    def attribute(self, logical_id: str, attribute: str, where: str) -> Any:
        """The value of `Fn::GetAtt`."""

    def condition(self, name: str, where: str) -> bool:
        """Whether a named condition of the template holds."""

    def mapping(self, name: str, where: str) -> Mapping[str, Any]:
        """One entry of the template's `Mappings`."""


def evaluate(value: Any, scope: Scope, where: str) -> Any:
    """`value` with every function in it replaced by its result.

    `where` is the path of `value` in the template, for messages. Entries whose result is `AWS::NoValue` are dropped
    from mappings and lists; a bare one is returned as `NO_VALUE`. Raises `TemplateError`.
    """
    if isinstance(value, Mapping):
        name, argument = _as_function(value)
        if name is None:
            pairs = ((key, evaluate(item, scope, f"{where}.{key}")) for key, item in value.items())
            return {key: item for key, item in pairs if item is not NO_VALUE}
        function = _FUNCTIONS.get(name)
        if function is None:
            raise TemplateError(f"{where}: the local runtime does not know the intrinsic function {name}.")
        return function(argument, scope, where)
    if isinstance(value, list):
        items = (evaluate(item, scope, f"{where}[{index}]") for index, item in enumerate(value))
        return [item for item in items if item is not NO_VALUE]
    if isinstance(value, str) and "{{resolve:" in value:
        raise TemplateError(f"{where}: dynamic references ({value}) are not supported locally; pass a parameter.")
    return value


def holds(value: Any, scope: Scope, where: str) -> bool:
    """The truth of a condition: a condition function, `{"Condition": name}` or the text `true` or `false`."""
    if isinstance(value, Mapping) and set(value) == {"Condition"}:
        return scope.condition(str(value["Condition"]), where)
    result = evaluate(value, scope, where)
    if isinstance(result, bool):
        return result
    if result in {"true", "false"}:
        return bool(result == "true")
    raise TemplateError(f"{where}: a condition must be true or false, not {result!r}.")


def as_text(value: Any, where: str) -> str:
    """A scalar as CloudFormation writes it where text is wanted; raises `TemplateError` for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TemplateError(f"{where}: text is needed here, not {value!r}.")


def _as_function(value: Mapping[str, Any]) -> tuple[str | None, Any]:
    if len(value) == 1:
        name, argument = next(iter(value.items()))
        if name == "Ref" or str(name).startswith("Fn::"):
            return name, argument
    return None, None


def _arguments(argument: Any, counts: set[int], name: str, where: str) -> list[Any]:
    if not isinstance(argument, list) or len(argument) not in counts:
        wanted = " or ".join(str(count) for count in sorted(counts))
        raise TemplateError(f"{where}: {name} takes a list of {wanted} items.")
    return argument


def _evaluated_list(value: Any, scope: Scope, name: str, where: str) -> list[Any]:
    result = evaluate(value, scope, where)
    if not isinstance(result, list):
        raise TemplateError(f"{where}: {name} takes a list here, not {result!r}.")
    return result


def _ref(argument: Any, scope: Scope, where: str) -> Any:
    return NO_VALUE if argument == "AWS::NoValue" else scope.ref(str(argument), where)


def _get_att(argument: Any, scope: Scope, where: str) -> Any:
    parts = argument.split(".") if isinstance(argument, str) else argument
    if not isinstance(parts, list) or len(parts) < 2:
        raise TemplateError(f"{where}: Fn::GetAtt takes a logical id and an attribute.")
    attribute = ".".join(as_text(evaluate(part, scope, where), where) for part in parts[1:])
    return scope.attribute(str(parts[0]), attribute, where)


def _sub(argument: Any, scope: Scope, where: str) -> str:
    variables: Mapping[str, Any] = {}
    if not isinstance(argument, str):
        argument, variables = _arguments(argument, {2}, "Fn::Sub", where)
    if not isinstance(argument, str) or not isinstance(variables, Mapping):
        raise TemplateError(f"{where}: Fn::Sub takes text, or a list of text and a mapping.")

    def replacement(match: re.Match[str]) -> str:
        literal, name = match[1], match[2].strip()
        if literal:
            return f"${{{name}}}"
        if name in variables:
            return as_text(evaluate(variables[name], scope, f"{where}.{name}"), f"{where}: ${{{name}}}")
        logical_id, dot, attribute = name.partition(".")
        result = scope.attribute(logical_id, attribute, where) if dot else scope.ref(name, where)
        return as_text(result, f"{where}: ${{{name}}}")

    return _PLACEHOLDER.sub(replacement, argument)


def _if(argument: Any, scope: Scope, where: str) -> Any:
    name, then, otherwise = _arguments(argument, {3}, "Fn::If", where)
    return evaluate(then if scope.condition(str(name), where) else otherwise, scope, where)


def _join(argument: Any, scope: Scope, where: str) -> str:
    separator, items = _arguments(argument, {2}, "Fn::Join", where)
    values = _evaluated_list(items, scope, "Fn::Join", where)
    return as_text(separator, where).join(as_text(value, where) for value in values)


def _select(argument: Any, scope: Scope, where: str) -> Any:
    index, items = _arguments(argument, {2}, "Fn::Select", where)
    position = as_text(evaluate(index, scope, where), where)
    values = _evaluated_list(items, scope, "Fn::Select", where)
    if not position.isdecimal() or int(position) >= len(values):
        raise TemplateError(f"{where}: Fn::Select asks for item {position} of {len(values)}.")
    return values[int(position)]


def _split(argument: Any, scope: Scope, where: str) -> list[str]:
    separator, text = _arguments(argument, {2}, "Fn::Split", where)
    return as_text(evaluate(text, scope, where), where).split(as_text(separator, where))


def _find_in_map(argument: Any, scope: Scope, where: str) -> Any:
    keys = [as_text(evaluate(key, scope, where), where) for key in _arguments(argument, {3}, "Fn::FindInMap", where)]
    found: Any = scope.mapping(keys[0], where)
    for key in keys[1:]:
        if not isinstance(found, Mapping) or key not in found:
            raise TemplateError(f"{where}: Fn::FindInMap finds no {' / '.join(keys)} in Mappings.")
        found = found[key]
    return found


def _equals(argument: Any, scope: Scope, where: str) -> bool:
    left, right = (evaluate(item, scope, where) for item in _arguments(argument, {2}, "Fn::Equals", where))
    scalar = str | int | float
    if isinstance(left, scalar) and isinstance(right, scalar):
        return as_text(left, where) == as_text(right, where)
    return bool(left == right)


def _and(argument: Any, scope: Scope, where: str) -> bool:
    return all(holds(item, scope, where) for item in _arguments(argument, set(range(2, 11)), "Fn::And", where))


def _or(argument: Any, scope: Scope, where: str) -> bool:
    return any(holds(item, scope, where) for item in _arguments(argument, set(range(2, 11)), "Fn::Or", where))


def _not(argument: Any, scope: Scope, where: str) -> bool:
    return not holds(_arguments(argument, {1}, "Fn::Not", where)[0], scope, where)


def _base64(argument: Any, scope: Scope, where: str) -> str:
    return base64.b64encode(as_text(evaluate(argument, scope, where), where).encode()).decode()


_FUNCTIONS: Final[Mapping[str, Callable[[Any, Scope, str], Any]]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::If": _if,
    "Fn::Join": _join,
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::FindInMap": _find_in_map,
    "Fn::Equals": _equals,
    "Fn::And": _and,
    "Fn::Or": _or,
    "Fn::Not": _not,
    "Fn::Base64": _base64,
}
