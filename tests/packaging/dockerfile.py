"""The Dockerfile and its build context, read as an engine would read them."""

import json
from dataclasses import dataclass
from pathlib import Path

from docker.utils import exclude_paths  # type: ignore[import-untyped]

from tests.conftest import ROOT

DOCKERFILE = ROOT / "gpu_service" / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its arguments on one line, and the stage that it belongs to."""

    stage: str
    name: str
    text: str

    @property
    def command(self) -> list[str]:
        """The arguments of an exec form; fails on a shell form."""
        words = json.loads(self.text)
        assert isinstance(words, list)
        return [str(word) for word in words]


def instructions() -> list[Instruction]:
    """All of them, in order."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found = []
    stage = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.strip().partition(" ")
        if name == "FROM":
            stage = text.rpartition(" AS ")[2]
        found.append(Instruction(stage, name, " ".join(text.split())))
    return found


def of(name: str, stage: str | None = None) -> list[Instruction]:
    """The instructions of a kind."""
    return [each for each in instructions() if each.name == name and stage in {None, each.stage}]


def context() -> list[str]:
    """The files that are sent to the engine."""
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    return sorted(path for path in exclude_paths(str(ROOT), patterns) if Path(ROOT, path).is_file())
