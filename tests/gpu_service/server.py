"""The real container process on a free port of 127.0.0.1."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    client: httpx.Client

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far; fails on a line that is not JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def ping(self) -> httpx.Response:
        return self.client.get("/ping")

    def wait_for_ping(self, status: int) -> dict[str, Any]:
        """Ask until the status is this one; the answer's document. Fails at once if a model fails before the 200."""

        def asked() -> httpx.Response | None:
            response = self.ping()
            assert status != 200 or response.json()["status"] != "failed", response.text
            return response if response.status_code == status else None

        document: dict[str, Any] = wait_until(asked).json()
        return document

    def predict(self, body: Any, attributes: str = "", **headers: str) -> httpx.Response:
        """POST /invocations, a document as JSON and bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        if attributes:
            headers["X-Amzn-SageMaker-Custom-Attributes"] = attributes
        return self.client.post("/invocations", content=content, headers=headers)

    def terminate(self) -> int:
        """Send SIGTERM and wait; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=LIMIT_S)


def wait_until(condition: Any) -> Any:
    """The first true value of `condition()`; the server may not listen yet."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"this did not come true within {LIMIT_S} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(log: Path, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    defaults = {
        "SLUICE_HOST": "127.0.0.1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SLUICE_GRPC_PORT": "0",
        "SLUICE_POLL_SECONDS": "0.1",
        "SLUICE_ACCESS_LOG": "true",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "AWS_"))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_service", "serve"],
            env={**inherited, **defaults, **environment},
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return process, port


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Server]:
    """A server that listens; killed at the end if it is still there. `folder` takes its log."""
    process, port = spawn(folder / "server.log", environment)
    url = f"http://127.0.0.1:{port}"
    client = httpx.Client(base_url=url, timeout=LIMIT_S, verify=False, trust_env=False)  # noqa: S501 - plain HTTP
    server = Server(process, url, folder / "server.log", client)
    try:
        wait_until(lambda: process.poll() is not None or server.ping())
        assert process.poll() is None, server.log.read_text()
        yield server
    finally:
        client.close()
        process.kill()
        process.wait()
