"""The Dockerfile and its build context, read as an engine would read them."""

import json
import shlex
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


def stages(target: str) -> list[str]:
    """The stages that a target is made from, the first one first, itself last."""
    base = {stage: text.split()[0] for each in of("FROM") for text, _, stage in [each.text.partition(" AS ")]}
    found = [target]
    while base[found[0]] in base:
        found.insert(0, base[found[0]])
    return found


def environment(target: str) -> dict[str, str]:
    """ENV of a target."""
    return _pairs("ENV", target)


def labels(target: str) -> dict[str, str]:
    """LABEL of a target, its build arguments not resolved."""
    return _pairs("LABEL", target)


def _pairs(name: str, target: str) -> dict[str, str]:
    words = [word for stage in stages(target) for each in of(name, stage) for word in shlex.split(each.text)]
    return {key: text for key, _, text in (word.partition("=") for word in words)}


def context() -> list[str]:
    """The files that are sent to the engine."""
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    return sorted(path for path in exclude_paths(str(ROOT), patterns) if Path(ROOT, path).is_file())
