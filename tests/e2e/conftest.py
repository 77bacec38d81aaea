"""A real local stack, started as a user starts it: `sluice up --detach` on free ports, in a folder of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from infra.local.ports import Ports
from tests.e2e.callers import Callers

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sluice:
    """The `sluice` command for one stack."""

    home: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, timeout: float = 100, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("sluice")), *arguments],
            env=dict(self.environment),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def local(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "local.json").read_text()))


def make_sluice(home: Path) -> Sluice:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SLUICE_"))}
    return Sluice(home, {**kept, **Ports.free().environment(), "SLUICE_HOME": str(home)})


@pytest.fixture(scope="session")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """One stack for all workers of a test run: the first starts it, the last ends it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    note = shared / "stack.json"
    with FileLock(shared / "stack.lock"):
        if note.exists():
            stack = json.loads(note.read_text())
        else:
            command = make_sluice(shared / "home")
            started = command.run("up", "--detach", timeout=150)
            assert started.returncode == 0, started.stdout + started.stderr
            stack = {"users": 0, "environment": dict(command.environment)}
        stack["users"] += 1
        note.write_text(json.dumps(stack))
    command = Sluice(shared / "home", stack["environment"])
    yield command
    with FileLock(shared / "stack.lock"):
        stack = json.loads(note.read_text())
        stack["users"] -= 1
        note.write_text(json.dumps(stack))
        if stack["users"] == 0:
            note.unlink()
            stopped = command.run("down")
            assert stopped.returncode == 0, stopped.stdout + stopped.stderr


@pytest.fixture(scope="session")
def api(sluice: Sluice) -> Iterator[httpx.Client]:
    local = sluice.local
    headers = {"Authorization": f"Bearer {local['api_key']}"}
    with httpx.Client(base_url=local["api_url"], headers=headers, timeout=40) as client:
        yield client


@pytest.fixture(scope="session")
def admin(sluice: Sluice) -> Iterator[httpx.Client]:
    local = sluice.local
    headers = {"Authorization": f"Bearer {local['admin_key']}"}
    with httpx.Client(base_url=local["api_url"], headers=headers, timeout=40) as client:
        yield client


@pytest.fixture(scope="session")
def callers(sluice: Sluice, admin: httpx.Client) -> Iterator[Callers]:
    callers = Callers(sluice, admin)
    with callers.opened:
        yield callers
