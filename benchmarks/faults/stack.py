"""A local stack of its own whose functions reach AWS and SageMaker through what injects faults.

As a program: that stack, until stdin ends. `python -m benchmarks.faults.stack VARIABLES`, those of the functions as
JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any, Final

import httpx

from benchmarks.faults.injectors import CONTROL
from infra.local.home import Home, LocalStack
from infra.local.ports import HOST, Ports, PortTaken

ROOT: Final = Path(__file__).parents[2]
_READY_LIMIT_S = 150.0
_STOP_LIMIT_S = 30.0
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that is ready; `addresses` are those of the faulty servers by name."""

    local: LocalStack
    addresses: Mapping[str, str]

    def inject(self, faults: Mapping[str, Any]) -> None:
        """Set what fails from now on (see `ConfigurationProxy.set`)."""
        table = self.local.outputs["EndpointsTableName"]
        httpx.put(self.addresses["aws"] + CONTROL, json={**faults, "table": table}, timeout=10).raise_for_status()


@contextmanager
def running() -> Iterator[Running]:
    """Start everything on free ports, in a temporary folder; nothing of it is left afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SLUICE_"))}
    for _ in range(_TRIES):
        ports = Ports.free()
        with TemporaryDirectory(prefix="sluice-faults-") as folder:
            environment = {**kept, **ports.environment(), "SLUICE_HOME": folder}
            with _process("benchmarks.faults.injectors", _upstreams(ports), environment) as injectors:
                if injectors.stdout is None or not (line := injectors.stdout.readline()):
                    raise RuntimeError("What injects the faults did not start.")
                try:
                    ports.check()
                except PortTaken:  # by the injectors themselves, or by somebody who was faster
                    continue
                addresses = json.loads(line)
                variables = {
                    "AWS_ENDPOINT_URL": addresses["aws"],
                    "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": addresses["sagemaker"],
                }
                with _process("benchmarks.faults.stack", variables, environment) as stack:
                    yield Running(_until_ready(stack, Home(Path(folder))), addresses)
                    return
    raise RuntimeError("There are not enough free ports.")


def _upstreams(ports: Ports) -> dict[str, str]:
    return {
        "http": ports.url("container"),
        "grpc": f"{HOST}:{ports.grpc}",
        "sagemaker": ports.url("sagemaker"),
        "aws": ports.url("aws"),
    }


@contextmanager
def _process(
    module: str, argument: Mapping[str, str], environment: Mapping[str, str]
) -> "Iterator[subprocess.Popen[str]]":
    """A process that ends with its stdin, and so with this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(argument)],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if module.endswith("injectors") else subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(stack: "subprocess.Popen[str]", home: Home) -> LocalStack:
    deadline = monotonic() + _READY_LIMIT_S
    while (local := home.read()) is None:
        if stack.poll() is not None or monotonic() > deadline:
            raise RuntimeError("The stack did not start.")
        sleep(0.1)
    return local


def main() -> None:
    """The stack of `SLUICE_HOME` on the ports of the environment."""
    os.umask(0o077)  # as `sluice up` has it: logs hold what requests said
    home = Home.find()
    home.claim()
    try:
        asyncio.run(_serve(home, json.loads(sys.argv[1])))
    finally:
        home.release()


async def _serve(home: Home, variables: Mapping[str, str]) -> None:
    from contextlib import nullcontext
    from dataclasses import fields

    from infra.local.supervisor import Supervisor

    ports = Ports(**{item.name: int(os.environ[Ports.variable(item.name)]) for item in fields(Ports)})
    models = tuple(sorted(path.parent for path in (ROOT / "build/models").glob("*/*/manifest.json")))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)
    # The stand-in for DynamoDB, which is one process, would be busy with the telemetry of so many environments.
    supervisor = Supervisor(ROOT, home, ports, models, function_environment=variables, delivers_logs=False)
    await supervisor.run(lambda _: nullcontext(), lambda _: None, stopped)


if __name__ == "__main__":
    main()
