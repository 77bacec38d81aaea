"""A real local stack, started as a user starts it: `sluice up --detach` on free ports, in a folder of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PORTS = ("PORT", "CONTAINER_PORT", "GRPC_PORT", "AWS_PORT", "SAGEMAKER_PORT", "LAMBDA_PORT")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


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
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SLUICE_"))}
    return Sluice(home, {**kept, **ports, "SLUICE_HOME": str(home)})


@pytest.fixture(scope="session")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    command = make_sluice(tmp_path_factory.mktemp("stack") / "home")
    started = command.run("up", "--detach", timeout=150)
    assert started.returncode == 0, started.stdout + started.stderr
    yield command
    stopped = command.run("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


@pytest.fixture(scope="session")
def api(sluice: Sluice) -> Iterator[httpx.Client]:
    local = sluice.local
    headers = {"Authorization": f"Bearer {local['api_key']}"}
    with httpx.Client(base_url=local["api_url"], headers=headers, timeout=40) as client:
        yield client
