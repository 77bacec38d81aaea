"""The Python that Lambda runs, looked for on this machine: it compiles what is shipped, and tests run that in it."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.packaging.errors import PackagingError

VERSION = "3.13"
VARIABLE = "PYTHON313"
_PROBE = "import platform, sys; print(sys.implementation.cache_tag, platform.python_version())"
_CACHE_TAG = "cpython-313"
_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of the runtime's version; `release` is its full version."""

    path: str
    release: str

    def compile(self, folder: Path, installed_at: str) -> None:
        """Write `.pyc` files below `folder` whose tracebacks name files below `installed_at`.

        They carry a hash and are not checked against the sources: Lambda's copy cannot change, and times do not count.
        PackagingError if a file cannot be compiled.
        """
        command = [self.path, "-s", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
        # Sets among the constants are written in the order of their hashes.
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"}
        done = subprocess.run(
            [*command, "-s", str(folder), "-p", installed_at, str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise PackagingError(f"{self.path} cannot compile {folder.name}: {(done.stdout + done.stderr)[-2000:]}")


def find_interpreter(named: str | None, environ: Mapping[str, str]) -> Interpreter | None:
    """The Python named by `named` or `PYTHON313`, else one found on this machine, else None.

    PackagingError if the one that was named is none of this version.
    """
    named = named or environ.get(VARIABLE)
    if named:
        interpreter = _probe(named)
        if interpreter is None:
            raise PackagingError(f"{named} is no Python {VERSION} that runs: name another with {VARIABLE}=…")
        return interpreter
    return next((found for path in _candidates(environ) if (found := _probe(path))), None)


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        if path := shutil.which(f"python{VERSION}", path=folder):
            yield path
    # Version managers keep what they installed out of PATH until it is selected.
    home = Path(environ.get("HOME", "~")).expanduser()
    roots = (
        Path(environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        Path(environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")),
    )
    for root in roots:
        for folder_found in sorted(root.glob(f"*{VERSION}*"), reverse=True):
            yield str(folder_found / "bin" / f"python{VERSION}")


def _probe(path: str) -> Interpreter | None:
    """None unless it runs: what version managers put on PATH may be a name for nothing."""
    try:
        done = subprocess.run([path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except OSError:
        return None
    tag, _, release = done.stdout.strip().partition(" ")
    return Interpreter(path, release) if done.returncode == 0 and tag == _CACHE_TAG else None
