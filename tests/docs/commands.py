"""The commands in the documentation: what stands in its `bash` blocks."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md")))
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"(?:export )?\w+=\$\((.*)\)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, as words."""

    page: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2]

    @property
    def options(self) -> list[str]:
        return [word.partition("=")[0] for word in self.words if word.startswith("--")]


def commands(program: str) -> list[Command]:
    """All commands of a program in all pages."""
    return [command for page in PAGES for command in _of_page(page) if command.program == program]


def _of_page(page: Path) -> Iterator[Command]:
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            assignment = _ASSIGNMENT.fullmatch(line.strip())
            text = assignment[1] if assignment else line
            for part in re.split(r" \| | && ", text):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words = words[1:]
                if words:
                    yield Command(page.relative_to(ROOT).as_posix(), tuple(words))
