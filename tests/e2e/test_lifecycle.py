"""The stack as a process: how it starts, what it leaves, and that nothing outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from infra.local.aws_client import isolated_session, local_client
from infra.local.ports import Ports
from tests.e2e.conftest import ROOT, Sluice, make_sluice

pytestmark = pytest.mark.e2e


@pytest.fixture
def command(tmp_path: Path) -> Sluice:
    return make_sluice(tmp_path / "home")


@contextmanager
def in_the_foreground(command: Sluice) -> Iterator[psutil.Popen]:
    """`sluice up` as a user starts it, once it is ready; ended in any case."""
    stack = psutil.Popen(
        [str(Path(sys.executable).with_name("sluice")), "up"],
        env=dict(command.environment),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not (command.home / "local.json").exists():
            assert stack.poll() is None, stack.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield stack
    finally:
        if stack.poll() is None:
            stack.kill()
            stack.wait()
        stack.stdout.close()


def answers(url: str) -> bool:
    """Whether `url` answers 200 within some seconds."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return True
        time.sleep(0.05)
    return False


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within some seconds."""
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def family(stack: psutil.Popen) -> list[psutil.Process]:
    children: list[psutil.Process] = stack.children(recursive=True)
    assert {"awslambdaric", "gpu_service", "infra.local.aws_services"} <= {
        word for child in children for word in child.cmdline()
    }
    return children


def test_ctrl_c_ends_every_process_also_after_one_of_them_crashed(command: Sluice) -> None:
    with in_the_foreground(command) as stack:
        children = family(stack)
        container = next(child for child in children if "gpu_service" in child.cmdline())
        function = next(child for child in children if "awslambdaric" in child.cmdline())
        container.kill()
        function.kill()
        assert gone([container, function])
        assert answers(command.local["container_url"] + "/ping"), "the container was not started again"
        children = stack.children(recursive=True)
        stack.send_signal(signal.SIGINT)
        assert stack.wait(20) == 0
        output = stack.stdout.read()
        assert gone(children)
    assert "curl" in output
    assert not (command.home / "local.json").exists()
    assert command.run("status").returncode == 3


def test_nothing_outlives_a_supervisor_that_is_killed(command: Sluice) -> None:
    with in_the_foreground(command) as stack:
        children = family(stack)
        stack.kill()
        stack.wait()
        assert gone(children)
    assert command.run("status", "--json").returncode == 3
    assert command.run("down").returncode == 0


def test_the_stack_ends_when_its_stores_do(command: Sluice) -> None:
    with in_the_foreground(command) as stack:
        children = family(stack)
        next(child for child in children if "infra.local.aws_services" in child.cmdline()).kill()
        assert stack.wait(20) == 1
        assert "The AWS services have ended" in stack.stdout.read()
        assert gone(children)


@pytest.mark.parametrize("variable", Ports().environment())
def test_a_taken_port_is_named_with_what_to_do(command: Sluice, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(command.environment[variable])))
        taken.listen()
        done = command.run("up", "--detach")
    assert done.returncode == 1
    assert f"Port {command.environment[variable]} is taken" in done.stderr
    assert str(os.getpid()) in done.stderr
    assert f"{variable}=" in done.stderr


def test_it_runs_on_another_aws_endpoint(command: Sluice, tmp_path: Path) -> None:
    """The other endpoint is the same server, as a process of its own: what is stored there outlives the stack."""
    port = make_sluice(tmp_path).environment["PORT"]
    arguments = ["--port", port, "--lambda-url", "http://127.0.0.1:9"]
    other = subprocess.Popen([sys.executable, "-m", "infra.local.aws_services", *arguments], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        assert answers(f"{url}/moto-api/data.json")
        for _ in range(2):
            started = command.run("up", "--detach", "--aws-endpoint", url)
            assert started.returncode == 0, started.stderr
            assert command.local["aws_endpoint_url"] == url
            assert command.json("predict", "tumor", "--data", "@examples/tumor/request.json")
            assert command.run("down").returncode == 0
        tables = local_client(isolated_session(), "dynamodb", url).list_tables()["TableNames"]
        assert "sluice-ModelsTable" in tables
    finally:
        other.kill()
        other.wait()
