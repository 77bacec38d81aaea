"""Configurations of endpoints from files: each with its place, and everything that is wrong with them at once."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.cli.options import read_input
from infra.cli.output import USAGE, Failure
from infra.cli.problems import more_places
from infra.cli.yaml_documents import YamlDocument, YamlProblem, read_yaml
from shared.domain.endpoint.checks import problems_of
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import FieldError, SluiceError

MAX_FILES: Final = 256
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_ENDPOINTS: Final = 1000

_YAML: Final = (".yaml", ".yml")
_JSON: Final = ".json"
_STDIN: Final = "-"
# Further ones are counted.
_MAX_SHOWN: Final = 30


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document begins: the file, and the lines of its members."""

    file: str
    document: YamlDocument

    def __str__(self) -> str:
        return _place(self.file, self.document.line(""))

    def problem(self, error: FieldError) -> str:
        """One line: file, line, JSON pointer, and what is wrong there."""
        where = f"{error.pointer} " if error.pointer else ""
        return f"{_place(self.file, self.document.line(error.pointer))}: {where}{error.detail}"


@dataclass(frozen=True, slots=True)
class EndpointFile:
    """A configuration, and where it stands."""

    config: EndpointConfig
    source: Source


def read_files(paths: Sequence[str]) -> Sequence[EndpointFile]:
    """What stands in these files and in those of these folders, in that order; `-` is standard input.

    Nothing is held against what is stored or published. Failure with everything that is wrong, each with its place.
    """
    found: dict[str, EndpointFile] = {}
    problems: list[str] = []
    for name in _files(paths):
        try:
            documents = list(_documents(name))
        except YamlProblem as error:
            problems.append(f"{_place(name, error.line)}: {error.detail}")
            continue
        for document in documents:
            source = Source(name, document)
            try:
                config = _config(document.value)
            except SluiceError as error:
                problems += problems_in(source, error)
                continue
            problems += [source.problem(problem) for problem in problems_of(config)]
            if config.endpoint in found:
                first = found[config.endpoint].source
                problems.append(source.problem(FieldError("/endpoint", f"{config.endpoint} is in {first}, too")))
            found.setdefault(config.endpoint, EndpointFile(config, source))
    if problems:
        raise wrong(problems)
    if not found:
        raise Failure(f"There is no configuration of an endpoint in {', '.join(paths)}.", exit_code=USAGE)
    if len(found) > MAX_ENDPOINTS:
        raise Failure(
            f"There are {len(found)} endpoints; at most {MAX_ENDPOINTS} are applied at once.", exit_code=USAGE
        )
    return list(found.values())


def problems_in(source: Source, error: SluiceError) -> Sequence[str]:
    """What an error says about a document, a line for each place."""
    lines = [source.problem(problem) for problem in error.fields or [FieldError("", error.detail)]]
    if error.fields:
        lines += [f"{source}: {more}" for more in more_places(error.detail)]
    return lines


def wrong(problems: Sequence[str]) -> Failure:
    """The failure for files that are not applied; nothing was changed."""
    shown = problems[:_MAX_SHOWN]
    if len(problems) > len(shown):
        shown = [*shown, f"and {len(problems) - len(shown)} more"]
    number = "One thing is" if len(problems) == 1 else f"{len(problems)} things are"
    return Failure(f"Nothing was changed: {number} wrong.", exit_code=USAGE, details=tuple(shown))


def _files(paths: Sequence[str]) -> Sequence[str]:
    names: list[str] = []
    for given in paths:
        path = Path(given)
        if given != _STDIN and path.is_dir():
            names += [str(file) for file in sorted(path.iterdir()) if _is_readable(file)]
        elif given == _STDIN or path.suffix.lower() in (*_YAML, _JSON):
            names.append(given)
        else:
            raise Failure(f"{given}: a file's name ends in .yaml, .yml or .json.", exit_code=USAGE)
    if len(names) > MAX_FILES:
        raise Failure(f"There are {len(names)} files; at most {MAX_FILES} are read at once.", exit_code=USAGE)
    return names


def _is_readable(file: Path) -> bool:
    return file.suffix.lower() in (*_YAML, _JSON) and not file.name.startswith(".") and file.is_file()


def _documents(name: str) -> Iterator[YamlDocument]:
    try:
        text = read_input(name, MAX_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise YamlProblem(0, "is not text in UTF-8") from None
    if Path(name).suffix.lower() == _JSON:
        yield _json(text)
    else:
        yield from read_yaml(text)


def _json(text: str) -> YamlDocument:
    try:
        value = json.loads(text, object_pairs_hook=_members)
    except json.JSONDecodeError as error:
        raise YamlProblem(error.lineno, error.msg) from None
    except (ValueError, RecursionError) as error:
        raise YamlProblem(0, str(error)) from None
    try:  # nearly all JSON is YAML, which tells the lines; what is not has none
        lines = next(read_yaml(text), YamlDocument()).lines
    except YamlProblem:
        lines = {}
    return YamlDocument(value, lines)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"{name} is given twice in one object")
        members[name] = value
    return members


def _config(value: Any) -> EndpointConfig:
    from shared.domain.errors import MissingField, WrongDtype
    from shared.schemas.endpoint import read_config

    if not isinstance(value, dict):
        raise WrongDtype.at("", "a document is the configuration of one endpoint: members with their values")
    if "endpoint" not in value:
        raise MissingField.at("/endpoint", "is missing: which endpoint is this?")
    name = value["endpoint"]
    return read_config(value, name if isinstance(name, str) else "")


def _place(file: str, line: int | None) -> str:
    name = "standard input" if file == _STDIN else file
    return f"{name}:{line}" if line else name
