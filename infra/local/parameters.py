"""The parameters of a template: defaults, the values given, and their constraints.

Source: "Parameters" of the AWS CloudFormation template reference.
"""

import re
from collections.abc import Mapping
from typing import Any

from infra.local.intrinsics import TemplateError, as_text


def resolve_parameters(declared: Mapping[str, Any], given: Mapping[str, str], stack_name: str) -> dict[str, Any]:
    """Every declared parameter with its value: text, or a list of texts for the list types.

    Raises `TemplateError`, naming the parameter, for a value that is missing, unknown or against its constraints.
    """
    if unknown := sorted(set(given) - set(declared)):
        raise TemplateError(f"The template of {stack_name} has no parameter {', '.join(unknown)}.")
    return {name: _resolve(name, facts, given) for name, facts in declared.items()}


def _resolve(name: str, facts: Mapping[str, Any], given: Mapping[str, str]) -> Any:
    type_ = facts.get("Type", "String")
    if name not in given and "Default" not in facts:
        raise TemplateError(f"Parameter {name} has no default and no value was given for it.")
    if type_.startswith("AWS::SSM::"):
        raise TemplateError(
            f"Parameter {name} reads the Systems Manager parameter store, which does not exist locally."
        )
    text = as_text(given.get(name, facts.get("Default")), f"Parameter {name}")
    if type_ == "CommaDelimitedList" or type_.startswith("List<"):
        items = [item.strip() for item in text.split(",")] if text else []
        for item in items:
            _check(name, item, facts, is_number=type_ == "List<Number>")
        return items
    _check(name, text, facts, is_number=type_ == "Number")
    return text


def _check(name: str, text: str, facts: Mapping[str, Any], *, is_number: bool) -> None:
    where = f"Parameter {name}"
    allowed = [as_text(value, where) for value in facts.get("AllowedValues", [])]
    if allowed and text not in allowed:
        raise TemplateError(f"{where} must be one of {', '.join(allowed)}, not {text!r}.")
    pattern = facts.get("AllowedPattern")
    if pattern is not None and re.fullmatch(str(pattern), text) is None:
        raise TemplateError(f"{where} must match {pattern}, not {text!r}.")
    if is_number:
        _within(where, _number(text, where), facts, "MinValue", "MaxValue")
    else:
        _within(f"The length of parameter {name}", len(text), facts, "MinLength", "MaxLength")


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise TemplateError(f"{where} must be a number, not {text!r}.") from error


def _within(what: str, value: float, facts: Mapping[str, Any], low: str, high: str) -> None:
    if low in facts and not value >= float(facts[low]):
        raise TemplateError(f"{what} must be at least {facts[low]}, not {value:g}.")
    if high in facts and not value <= float(facts[high]):
        raise TemplateError(f"{what} must be at most {facts[high]}, not {value:g}.")
