"""Log lines as the functions write them, the events that a subscription makes of them, and a ledger in memory."""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from uuid import uuid4

from shared.domain.audit import Appended, Head, Segment, genesis
from shared.domain.endpoint.traffic_counts import TrafficKey
from shared.domain.request_line import LogBatch, LogEvent
from shared.domain.usage import Usage, UsageKey

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GROUP = "/aws/lambda/sluice-predict"


def request(**fields: Any) -> str:
    """A request line; a field that is None is left out."""
    line = {
        "level": "INFO",
        "timestamp": "2026-11-21T12:00:00.000+00:00",
        "service": "predict",
        "message": "request",
        "trace_id": "1-65f0c0de-0123456789abcdef01234567",
        "request_id": "r-1",
        "route": "POST /v1/models/{model}/predict",
        "status": 200,
        "code": "ok",
        "bytes_in": 100,
        "bytes_out": 50,
        "ms": 3.5,
        "cold_start": False,
        "tenant": "acme",
        "key_id": "k1",
        "model": "tumor",
        "version": 3,
        "variant": "main",
        "backend": "function",
        "rows": 2,
        "steps_ms": {"decode": 0.1, "run": 1.5},
        "cost_nusd": 700,
        **fields,
    }
    return json.dumps({name: value for name, value in line.items() if value is not None})


def authorization(**fields: Any) -> str:
    """A line of the authorizer."""
    line = {
        "level": "INFO",
        "timestamp": "2026-11-21T12:00:00.000+00:00",
        "service": "authorizer",
        "message": "authorization",
        "request_id": "g-1",
        "authorized": True,
        "reason": None,
        "key_id": "k1",
        "tenant": "acme",
    }
    return json.dumps(line | fields)


def entry(text: str, time: datetime = NOON) -> LogEvent:
    return LogEvent(uuid4().hex, time, text)


def batch(*lines: str, stream: str = "2026/11/21/[$LATEST]abc", group: str = GROUP) -> LogBatch:
    return LogBatch(group, stream, [entry(line) for line in lines])


def subscription(found: LogBatch, message_type: str = "DATA_MESSAGE") -> dict[str, Any]:
    """The event that CloudWatch Logs invokes a function with."""
    data = {
        "messageType": message_type,
        "owner": "123456789012",
        "logGroup": found.group,
        "logStream": found.stream,
        "subscriptionFilters": ["telemetry"],
        "logEvents": [
            {"id": event.id, "timestamp": int(event.time.timestamp() * 1000), "message": event.text}
            for event in found.events
        ],
    }
    return {"awslogs": {"data": base64.b64encode(gzip.compress(json.dumps(data).encode())).decode()}}


class InMemoryLedger:
    """An `AuditLedger` and an `AuditTrail`; `before_append` is called ahead of each write."""

    def __init__(self) -> None:
        self.usage: dict[UsageKey, Usage] = {}
        self.traffic: dict[TrafficKey, dict[str, int]] = {}
        self.chains: dict[str, list[Segment]] = {}
        self.batches: set[str] = set()
        self.reads = 0
        self._lock = Lock()

    def head(self, shard: str) -> Head | None:
        self.reads += 1
        chain = self.chains.get(shard)
        return chain[-1].head if chain else None

    def append(
        self,
        segment: Segment,
        before: Head,
        usage: Mapping[UsageKey, Usage],
        traffic: Mapping[TrafficKey, Mapping[str, int]],
    ) -> Appended:
        with self._lock:
            if segment.batch in self.batches:
                return Appended.DUPLICATE
            chain = self.chains.setdefault(segment.shard, [])
            last = chain[-1].head if chain else genesis(segment.shard)
            if (last.seq, last.hash) != (before.seq, before.hash):
                return Appended.OVERTAKEN
            self.batches.add(segment.batch)
            chain.append(segment)
            for key, used in usage.items():
                self.usage[key] = self.usage.get(key, Usage()) + used
            for place, counters in traffic.items():
                sums = self.traffic.setdefault(place, {})
                for name, count in counters.items():
                    sums[name] = sums.get(name, 0) + count
            return Appended.WRITTEN

    def shards(self) -> list[str]:
        return sorted(self.chains)

    def segments(self, shard: str, after: int = 0) -> Iterable[Segment]:
        return [segment for segment in self.chains.get(shard, []) if segment.seq > after]

    def newest(self, shard: str) -> Iterable[Segment]:
        return reversed(self.chains.get(shard, []))
