"""YAML as values that JSON has, with the line of each: no tags, no merging, and no member given twice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from shared.domain.errors import pointer

MAX_VALUES: Final = 50_000
_MAX_DEPTH: Final = 64
_TAG: Final = "tag:yaml.org,2002:"
# Source: YAML 1.2.2, 10.3.2 "Tag Resolution" of the core schema. PyYAML follows YAML 1.1, where `no` is false, `010` is
# eight and `12:30` is 750.
_BOOLEANS: Final = {"true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YamlProblem(Exception):
    """What cannot be read, and the line of it."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.detail = detail


@dataclass(slots=True)
class YamlDocument:
    """A value, and the line of each place in it by JSON pointer, from 1."""

    value: Any = None
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, where: str) -> int | None:
        """The line of a place, or of the nearest one around it if it is not there."""
        while where not in self.lines and where:
            where = where.rpartition("/")[0]
        return self.lines.get(where)


def read_yaml(text: str) -> Iterator[YamlDocument]:
    """The documents in a file; empty ones are left out. Raises YamlProblem."""
    try:
        for node in yaml.compose_all(text, yaml.SafeLoader):
            reader = _Reader()
            reader.document.value = reader.read(node, "", 0)
            if reader.document.value is not None:
                yield reader.document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(0 if mark is None else mark.line + 1, error.problem or str(error)) from None
    except yaml.YAMLError as error:  # characters that YAML does not have
        raise YamlProblem(0, str(error).partition("\n")[0]) from None
    except RecursionError:
        raise YamlProblem(0, "is nested too deep") from None


class _Reader:
    def __init__(self) -> None:
        self.document = YamlDocument()
        self._left = MAX_VALUES

    def read(self, node: yaml.Node, where: str, depth: int) -> Any:
        """The value of a node. An alias is read as what it stands for, so values are counted, and depth is bounded."""
        line = _line(node)
        self._left -= 1
        if self._left < 0:
            raise YamlProblem(line, f"there are more than {MAX_VALUES} values")
        if depth > _MAX_DEPTH:
            raise YamlProblem(line, f"is nested deeper than {_MAX_DEPTH}")
        self.document.lines.setdefault(where, line)
        match node:
            case yaml.MappingNode() if node.tag == f"{_TAG}map":
                return self._mapping(node, where, depth)
            case yaml.SequenceNode() if node.tag == f"{_TAG}seq":
                return [self.read(item, pointer(where, at), depth + 1) for at, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return _scalar(node)
            case _:
                raise YamlProblem(line, f"{node.tag.removeprefix(_TAG)} is no type that JSON has")

    def _mapping(self, node: yaml.MappingNode, where: str, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                raise YamlProblem(line, "the name of a member must be text")
            if key.tag == f"{_TAG}merge":
                raise YamlProblem(line, "<< is not read: write the members out")
            if key.value in members:
                raise YamlProblem(line, f"{key.value} is given twice")
            place = pointer(where, key.value)
            self.document.lines[place] = line
            members[key.value] = self.read(value, place, depth + 1)
        return members


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    match kind:
        case "str" if node.style is None and _FLOAT.fullmatch(text):  # 1e3, which YAML 1.1 takes for text
            return _number(text)
        case "str" | "timestamp":
            return text
        case "null":
            return None
        case "bool":
            return _BOOLEANS.get(text.lower(), text)
        case "int" | "float":
            return _number(text)
        case _:
            raise YamlProblem(_line(node), f"{kind} is no type that JSON has")


def _number(text: str) -> int | float | str:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
