"""What a layer installs: the part of `requirements/lock.txt` that an extra of pyproject.toml asks for."""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

from infra.packaging.errors import PackagingError
from infra.packaging.interpreter import VERSION
from infra.packaging.platforms import Platform

# Source: AWS Lambda Developer Guide, "Runtime-included SDK versions": the SDK and what it needs itself.
IN_LAMBDA = frozenset(
    {
        "awslambdaric",
        "boto3",
        "botocore",
        "jmespath",
        "python-dateutil",
        "s3transfer",
        "six",
        "snapshot-restore-py",
        "urllib3",
    }
)

# Packages that the metadata of others, or an extra, ask for and that a function does without.
LEFT_OUT: Mapping[str, str] = {
    "flatbuffers": "onnxruntime's tools read model files with it",
    "huggingface-hub": "tokenizers downloads with it; packages bring their tokenizer.json",
    "pysimdjson": "7 MB; bodies that reach a function are short, and shared.codecs.quick_numbers reads them without it",
    "packaging": "onnxruntime's transformers tools compare versions with it",
    "tokenizers": "11 MB; models that take text run in the container, and the error of the tokenize step says so",
}

NOT_SHIPPED = IN_LAMBDA | LEFT_OUT.keys()

_PINNED = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;\\]+)(?P<marker> ;[^\\]*)?")
_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_HASH = re.compile(r"--hash=(\S+)")
_LIMIT_S = 300


def direct_requirements(pyproject: Path, extra: str) -> list[str]:
    """What pyproject.toml asks for by itself and for `extra`; PackagingError if there is no such extra."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    if extra not in extras:
        raise PackagingError(f"A layer is named {extra}, and pyproject.toml has no extra of that name.")
    return [*project["dependencies"], *extras[extra]]


def imported(requirements: Iterable[str], modules: frozenset[str], texts: frozenset[str]) -> list[str]:
    """Those requirements that code mentions by a module of theirs, less Lambda's own and what is left out."""
    names_of: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            names_of.setdefault(normal(distribution), set()).add(module)
    kept = []
    for requirement in requirements:
        name = normal(_name(requirement))
        if name not in NOT_SHIPPED and names_of.get(name, {name}) & (modules | texts):
            kept.append(requirement)
    return kept


def select(
    uv: str, lock: Path, requirements: Iterable[str], platform: Platform, without: Iterable[str] = NOT_SHIPPED
) -> dict[str, str]:
    """The lines of the lock, hashes included, that `requirements` need on a platform, by package.

    `without` are packages that are not followed, whoever asks for them. uv follows the requirements with the lock as
    its constraint; that nothing else came in is checked here.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, excluded = Path(folder, "wanted.in"), Path(folder, "excluded.txt")
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        excluded.write_text("\n".join(sorted(without)) + "\n", encoding="utf-8")
        flags = ["--excludes", str(excluded), "--no-header", "--no-annotate", "--generate-hashes"]
        flags += ["--no-emit-index-url", "--python-version", VERSION, "--python-platform", platform.uv]
        text = run_uv(uv, "pip", "compile", str(wanted), "--constraint", str(lock), *flags)
    locked = parse(lock.read_text(encoding="utf-8"))
    chosen = {name: lines[0] for name, lines in parse(text).items()}
    for name, line in chosen.items():
        if not any(_same(line, entry) for entry in locked.get(name, [])):
            raise PackagingError(f"{name} is not in {lock.name} as it would be installed: run `make lock`.")
    return chosen


def parse(text: str) -> dict[str, list[str]]:
    """The entries of a requirements file by package; one package may be pinned differently for several environments."""
    entries: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := _PINNED.match(line):
            current = entries.setdefault(match["name"], [])
            current.append(line)
        elif line.lstrip().startswith("--hash") and current:
            current[-1] += "\n" + line
    return entries


def normal(name: str) -> str:
    """A distribution's name in the form that all tools agree on."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run_uv(uv: str, *arguments: str) -> str:
    """What uv prints; PackagingError with its message if it fails."""
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    done = subprocess.run(
        [uv, *arguments], env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        raise PackagingError(f"uv {' '.join(arguments[:2])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def own_uv() -> str:
    """The uv that the lock installed beside this interpreter."""
    path = Path(sys.executable).with_name("uv")
    if not path.is_file():
        raise PackagingError(f"There is no uv beside {path.parent.name}/{Path(sys.executable).name}: run `make setup`.")
    return str(path)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    if match is None:
        raise PackagingError(f"{requirement!r} in pyproject.toml is no requirement.")
    return match[0]


def _same(line: str, locked: str) -> bool:
    ours, theirs = _PINNED.match(line), _PINNED.match(locked)
    if ours is None or theirs is None or ours["version"] != theirs["version"]:
        return False
    return set(_HASH.findall(line)) <= set(_HASH.findall(locked))
