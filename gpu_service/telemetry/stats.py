"""What the container counts, and nothing else: plain numbers that `/metrics` and the V2 statistics read.

Written on the event loop only, so there are no locks. Readers may be on another thread: they copy a dict before they
walk it (a copy is one step for the interpreter) and may see a sum one request ahead of its count.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import Protocol, TypeVar

from gpu_service.telemetry.measures import SECONDS, Duration, Histogram

_EXACT_ROWS = 64
_MAX_KEYS = 256
OTHER = "other"

Key = TypeVar("Key")


class Queued(Protocol):
    """What is read of a request that ran: when it was decoded, and so began to wait."""

    @property
    def decoded_at(self) -> float:
        """Seconds of `time.monotonic`."""


def batch_class(rows: int) -> int:
    """The key of `ModelStats.batches` for a batch: exact up to 64 rows, above that the next power of two."""
    return rows if rows <= _EXACT_ROWS else 1 << (rows - 1).bit_length()


class ModelStats:
    """The counters of one served model; names follow Triton's statistics extension of the V2 protocol.

    `queue`, `compute_infer` count requests (each is given its batch's whole time), `execution_count` counts batches,
    `inference_count` rows. `batches` has the run times by batch size, see `batch_class`. `codes` counts the answers by
    error code, `""` for success, the refused ones included; `refusals` has these alone.
    """

    __slots__ = (
        "batches",
        "cache_hit",
        "cache_miss",
        "codes",
        "compute_infer",
        "decode_time",
        "encode_time",
        "execution_count",
        "fail",
        "inference_count",
        "joins",
        "last_inference_ms",
        "merge_time",
        "queue_time",
        "refusals",
        "run_time",
        "success",
        "total_time",
    )

    def __init__(self) -> None:
        self.success = Duration()
        self.fail = Duration()
        self.compute_infer = Duration()
        self.cache_hit = Duration()
        self.cache_miss = Duration()
        self.inference_count = 0
        self.execution_count = 0
        self.last_inference_ms = 0
        self.joins = 0
        self.batches: dict[int, Duration] = {}
        self.codes: dict[str, int] = {}
        self.refusals: dict[str, int] = {}
        # One value a request: decode, queue, encode, total. One value a batch: merge, run.
        self.decode_time = Histogram()
        self.queue_time = Histogram()
        self.merge_time = Histogram()
        self.run_time = Histogram()
        self.encode_time = Histogram()
        self.total_time = Histogram()

    def batch(
        self, requests: Iterable[Queued], started: float, finished: float, rows: int, merge_s: float = 0.0
    ) -> None:
        """Count a batch that ran and gave answers; one that failed is counted by its requests' `request` alone.

        `started` and `finished` are in seconds of `time.monotonic`, around the run of the session; `merge_s` is the
        time that went into checking and joining its tensors. A request waits until `started`.
        """
        run_s = finished - started
        waits = self.queue_time
        bounds, counts, waited, n = waits.bounds, waits.counts, 0.0, 0
        for request in requests:
            wait = started - request.decoded_at
            counts[bisect_left(bounds, wait)] += 1
            waited += wait
            n += 1
        waits.sum += waited
        self.run_time.observe(run_s)
        self.merge_time.observe(merge_s)
        self.compute_infer.add(run_s, n)
        self.inference_count += rows
        self.execution_count += 1
        self.last_inference_ms = int(time.time() * 1000)
        size = rows if rows <= _EXACT_ROWS else batch_class(rows)
        try:
            duration = self.batches[size]
        except KeyError:
            duration = self.batches[size] = Duration()
        duration.add(run_s)

    def request(self, code: str, decode_s: float, encode_s: float, total_s: float) -> None:
        """Count an answer: `code` is the error's code, empty for success; the times are seconds.

        Called once for each request that was not `refused`. One that failed before it was encoded gives `encode_s` 0.
        """
        # Histogram.observe, three times, without the calls: they would be half of what this costs.
        times = self.decode_time
        times.counts[bisect_left(SECONDS, decode_s)] += 1
        times.sum += decode_s
        times = self.encode_time
        times.counts[bisect_left(SECONDS, encode_s)] += 1
        times.sum += encode_s
        times = self.total_time
        times.counts[bisect_left(SECONDS, total_s)] += 1
        times.sum += total_s
        outcome = self.fail if code else self.success
        outcome.count += 1
        outcome.seconds += total_s
        try:
            self.codes[code] += 1
        except KeyError:
            _count(self.codes, code, OTHER)

    def refused(self, code: str) -> None:
        """Count a request that never got into the queue: invalid, or shed. Called instead of `request`."""
        self.fail.count += 1
        _count(self.codes, code, OTHER)
        _count(self.refusals, code, OTHER)

    def cache(self, hit: bool, seconds: float = 0.0) -> None:
        """Count a look into the response cache and the time that it took."""
        (self.cache_hit if hit else self.cache_miss).add(seconds)

    def joined(self) -> None:
        """Count a request that was answered by an identical one already in flight."""
        self.joins += 1

    @property
    def queue(self) -> Duration:
        """The time that requests which ran had waited."""
        return _duration(self.queue_time)

    @property
    def compute_input(self) -> Duration:
        """The time from bytes to tensors, of each request."""
        return _duration(self.decode_time)

    @property
    def compute_output(self) -> Duration:
        """The time from tensors to bytes, of each request."""
        return _duration(self.encode_time)


class ServerStats:
    """The counters of the whole process. Transports add to `in_flight`, `bytes_in` and `bytes_out` themselves."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connections",
        "connections_total",
        "in_flight",
        "loop_lag",
        "requests",
        "sheds",
    )

    def __init__(self) -> None:
        self.connections: dict[str, int] = {}
        self.connections_total: dict[str, int] = {}
        self.requests: dict[tuple[str, str], int] = {}
        self.sheds: dict[str, int] = {}
        self.in_flight = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.loop_lag = Histogram()

    def opened(self, transport: str) -> None:
        """Count a connection of `http` or `grpc` that begins."""
        _count(self.connections_total, transport, OTHER)
        _count(self.connections, transport, OTHER)

    def closed(self, transport: str) -> None:
        """Count one that ends."""
        self.connections[transport] -= 1

    def answered(self, route: str, status: str) -> None:
        """Count an answer: `route` is the route's pattern, never the path asked for; `status` is HTTP's or gRPC's."""
        try:
            self.requests[route, status] += 1
        except KeyError:
            _count(self.requests, (route, status), (OTHER, OTHER))

    def shed(self, reason: str) -> None:
        """Count a request or connection that was refused before a model was known, as at the limit of connections."""
        _count(self.sheds, reason, OTHER)

    def lag(self, seconds: float) -> None:
        """Take a sample of how late the event loop was."""
        self.loop_lag.observe(seconds)


def _count(counts: dict[Key, int], key: Key, other: Key) -> None:
    """Count under `key`, or under `other` once there are too many: a label must not grow without bound."""
    if key not in counts and len(counts) >= _MAX_KEYS:
        key = other
    counts[key] = counts.get(key, 0) + 1


def _duration(times: Histogram) -> Duration:
    duration = Duration()
    duration.count = times.count
    duration.seconds = times.sum
    return duration
