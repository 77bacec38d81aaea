"""The container against its rivals and the raw ceiling: `python -m benchmarks.serving` (`--quick` for a first look).

All servers of a model run at once, frozen but for the one that is measured, so that every round meets them all under
the same circumstances. Writes `build/bench/serving.{json,md,svg}`.
"""

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnxruntime
import psutil
from rich.console import Console

from benchmarks import ceiling, generator, models
from benchmarks.contestants import ALL, TINY, tiny_folder
from benchmarks.generator import CORES, OUT, Pace, Target
from benchmarks.overload import overload
from benchmarks.plan import Plan, read_plan
from benchmarks.report import markdown, plot
from benchmarks.servers import NotMeasurable, Running, Server, free_port, running
from benchmarks.workloads import WORKLOADS, Workload, request_file

STARTS = 5
OVERLOADED = ("encoder", "mlp")


@dataclass(frozen=True)
class Sample:
    """One measurement. `other_cpu`: processors that neither the server nor the generator used, but somebody else."""

    model: str
    server: str
    door: str
    connections: int
    round: int
    rps: float
    p50: float
    p90: float
    p99: float
    failed: int
    generator_cpu: float
    server_cpu: float
    other_cpu: float


@dataclass
class Report:
    """Everything that a run has found."""

    plan: Plan
    machine: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    ceilings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    generator: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    overload: list[dict[str, Any]] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Measure and write the report."""
    plan = read_plan(__doc__)
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(stderr=True)
    generator.build()
    models.build()
    machine = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": CORES,
        "processor": _processor(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
    report = Report(plan, machine)
    if "start" in plan.sections:
        _starts(report, console)
    if "throughput" in plan.sections:
        for name in plan.models:
            _throughput(report, WORKLOADS[name], console)
    if "overload" in plan.sections and "ours" in plan.servers:
        for name in OVERLOADED:
            if name in plan.models:
                console.print(f"[bold]{name}[/bold] overload")
                with _started([ALL["ours"]], WORKLOADS[name], report, console) as servers:
                    report.overload += [overload(server, WORKLOADS[name], plan.seconds) for server in servers]
    _write(report)
    print(markdown(asdict(report)))


@contextmanager
def _started(
    servers: Sequence[Server], workload: Workload, report: Report, console: Console
) -> Iterator[list[Running]]:
    """Those of the servers that start and answer right, each frozen once it does; the others are reported."""
    with ExitStack() as stack:
        found: list[Running] = []
        for server in servers:
            try:
                run = stack.enter_context(running(server, workload))
                idle = run.settled_pss_mib()
                for door in server.doors:
                    run.check(door, connections=64)
            except (NotMeasurable, ValueError, subprocess.SubprocessError) as error:
                report.not_measured[f"{server.name}, {workload.model}"] = str(error)
                console.print(f"[red]{server.name} is not measured on {workload.model}:[/red] {error}", soft_wrap=True)
                continue
            found_before = any((row["model"], row["server"]) == (workload.model, server.name) for row in report.memory)
            if not found_before:
                report.memory.append({"model": workload.model, "server": server.name, "idle_pss_mib": idle})
            run.freeze()
            found.append(run)
        yield found
        for run in found:
            run.thaw()


def _throughput(report: Report, workload: Workload, console: Console) -> None:
    plan = report.plan
    _generator_ceiling(report, workload)
    with _started([ALL[name] for name in plan.servers], workload, report, console) as servers:
        best: str | None = None
        for number in range(plan.rounds):
            found = ceiling.measure(workload.model, plan.seconds / 5 if best is None else plan.seconds, best)
            best = found["best"]
            report.ceilings.setdefault(workload.model, []).append(found)
            # Each round begins with another server, so that none always comes after the same one.
            turn = number % max(len(servers), 1)
            for server in servers[turn:] + servers[:turn]:
                _round(report, server, workload, number, console)


def _round(report: Report, server: Running, workload: Workload, number: int, console: Console) -> None:
    plan = report.plan
    server.thaw()
    for door, what in server.server.doors.items():
        for connections in plan.connections if plan.covers(what.protocol) else ():
            pace = Pace(connections, plan.seconds * workload.patience, plan.warm_up * workload.patience)
            try:
                sample = _sample(server, workload, door, pace, number)
            except subprocess.SubprocessError as error:
                report.not_measured[f"{server.server.name}, {workload.model}, {door}, c={connections}"] = str(error)
                continue
            report.samples.append(sample)
            place = f"{workload.model} round {number + 1}/{plan.rounds}  {server.server.name} {door} c={connections}"
            console.print(
                f"{place:60} {sample.rps:10.1f}/s  p50 {sample.p50:8.3f} ms  p99 {sample.p99:8.3f} ms", soft_wrap=True
            )
    server.freeze()


def _sample(server: Running, workload: Workload, door: str, pace: Pace, number: int) -> Sample:
    busy, own = _busy_seconds(), server.cpu_seconds()
    result = generator.run(server.target(door), server.request_file(door), pace)
    span = pace.seconds + pace.warm_up
    used = (server.cpu_seconds() - own) / span
    other = max(0.0, (_busy_seconds() - busy) / span - used - result.generator_cpu)
    return Sample(
        workload.model,
        server.server.name,
        door,
        pace.connections,
        number,
        result.rps,
        result.p50,
        result.p90,
        result.p99,
        result.failed,
        round(result.generator_cpu, 3),
        round(used, 3),
        round(other, 3),
    )


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.softirq + times.irq)


def _generator_ceiling(report: Report, workload: Workload) -> None:
    """What the generator reaches with the very requests against a server that does no work."""
    with generator.responder(free_port()) as target:
        for protocol in report.plan.protocols:
            path = request_file(workload, protocol, workload.model if protocol == "grpc" else "/")
            for connections in report.plan.connections:
                result = generator.run(Target(target.port, protocol == "grpc"), path, Pace(connections, 1.0, 0.3))
                found = {"model": workload.model, "protocol": protocol, "connections": connections}
                report.generator.append({**found, "rps": result.rps, "p50": result.p50})


def _starts(report: Report, console: Console) -> None:
    """Start to first right answer, with only tiny models to load."""
    tiny_folder()
    for server in (TINY, ALL["baseline"]):
        if server.name.removesuffix(", tiny models") not in report.plan.servers:
            continue
        for _ in range(STARTS):
            try:
                with running(server, WORKLOADS["tree"]) as run:
                    found = {"server": server.name, "ready_s": run.ready_s, "idle_pss_mib": run.settled_pss_mib()}
            except NotMeasurable as error:
                report.not_measured[f"{server.name}, start"] = str(error)
                break
            report.starts.append(found)
            console.print(f"{server.name}: {found['ready_s']} s, {found['idle_pss_mib']} MiB")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _write(report: Report) -> None:
    found = asdict(report)
    (OUT / "serving.json").write_text(json.dumps(found, indent=1))
    (OUT / "serving.md").write_text(markdown(found))
    (OUT / "serving.svg").write_text(plot(found))


if __name__ == "__main__":
    main()
