"""What goes wrong on purpose: workers that are killed, and messages that come twice."""

import os
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import boto3
import httpx
import psutil

_POLL_S = 0.2


class Workers:
    """The processes of one function of a local stack."""

    def __init__(self, lambda_url: str, function: str) -> None:
        self._url = f"{lambda_url}/_sluice/status"
        self._function = function

    def pids(self) -> dict[int, str]:
        """Process ids of its environments, each with what the environment does."""
        functions = httpx.get(self._url, timeout=10).raise_for_status().json()["functions"]
        return {
            environment["pid"]: environment["state"]
            for function in functions
            if function["logical_id"] == self._function
            for environment in function["environments"]
            if environment["pid"]
        }


class Chaos:
    """Kills a busy worker about every `every_s` seconds, `most` at the most, and watches how much memory they take.

    `kills` counts; `peak_bytes` is the most that one worker took (resident set).
    """

    def __init__(self, workers: Workers, every_s: float, *, most: int | None = None, seed: int = 11) -> None:
        self._workers = workers
        self._every_s = every_s
        self._most = most
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
            pids = self._workers.pids()
            self._measure(pids)
            busy = [pid for pid, state in pids.items() if state not in {"frozen", "idle"}]
            if waited >= next_s and busy and self.kills != self._most:
                self._kill(self._random.choice(busy))
                waited, next_s = 0.0, self._pause()

    def _pause(self) -> float:
        return self._random.uniform(0.5, 1.5) * self._every_s

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills += 1

    def _measure(self, pids: Mapping[int, str]) -> None:
        for pid in pids:
            try:
                self.peak_bytes = max(self.peak_bytes, psutil.Process(pid).memory_info().rss)
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
