"""Checks of this machine and of the local stack."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from infra.cli.checks.api import api_checks
from infra.cli.checks.check import Check, Outcome, failed, ok, warning
from infra.cli.local import project_root
from infra.local.home import Home, LocalStack
from infra.local.ports import Ports, PortTaken

_GB: Final = 1_000_000_000
# Container, AWS services and functions take some 1.5 GB, the environment and the models some 2 GB of disk.
_MEMORY_BYTES: Final = 2 * _GB
_DISK_BYTES: Final = 3 * _GB
_PYTHON: Final = ((3, 11), (3, 13))
_PUBLISH: Final = "Publish one: `sluice publish MODEL.onnx`."


def machine_checks(home: Home, ports: Ports, key: str | None, model: str | None) -> Sequence[Check]:
    """The checks; a stack that is up is asked, one that is down is checked for what would keep it from starting."""
    local = home.read()
    checks = [
        Check("python", lambda: python(sys.version_info[:2])),
        Check("disk", lambda: disk(home.folder)),
        Check("memory", lambda: memory(up=local is not None)),
        Check("models", lambda: models(project_root(home))),
    ]
    if local is None:
        return [*checks, Check("ports", lambda: free_ports(ports)), Check("stack", lambda: stack(home, local))]
    return [
        *checks,
        Check("stack", lambda: stack(home, local)),
        *api_checks(local.api_url, key or local.api_key, model, publish_hint=_PUBLISH),
    ]


def python(version: tuple[int, ...]) -> Outcome:
    """Whether this Python is one that Sluice runs on."""
    lowest, highest = _PYTHON
    name = ".".join(map(str, version))
    if not lowest <= version <= highest:
        return failed(f"This is Python {name}.", "Use 3.11 to 3.13: `make setup PYTHON=python3.13`.")
    return ok(f"This is Python {name}.")


def disk(folder: Path) -> Outcome:
    """Whether there is room for logs, caches and models."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    said = f"{free / _GB:.1f} GB are free at {nearest}."
    return ok(said) if free >= _DISK_BYTES else warning(said, "Make room: the stack and its models need some 3 GB.")


def memory(*, up: bool) -> Outcome:
    """Whether the stack has the memory that it takes."""
    free = psutil.virtual_memory().available
    said = f"{free / _GB:.1f} GB of memory are available."
    if up or free >= _MEMORY_BYTES:
        return ok(said)
    return warning(said, "End something: the stack with its example models takes some 1.5 GB.")


def models(root: Path) -> Outcome:
    """Whether the example models are built."""
    built = sorted({path.parent.parent.name for path in root.glob("build/models/*/*/manifest.json")})
    if not built:
        return warning("No example model is built.", "Run `make setup`; `sluice publish` takes models of your own.")
    return ok(f"Built: {', '.join(built)}.")


def free_ports(ports: Ports) -> Outcome:
    """Whether the ports that the stack would use are free."""
    try:
        ports.check()
    except PortTaken as error:
        said, _, hint = str(error).partition(". ")
        return failed(f"{said}.", hint or "Choose other ports.")
    return ok("The ports are free.")


def stack(home: Home, local: LocalStack | None) -> Outcome:
    """Whether the stack is up."""
    if local is not None:
        return ok(f"The local stack is up as process {local.pid}: {local.api_url}.")
    if (pid := home.running()) is not None:
        return warning(f"The local stack is starting, as process {pid}.", "Look again in a few seconds.")
    return warning("The local stack is not up.", "Start it with `make run` or `sluice up`.")
