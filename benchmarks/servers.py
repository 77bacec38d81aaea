"""Servers as processes of their own: ready at their first right answer, frozen while others are measured."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import generator
from benchmarks.answers import check
from benchmarks.generator import OUT, Answer, Pace, Target
from benchmarks.workloads import Workload, request_file

LOGS = OUT / "logs"


class NotMeasurable(Exception):
    """A server that cannot be installed, started, or does not answer right; the message says why."""


@dataclass(frozen=True)
class Door:
    """One way into a server: protocol and route ({model} stands for the model's name), port by its key."""

    protocol: str
    route: str
    port: str = "http"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """How to start a server for one model. `command` and `environment` are given the ports by key, and the model."""

    name: str
    doors: Mapping[str, Door]
    command: Callable[[Mapping[str, int], Workload], list[str]]
    environment: Callable[[Mapping[str, int], Workload], Mapping[str, str]]
    ports: tuple[str, ...] = ("http",)
    start_seconds: float = 120.0
    freezes: bool = True  # False: stopping its processes for a while would break it
    install: Callable[[], None] | None = None


class Running:
    """A server that runs and has answered right."""

    def __init__(self, server: Server, workload: Workload, ports: Mapping[str, int], process: psutil.Process) -> None:
        self.server = server
        self._workload = workload
        self._ports = ports
        self._process = process
        self.ready_s = 0.0  # from the start of the process to the first right answer at its first door

    def request_file(self, door: str, headers: Mapping[str, str] | None = None) -> Path:
        """The requests of this model for a door; `headers` come on top of the door's."""
        what = self.server.doors[door]
        route = what.route.format(model=self._workload.model)
        return request_file(self._workload, what.protocol, route, {**what.headers, **(headers or {})})

    def target(self, door: str) -> Target:
        """Where the door is."""
        what = self.server.doors[door]
        return Target(self._ports[what.port], what.protocol == "grpc")

    def check(self, door: str, connections: int = 1) -> None:
        """Hold one answer for each connection against raw ONNX Runtime; ValueError if one is wrong or missing."""
        dump = OUT / "answers.bin"
        # An open loop whose requests are all due at once.
        once = Pace(connections, seconds=0.001, warm_up=0.0, rate=connections * 1000.0, grace=60.0)
        generator.run(self.target(door), self.request_file(door), once, dump=dump, samples=connections)
        found: list[Answer] = list(generator.answers(dump))
        if len(found) < connections:
            raise ValueError(f"{len(found)} answers to {connections} requests")
        for answer in found:
            check(self._workload, answer, self.server.doors[door].protocol)

    def pss_mib(self) -> float:
        """Proportional set size of the server's processes in MiB, shared pages counted by their share."""
        return round(sum(map(_pss_kib, self.tree())) / 1024, 1)

    def settled_pss_mib(self) -> float:
        """The same a second after the start, when what the start alone needed has been given back."""
        time.sleep(1.0)
        return self.pss_mib()

    def cpu_seconds(self) -> float:
        """Processor time of the server's processes so far."""
        times = [process.cpu_times() for process in self.tree()]
        return sum(time.user + time.system for time in times)

    def tree(self) -> list[psutil.Process]:
        """The process and all below it."""
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def freeze(self) -> None:
        """Keep it from using the processors while another server is measured."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.server.freezes:
            for process in self.tree():
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


def _pss_kib(process: psutil.Process) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(server: Server, workload: Workload) -> Iterator[Running]:
    """Start a server and wait for its first right answer; NotMeasurable with the end of its log if none comes."""
    if server.install:
        server.install()
    ports = {key: free_port() for key in server.ports}
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{server.name}-{workload.model}.log"
    environment = {**_clean_environment(), **server.environment(ports, workload)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command(ports, workload), env=environment, stdout=output, stderr=output, start_new_session=True
        )
    run = Running(server, workload, ports, psutil.Process(process.pid))
    try:
        _wait_ready(run, process, log)
        yield run
    finally:
        run.thaw()
        _end(run, process)


def _clean_environment() -> dict[str, str]:
    """Nothing of this project's settings, and no telemetry to anywhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLUICE_", "SAGEMAKER_", "OTEL_"))}
    return {**kept, "DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"}


def _wait_ready(run: Running, process: "subprocess.Popen[bytes]", log: Path) -> None:
    start = time.perf_counter()
    reason = "it gave no answer"
    waiting = list(run.server.doors)
    while waiting and time.perf_counter() - start < run.server.start_seconds and process.poll() is None:
        try:
            run.check(waiting[0])
        except subprocess.CalledProcessError:
            time.sleep(0.005)  # nobody listens yet
        except (ValueError, KeyError) as error:
            reason = str(error)
            time.sleep(0.005)
        else:
            run.ready_s = run.ready_s or round(time.perf_counter() - start, 3)
            waiting.pop(0)
    if waiting:
        tail = log.read_text(errors="replace")[-600:]
        raise NotMeasurable(f"{run.server.name}, {waiting[0]}: {reason}; its log ends with: {tail}")


def _end(run: Running, process: "subprocess.Popen[bytes]") -> None:
    members = run.tree()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.send_signal(number)
        _, members = psutil.wait_procs(members, timeout=10)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        _, members = psutil.wait_procs(members, timeout=5)
    process.wait(timeout=10)
