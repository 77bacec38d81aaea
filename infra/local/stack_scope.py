"""One template with its parameters: what its names mean, and the resources whose conditions hold.

Nested stacks are scopes of their own below it. Nothing is created, so names and attributes are made up, and always
the same for the same template: `<stack>-<LogicalId>` unless the template names the resource.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.local.intrinsics import NO_VALUE, TemplateError, as_text, evaluate, holds
from infra.local.parameters import resolve_parameters
from infra.local.resource_types import KNOWN, NO_EFFECT, TypeFacts, UnknownResourceType
from infra.local.stack import ACCOUNT_ID, REGION

Transform = Callable[[Path, Mapping[str, str]], dict[str, Any]]

NESTED_STACK: Final = "AWS::CloudFormation::Stack"
_MAX_DEPTH: Final = 5


@dataclass(frozen=True, slots=True)
class ResolvedResource:
    """A resource whose condition holds. `logical_id` has the logical ids of its nested stacks in front, dotted.

    `ref` is the value of `Ref` on it; `properties` are evaluated (empty for types without local effect).
    """

    logical_id: str
    type: str
    name: str
    ref: str
    properties: Mapping[str, Any]
    template_dir: Path


class StackScope:
    """The `intrinsics.Scope` of one stack."""

    def __init__(
        self, path: Path, name: str, parameters: Mapping[str, str], transform: Transform, *, prefix: str = ""
    ) -> None:
        if prefix.count(".") > _MAX_DEPTH:
            raise TemplateError(f"{path}: stacks are nested more than {_MAX_DEPTH} deep; does one contain itself?")
        self._path = path
        self._name = name
        self._prefix = prefix
        self._transform = transform
        self._template = transform(path, parameters)
        self._parameters = resolve_parameters(self._template.get("Parameters", {}), parameters, name)
        self._values: dict[tuple[str, str], Any] = {}
        self._pending: list[tuple[str, str]] = []
        self._check_rules()

    # ------------------------------------------------------------ intrinsics.Scope
    def ref(self, name: str, where: str) -> Any:
        """Pseudo parameter, parameter or resource."""
        pseudo = {
            "AWS::AccountId": ACCOUNT_ID,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackId": KNOWN[NESTED_STACK].ref.format(name=self._name),
            "AWS::StackName": self._name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._parameters:
            return self._parameters[name]
        return self._pattern(name, self._facts(name, where).ref, where)

    def attribute(self, logical_id: str, attribute: str, where: str) -> Any:
        """An attribute of a resource, or `Outputs.Name` of a nested stack."""
        facts = self._facts(logical_id, where)
        if self._resource(logical_id, where)["Type"] == NESTED_STACK and attribute.startswith("Outputs."):
            return self._nested(logical_id).output(attribute.removeprefix("Outputs."), where)
        if attribute not in facts.attributes:
            type_ = self._resource(logical_id, where)["Type"]
            known = ", ".join(sorted(facts.attributes)) or "none"
            raise TemplateError(
                f"{where}: the local runtime does not know the attribute {attribute} of {logical_id} ({type_});"
                f" it knows {known}."
            )
        return self._pattern(logical_id, facts.attributes[attribute], where)

    def condition(self, name: str, where: str) -> bool:
        """A named condition."""
        conditions = self._template.get("Conditions", {})
        if name not in conditions:
            raise TemplateError(f"{where}: the template has no condition {name}.")
        return bool(self._once(("condition", name), lambda: holds(conditions[name], self, f"Conditions.{name}"), where))

    def mapping(self, name: str, where: str) -> Mapping[str, Any]:
        """One of the mappings."""
        found = self._template.get("Mappings", {}).get(name)
        if not isinstance(found, Mapping):
            raise TemplateError(f"{where}: the template has no mapping {name}.")
        return found

    # ------------------------------------------------------------ what the stack holds
    def resources(self) -> Iterator[ResolvedResource]:
        """The resources whose conditions hold, those of nested stacks included. Raises `UnknownResourceType`."""
        present = [logical_id for logical_id in self._template["Resources"] if self._is_present(logical_id)]
        types = {logical_id: str(self._template["Resources"][logical_id].get("Type")) for logical_id in present}
        if unknown := {self._prefix + logical_id: type_ for logical_id, type_ in types.items() if type_ not in KNOWN}:
            raise UnknownResourceType(unknown)
        for logical_id, type_ in types.items():
            if type_ == NESTED_STACK:
                yield from self._nested(logical_id).resources()
                continue
            where = f"Resources.{self._prefix}{logical_id}"
            properties = {} if type_ in NO_EFFECT else self._properties(logical_id)
            yield ResolvedResource(
                logical_id=self._prefix + logical_id,
                type=type_,
                name=self._physical_name(logical_id),
                ref=as_text(self.ref(logical_id, where), where),
                properties=properties,
                template_dir=self._path.parent,
            )

    def outputs(self) -> dict[str, str]:
        """The outputs whose conditions hold."""
        declared = self._template.get("Outputs", {})
        present = (name for name, facts in declared.items() if self._holds(facts, f"Outputs.{name}"))
        return {name: as_text(self.output(name, "Outputs"), f"Outputs.{name}") for name in present}

    def output(self, name: str, where: str) -> Any:
        """The value of one output."""
        declared = self._template.get("Outputs", {}).get(name)
        if declared is None or not self._holds(declared, where):
            raise TemplateError(f"{where}: the stack {self._name} has no output {name}.")
        place = f"Outputs.{name}.Value"
        return self._once(("output", name), lambda: evaluate(declared.get("Value"), self, place), where)

    # ------------------------------------------------------------ inside
    def _check_rules(self) -> None:
        """The template's `Rules`: parameters that do not go together, which CloudFormation refuses before anything."""
        for name, rule in self._template.get("Rules", {}).items():
            where = f"Rules.{name}"
            if not holds(rule.get("RuleCondition", True), self, f"{where}.RuleCondition"):
                continue
            for assertion in rule.get("Assertions", []):
                if not holds(assertion["Assert"], self, f"{where}.Assertions"):
                    raise TemplateError(f"{where}: {assertion.get('AssertDescription', 'an assertion does not hold')}")

    def _once(self, key: tuple[str, str], compute: Callable[[], Any], where: str) -> Any:
        """`compute()`, kept; a value that needs itself is named instead of recursing for ever."""
        if key in self._pending:
            raise TemplateError(
                f"{where}: circular dependency between {' and '.join(name for _, name in self._pending)}."
            )
        if key not in self._values:
            self._pending.append(key)
            try:
                self._values[key] = compute()
            finally:
                self._pending.pop()
        return self._values[key]

    def _holds(self, facts: Mapping[str, Any], where: str) -> bool:
        name = facts.get("Condition")
        return name is None or self.condition(str(name), where)

    def _is_present(self, logical_id: str) -> bool:
        return self._holds(self._template["Resources"][logical_id], f"Resources.{self._prefix}{logical_id}")

    def _resource(self, logical_id: str, where: str) -> Mapping[str, Any]:
        found = self._template["Resources"].get(logical_id)
        if not isinstance(found, Mapping):
            raise TemplateError(f"{where}: the template has no parameter or resource {logical_id}.")
        if not self._is_present(logical_id):
            raise TemplateError(
                f"{where}: {logical_id} is referred to, but its condition {found['Condition']} is false."
            )
        return found

    def _facts(self, logical_id: str, where: str) -> TypeFacts:
        type_ = str(self._resource(logical_id, where).get("Type"))
        if type_ not in KNOWN:
            raise UnknownResourceType({self._prefix + logical_id: type_})
        return KNOWN[type_]

    def _property(self, logical_id: str, name: str | None) -> Any:
        properties = self._template["Resources"][logical_id].get("Properties", {})
        if name is None or name not in properties:
            return NO_VALUE
        return evaluate(properties[name], self, f"Resources.{self._prefix}{logical_id}.Properties.{name}")

    def _properties(self, logical_id: str) -> dict[str, Any]:
        properties = self._template["Resources"][logical_id].get("Properties", {})
        evaluated: dict[str, Any] = evaluate(properties, self, f"Resources.{self._prefix}{logical_id}.Properties")
        return evaluated

    def _physical_name(self, logical_id: str) -> str:
        where = f"Resources.{self._prefix}{logical_id}"
        return str(self._once(("name of", logical_id), lambda: self._new_name(logical_id, where), where))

    def _new_name(self, logical_id: str, where: str) -> str:
        facts = self._facts(logical_id, where)
        given = self._property(logical_id, facts.name_property)
        if given is not NO_VALUE:
            return as_text(given, f"{where}.Properties.{facts.name_property}")
        name = facts.default_name.format(
            stack=self._name,
            logical_id=logical_id,
            lower_stack=self._name.lower(),
            lower_logical_id=logical_id.lower(),
        )
        is_fifo = self._property(logical_id, "FifoQueue") is True or self._property(logical_id, "FifoTopic") is True
        return f"{name}.fifo" if is_fifo else name

    def _pattern(self, logical_id: str, pattern: str, where: str) -> str:
        facts = self._facts(logical_id, where)
        name = self._physical_name(logical_id)
        parent = "" if facts.parent_property is None else self._property(logical_id, facts.parent_property)
        unique = hashlib.sha256(f"{self._name}/{logical_id}".encode()).hexdigest()
        return pattern.format(name=name, lower=name.lower(), parent=parent, id=unique[:10])

    def _nested(self, logical_id: str) -> "StackScope":
        where = f"Resources.{self._prefix}{logical_id}"
        nested: StackScope = self._once(("nested stack", logical_id), lambda: self._new_nested(logical_id), where)
        return nested

    def _new_nested(self, logical_id: str) -> "StackScope":
        place = f"Resources.{self._prefix}{logical_id}.Properties"
        location = self._property(logical_id, "TemplateURL")
        if not isinstance(location, str) or "://" in location:
            raise TemplateError(f"{place}: a nested stack needs the local path of its template, not {location!r}.")
        given = self._property(logical_id, "Parameters")
        given = given if isinstance(given, Mapping) else {}
        parameters = {
            name: ",".join(value) if isinstance(value, list) else as_text(value, f"{place}.Parameters.{name}")
            for name, value in given.items()
        }
        return StackScope(
            self._path.parent / location,
            f"{self._name}-{logical_id}",
            parameters,
            self._transform,
            prefix=f"{self._prefix}{logical_id}.",
        )
