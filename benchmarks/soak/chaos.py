"""What goes wrong on purpose: workers that are killed, and messages that come twice."""

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import boto3
import httpx
import psutil

_POLL_S = 0.2
_WORKED = 2  # invocations of a worker that has ended one at least


@dataclass(frozen=True, slots=True)
class Worker:
    """A process of a function, what it does, and how many batches it was given."""

    pid: int
    state: str
    invocations: int

    @property
    def busy(self) -> bool:
        """Whether it starts, or works on something."""
        return self.state not in {"frozen", "idle"}


class Workers:
    """The processes of one function of a local stack."""

    def __init__(self, lambda_url: str, function: str) -> None:
        self._url = f"{lambda_url}/_sluice/status"
        self._function = function

    def now(self) -> list["Worker"]:
        """Its environments that have a process."""
        functions = httpx.get(self._url, timeout=10).raise_for_status().json()["functions"]
        return [
            Worker(environment["pid"], environment["state"], environment["invocations"])
            for function in functions
            if function["logical_id"] == self._function
            for environment in function["environments"]
            if environment["pid"]
        ]


class Chaos:
    """Kills a busy worker about every `every_s` seconds, `most` at the most, and watches how much memory they take.

    `kills` counts; `peak_bytes` is the most that one worker took (resident set). A kill that is due waits for a worker
    that has worked before; one that starts is killed only if it is there at that moment, and never with
    `spares_starting`: its messages are hidden until the sweep sends others, and who lies in wait for it kills the last
    job's worker each time.
    """

    def __init__(
        self,
        workers: Workers,
        every_s: float,
        *,
        most: int | None = None,
        spares_starting: bool = False,
        seed: int = 11,
    ) -> None:
        self._workers = workers
        self._every_s = every_s
        self._most = most
        self._spares_starting = spares_starting
        self._random = random.Random(seed)  # noqa: S311 - which worker, and when
        self.kills = 0
        self.peak_bytes = 0

    @contextmanager
    def running(self) -> "Iterator[Chaos]":
        """Until the context ends."""
        over = Event()
        thread = Thread(target=self._live, args=(over,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()

    def _live(self, over: Event) -> None:
        next_s = self._pause()
        waited = 0.0
        while not over.wait(_POLL_S):
            waited += _POLL_S
            workers = self._workers.now()
            self._measure(workers)
            if waited < next_s or self.kills == self._most:
                continue
            starting_too = not self._spares_starting and waited - next_s < _POLL_S
            victims = [each.pid for each in workers if each.busy and (starting_too or each.invocations >= _WORKED)]
            if victims:
                self._kill(self._random.choice(victims))
                waited, next_s = 0.0, self._pause()

    def _pause(self) -> float:
        return self._random.uniform(0.5, 1.5) * self._every_s

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills += 1

    def _measure(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            try:
                self.peak_bytes = max(self.peak_bytes, psutil.Process(worker.pid).memory_info().rss)
            except psutil.NoSuchProcess:
                continue


def local_client(service: str, aws_url: str) -> Any:
    """A client of the local AWS services."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=aws_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - nobody checks it
    )


def endings(aws_url: str, table: str) -> dict[str, int]:
    """How often each job was written as ended, by the stream of their table: once is right."""
    streams = local_client("dynamodbstreams", aws_url)
    counts: dict[str, int] = {}
    for stream in streams.list_streams(TableName=table)["Streams"]:
        described = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]
        for shard in described["Shards"]:
            found = streams.get_shard_iterator(
                StreamArn=stream["StreamArn"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            _count(streams, found["ShardIterator"], counts)
    return counts


def _count(streams: Any, iterator: str, counts: dict[str, int]) -> None:
    before: dict[str, str] = {}
    while True:
        page = streams.get_records(ShardIterator=iterator, Limit=1000)
        for record in page["Records"]:
            image = record["dynamodb"].get("NewImage")
            if image is None:
                continue
            job_id, state = image["job_id"]["S"], image["state"]["S"]
            if state in {"succeeded", "failed", "cancelled"} and before.get(job_id) is not None:
                counts[job_id] = counts.get(job_id, 0) + 1
            before[job_id] = state
        if not page["Records"] or not page.get("NextShardIterator"):
            return
        iterator = page["NextShardIterator"]
