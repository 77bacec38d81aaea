"""Twice the load that a server can carry, each request with a deadline: what is answered in time, what is refused."""

import time
from statistics import median
from threading import Event, Thread
from typing import Any

from benchmarks import generator
from benchmarks.generator import Pace
from benchmarks.servers import Running
from benchmarks.workloads import Workload

DEADLINE_MS = 250
TIMES = 2.0
# Connections, one for each request in flight: a pool that runs dry would hold the load back. At most what the container
# takes by default.
_LEAST_POOL, _MOST_POOL = 512, 4000
_CAPACITY_CONNECTIONS = 64


def overload(server: Running, workload: Workload, seconds: float) -> dict[str, Any]:
    """Capacity by a closed loop before and after, then an open loop at twice of it; times in milliseconds."""
    server.thaw()
    headers = {"X-Sluice-Deadline-Ms": str(DEADLINE_MS)}
    door = "json"
    path = server.request_file(door, headers)
    closed = Pace(_CAPACITY_CONNECTIONS, seconds)
    before = generator.run(server.target(door), server.request_file(door), closed).rps
    calm = server.pss_mib()
    rate = TIMES * before
    pool = min(max(int(rate * DEADLINE_MS / 1000 * 1.5), _LEAST_POOL), _MOST_POOL)
    pace = Pace(pool, max(seconds * 3, 5.0), 1.0, rate=rate, deadline_ms=DEADLINE_MS)
    with _watched(server) as memory:
        result = generator.run(server.target(door), path, pace)
    after = generator.run(server.target(door), server.request_file(door), closed).rps
    raw = result.raw
    capacity = median((before, after))
    return {
        "model": workload.model,
        "server": server.server.name,
        "capacity_rps": capacity,
        "offered_rps": rate,
        "deadline_ms": DEADLINE_MS,
        "in_time_rps": raw["in_time_per_second"],
        "in_time_share_of_capacity": round(raw["in_time_per_second"] / capacity, 3),
        "late": raw["good_ms"]["count"] - round(raw["in_time_per_second"] * raw["seconds"]),
        "answers_ms": raw["good_ms"],
        "refusals_ms": raw["refused_ms"],
        "statuses": raw["statuses"],
        "errors": raw["errors"],
        "unsent": raw["unsent"],
        "generator_cpu": raw["generator_cpu"],
        "pss_mib": {"before": calm, "most": max(memory.seen, default=calm), "after": server.pss_mib()},
    }


class _watched:  # noqa: N801 - a context manager
    """Samples the server's memory while load is offered."""

    def __init__(self, server: Running) -> None:
        self.seen: list[float] = []
        self._server = server
        self._end = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> "_watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            started = time.perf_counter()
            self.seen.append(self._server.pss_mib())
            if time.perf_counter() - started > 0.2:  # a large process: look less often
                self._end.wait(2.0)
