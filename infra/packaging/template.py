"""The templates as they are deployed: the text that is committed, with the paths of the built artefacts in it.

The text is edited where a YAML parser says that a value stands. So comments, order and CloudFormation's short tags stay
as they are, and what is deployed can be compared with what was reviewed.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from infra.packaging.errors import PackagingError

_FUNCTION = "AWS::Serverless::Function"
_LAYER = "AWS::Serverless::LayerVersion"
_NESTED = {"AWS::Serverless::Application": "Location", "AWS::CloudFormation::Stack": "TemplateURL"}
_ARCHITECTURE = "Architecture"


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a template: its code is staged as `code/<name>.zip`; `layers` are names of layers."""

    name: str
    handler: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` comes in place of the characters from `start` to `end`."""

    start: int
    end: int
    text: str


class Template:
    """A template file below `root`; PackagingError says what cannot be staged."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self.relative = path.relative_to(root)
        self._text = path.read_text(encoding="utf-8")
        document = yaml.compose(self._text, Loader=yaml.SafeLoader)
        if not isinstance(document, MappingNode):
            raise PackagingError(f"{self.relative} is no template.")
        self._document = document
        self._globals = _child(_child(document, "Globals"), "Function")

    def functions(self) -> list[Function]:
        """The functions whose code is in this repository."""
        return [
            Function(self._name(logical_id), self._handler(logical_id, properties), self._layers(properties))
            for logical_id, properties in self._of_type(_FUNCTION)
            if _child(properties, "InlineCode") is None
        ]

    def layers(self) -> dict[str, str]:
        """The names of the layers by logical id: the last part of their `ContentUri`."""
        return {
            logical_id: Path(_text(_child(properties, "ContentUri"), f"ContentUri of {logical_id}")).name
            for logical_id, properties in self._of_type(_LAYER)
        }

    def nested(self) -> "list[Template]":
        """The templates that this one nests, theirs included."""
        found = []
        for kind, key in _NESTED.items():
            for logical_id, properties in self._of_type(kind):
                path = (self._path.parent / _text(_child(properties, key), f"{key} of {logical_id}")).resolve()
                if not path.is_relative_to(self._root) or not path.is_file():
                    raise PackagingError(f"{logical_id} nests {path.name}, which is not in this repository.")
                template = Template(self._root, path)
                found += [template, *template.nested()]
        return found

    def staged(self, architecture: str) -> str:
        """The text, with artefacts for one architecture in it; no other can be chosen at deployment."""
        edits = []
        prefix = os.path.relpath(self._root, self._path.parent)
        for logical_id, properties in self._of_type(_FUNCTION):
            if _child(properties, "InlineCode") is None:
                where = Path(prefix, "code", f"{self._name(logical_id)}.zip").as_posix()
                edits.append(_set(self._text, properties, "CodeUri", where))
        names = self.layers()
        for logical_id, properties in self._of_type(_LAYER):
            where = Path(prefix, "layers", f"{names[logical_id]}.zip").as_posix()
            edits.append(_set(self._text, properties, "ContentUri", where))
        parameter = _child(_child(self._document, "Parameters"), _ARCHITECTURE)
        if isinstance(parameter, MappingNode):
            edits.append(_set(self._text, parameter, "Default", architecture))
            edits.append(_set(self._text, parameter, "AllowedValues", f"[{architecture}]"))
        text = self._text
        for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text

    def _of_type(self, kind: str) -> Iterator[tuple[str, MappingNode]]:
        for logical_id, resource in _items(_child(self._document, "Resources")):
            type_ = _child(resource, "Type")
            properties = _child(resource, "Properties")
            if isinstance(type_, ScalarNode) and type_.value == kind and isinstance(properties, MappingNode):
                yield logical_id, properties

    def _name(self, logical_id: str) -> str:
        return logical_id if self.relative.parent == Path() else f"{self.relative.stem}-{logical_id}"

    def _handler(self, logical_id: str, properties: MappingNode) -> str:
        return _text(_child(properties, "Handler") or _child(self._globals, "Handler"), f"Handler of {logical_id}")

    def _layers(self, properties: MappingNode) -> tuple[str, ...]:
        names = self.layers()
        nodes = (_child(self._globals, "Layers"), _child(properties, "Layers"))
        references = [value for node in nodes for value in _scalars(node)]
        return tuple(dict.fromkeys(names[value] for value in references if value in names))


def _items(node: Node | None) -> Iterator[tuple[str, Node]]:
    if isinstance(node, MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)


def _child(node: Node | None, key: str) -> Node | None:
    return next((value for name, value in _items(node) if name == key), None)


def _scalars(node: Node | None) -> Iterator[str]:
    """Every text at or below a node; a reference to a layer may stand inside a condition."""
    match node:
        case ScalarNode():
            yield str(node.value)
        case SequenceNode():
            for item in node.value:
                yield from _scalars(item)
        case MappingNode():
            for _, value in _items(node):
                yield from _scalars(value)


def _text(node: Node | None, what: str) -> str:
    if not isinstance(node, ScalarNode) or str(node.tag).startswith("!"):
        raise PackagingError(f"{what} must be a plain text in the template.")
    return str(node.value)


def _set(text: str, mapping: MappingNode, key: str, value: str) -> Edit:
    """Replace the value of a key, or put the key before the mapping's first one."""
    node = _child(mapping, key)
    if node is not None:
        # A block ends where the next key begins: the line break and the indentation before that stay.
        start, end = node.start_mark.index, node.end_mark.index
        return Edit(start, start + len(text[start:end].rstrip()), value)
    mark = mapping.value[0][0].start_mark
    separator = ", " if mapping.flow_style else "\n" + " " * mark.column
    return Edit(mark.index, mark.index, f"{key}: {value}{separator}")
