"""Where the time of a request goes: `python -m benchmarks.steps --models tree,mlp --doors json,binary,grpc`.

Reads the container's own histograms before and after a load: means over what was answered in between. `parse`, `queue`,
`encode` and `total` count requests; `batch` and `run` count batches, and are shown for each request of them as well.
Writes `build/bench/steps.{json,md}`.
"""

import argparse
import json
import re
from collections.abc import Iterable
from typing import Any

import httpx

from benchmarks import generator, models
from benchmarks.contestants import OURS
from benchmarks.generator import OUT, Pace
from benchmarks.servers import Running, running
from benchmarks.workloads import WORKLOADS

STEPS = ("parse", "queue", "batch", "run", "encode", "total")
_SAMPLE = re.compile(
    r"^sluice_(?P<name>step_seconds|batch_rows)_(?P<kind>sum|count)\{(?P<labels>[^}]*)\} (?P<value>\S+)"
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
Sums = dict[tuple[str, str], float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(WORKLOADS))
    parser.add_argument("--doors", default=",".join(OURS.doors))
    parser.add_argument("--concurrency", default="1,64")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    models.build()
    rows = []
    for model in options.models.split(","):
        with running(OURS, WORKLOADS[model]) as server:
            for door in options.doors.split(","):
                for connections in map(int, options.concurrency.split(",")):
                    pace = Pace(connections, options.seconds, warm_up=0.0)
                    rows.append({"model": model, "door": door, "c": connections, **_measure(server, model, door, pace)})
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "steps.json").write_text(json.dumps(rows, indent=1))
    page = markdown(rows)
    (OUT / "steps.md").write_text(page)
    print(page)


def _measure(server: Running, model: str, door: str, pace: Pace) -> dict[str, Any]:
    path, target = server.request_file(door), server.target(door)
    generator.run(target, path, pace)  # warm
    before, cpu = _scrape(server, model), server.cpu_seconds()
    result = generator.run(target, path, pace)
    cpu = server.cpu_seconds() - cpu
    after = _scrape(server, model)
    return {"rps": result.rps, "p50_ms": result.p50, **shares(before, after, cpu)}


def _scrape(server: Running, model: str) -> Sums:
    text = httpx.get(f"http://127.0.0.1:{server.target('json').port}/metrics", timeout=10).raise_for_status().text
    return sums(text, model)


def sums(text: str, model: str) -> Sums:
    """Sums and counts of the steps (µs) and of the batches' rows, by step and kind, from Prometheus' text."""
    found: Sums = {}
    for line in text.splitlines():
        if not (match := _SAMPLE.match(line)):
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get("model") == model:
            unit = 1e6 if (match["name"], match["kind"]) == ("step_seconds", "sum") else 1.0
            found[labels.get("step", "rows"), match["kind"]] = float(match["value"]) * unit
    return found


def shares(before: Sums, after: Sums, cpu_seconds: float) -> dict[str, float]:
    """Microseconds for each request by step, rows for each batch, and the processor time of the whole server."""

    def grown(step: str, kind: str) -> float:
        return after.get((step, kind), 0.0) - before.get((step, kind), 0.0)

    requests = max(grown("total", "count"), 1.0)
    batches = max(grown("rows", "count"), 1.0)
    found = {f"{step}_us": round(grown(step, "sum") / requests, 1) for step in STEPS}
    found["batch_rows"] = round(grown("rows", "sum") / batches, 1)
    found["run_us_of_a_batch"] = round(grown("run", "sum") / batches, 1)
    found["cpu_us"] = round(cpu_seconds * 1e6 / requests, 1)
    return found


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """A table of microseconds for each request."""
    names = (*STEPS, "cpu")
    lines = [
        "Microseconds for each request, means by the clock: a step that waits for its turn, or for a core that the "
        "load generator has, counts its wait. `cpu` is the processor time of the whole server, sockets included.",
        "",
        f"| model | door | c | requests/s | rows a batch | {' | '.join(names)} |",
        "|---" * (5 + len(names)) + "|",
    ]
    for row in rows:
        cells = [row["model"], row["door"], row["c"], f"{row['rps']:,.0f}", row["batch_rows"]]
        lines.append("| " + " | ".join(map(str, [*cells, *(row[f"{name}_us"] for name in names)])) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
