"""Which of our modules something deployed is made of: what it imports, directly or not, lazily or not."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infra.packaging.errors import PackagingError

OURS = ("functions", "gpu_service", "shared")


@dataclass(frozen=True, slots=True)
class Mentions:
    """The modules that a file may import, and its texts: a module may be looked up by a name in a string."""

    modules: frozenset[str]
    texts: frozenset[str]


@cache
def mentions(file: Path) -> Mentions:
    """What a source file mentions, but for what it imports for type checkers only."""
    modules: set[str] = set()
    texts: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_bytes(), filename=str(file))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        match node:
            case ast.Import(names=names):
                modules.update(alias.name for alias in names)
            case ast.ImportFrom(module=str() as module, level=0, names=names):
                modules.add(module)
                modules.update(f"{module}.{alias.name}" for alias in names)
            case ast.Constant(value=str() as text):
                texts.add(text)
    return Mentions(frozenset(modules), frozenset(texts))


def closure(root: Path, handler: str) -> dict[str, Path]:
    """The files of what starts at `handler` (`package.module.name`), by their paths below `root`.

    Modules that it reaches (those too that a text names in full, as registries do), and whatever else lies in its
    folder that is not Python. PackagingError if the handler's module does not exist.
    """
    module = handler.rpartition(".")[0]
    start = _file(root, module)
    if start is None:
        raise PackagingError(f"The handler {handler} is in no module below {root.name}.")
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        for path in _files(root, waiting.pop()):
            name = path.relative_to(root).as_posix()
            if name not in found:
                found[name] = path
                said = mentions(path)
                waiting.extend(name for name in said.modules if name.partition(".")[0] in OURS)
                waiting.extend(text for text in said.texts if _names_module(root, text))
    for path in start.parent.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            found[path.relative_to(root).as_posix()] = path
    return found


def third_party(files: Iterator[Path]) -> tuple[frozenset[str], frozenset[str]]:
    """The top-level names that files import, and the texts that they hold."""
    seen = [mentions(file) for file in files if file.suffix == ".py"]
    modules = frozenset(module.partition(".")[0] for each in seen for module in each.modules)
    return modules, frozenset(text for each in seen for text in each.texts)


def _files(root: Path, module: str) -> Iterator[Path]:
    """A module's file and those of the packages around it; nothing for a name that is an attribute of a module."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        if file := _file(root, ".".join(parts[:depth])):
            yield file


def _names_module(root: Path, text: str) -> bool:
    """Whether a text is the full name of a module of ours: what is imported by its name stands in one."""
    first, *rest = text.split(".")
    return first in OURS and bool(rest) and text.replace(".", "").isidentifier() and _file(root, text) is not None


def _file(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
