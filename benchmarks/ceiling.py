"""What a model can do here without any server: rows a second of `session.run` in this process, and its lone latency.

`python -m benchmarks.ceiling MODEL` prints JSON. Each batch size runs with one thread, with one session on all cores,
and with as many callers as cores, each on a session of one thread.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from threading import Barrier, Thread
from typing import Any

import onnxruntime

from benchmarks.generator import CORES, ROOT
from benchmarks.models import path_of
from benchmarks.workloads import WORKLOADS, Row

BATCHES = (1, 8, 32, 64)
WAYS = {
    "1 caller, 1 thread": (1, 1),
    f"1 caller, {CORES} threads": (1, CORES),
    f"{CORES} callers, 1 thread each": (CORES, 1),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=0.3, help="for each batch size and way")
    parser.add_argument("--best", help="only this way and batch size, as printed")
    options = parser.parse_args()
    print(json.dumps(_sweep(options.model, options.seconds, options.best)))


def measure(model: str, seconds: float, best: str | None = None) -> dict[str, Any]:
    """The ceiling in a process of its own: {rows_per_second: {way: …}, best, best_rows_per_second, lone_ms}."""
    command = [sys.executable, "-m", "benchmarks.ceiling", model, "--seconds", str(seconds)]
    command += ["--best", best] if best else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _sweep(model: str, seconds: float, only: str | None) -> dict[str, Any]:
    rates: dict[str, float] = {}
    lone = _lone_ms(model, seconds)
    for way, (callers, threads) in WAYS.items():
        for batch in BATCHES:
            name = f"batch {batch}, {way}"
            if only in (None, name):
                rates[name] = _rate(model, batch, callers, threads, seconds)
    best = max(rates, key=lambda name: rates[name])
    return {"rows_per_second": rates, "best": best, "best_rows_per_second": rates[best], "lone_ms": lone}


def _session(model: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path_of(model), options, providers=["CPUExecutionProvider"])


def _lone_ms(model: str, seconds: float) -> dict[str, float]:
    """The median time of one row on one thread and on all cores."""
    row = WORKLOADS[model].rows(1)
    found = {}
    for threads in sorted({1, CORES}):
        session = _session(model, threads)
        session.run(None, row)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            session.run(None, row)
            times.append(time.perf_counter() - start)
        found[f"{threads} threads"] = round(median(times) * 1e3, 4)
    return found


def _rate(model: str, batch: int, callers: int, threads: int, seconds: float) -> float:
    """Rows a second of all callers together; each runs twice at least."""
    rows = WORKLOADS[model].rows(batch)
    sessions = [_session(model, threads) for _ in range(callers)]
    spans: list[tuple[int, float, float]] = []
    barrier = Barrier(callers)

    def call(session: Any, feed: Row) -> None:
        session.run(None, feed)
        barrier.wait()
        start = now = time.perf_counter()
        count = 0
        while now - start < seconds or count < 2:
            session.run(None, feed)
            count += 1
            now = time.perf_counter()
        spans.append((count, start, now))

    callers_at_work = [Thread(target=call, args=(session, rows)) for session in sessions]
    for thread in callers_at_work:
        thread.start()
    for thread in callers_at_work:
        thread.join()
    return round(sum(count * batch / (stop - start) for count, start, stop in spans), 1)


if __name__ == "__main__":
    main()
