"""Add a batch of log lines to usage, traffic and the audit chain, once however often it is delivered."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import uniform
from time import sleep

from shared.domain.audit import (
    MAX_COUNTER_ITEMS,
    MAX_COUNTERS,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    Appended,
    Head,
    Segment,
    canonical,
    genesis,
    record_of,
    seal,
    shard_of,
    unreadable,
)
from shared.domain.endpoint.traffic_counts import Counted, TrafficKey, traffic_of
from shared.domain.errors import BackendUnavailable
from shared.domain.ports import AuditLedger
from shared.domain.request_line import LogBatch, LogEvent, RequestLine, UnreadableLine, parse_line, time_of
from shared.domain.usage import Usage, UsageKey, usage_of

# Together some seconds: writers of one shard, and of one tenant's counters, take turns of some ten milliseconds.
ATTEMPTS = 24
_FIRST_PAUSE_S = 0.025
_LONGEST_PAUSE_S = 0.5


@dataclass(slots=True)
class Recorded:
    """What became of a batch: records written now, lines that are not ours, lines that could not be read.

    `duplicates` are records that were in already. `last` is the last segment that was written, None if none was;
    `overtaken` is how often another writer was faster.
    """

    shard: str
    records: int = 0
    skipped: int = 0
    unreadable: int = 0
    duplicates: int = 0
    overtaken: int = 0
    last: Segment | None = None


@dataclass(slots=True)
class _Part:
    """What goes into one transaction."""

    records: list[bytes] = field(default_factory=list)
    usage: dict[UsageKey, Usage] = field(default_factory=dict)
    traffic: dict[TrafficKey, dict[str, int]] = field(default_factory=dict)
    size: int = 0
    first: str = ""
    last: str = ""

    def takes(self, record: bytes, usage: Mapping[UsageKey, Usage], traffic: Counted | None) -> bool:
        """Whether there is room."""
        items, counters = len(self.usage.keys() | usage.keys()) + len(self.traffic), 0
        if traffic is not None:
            key, counts = traffic
            items += int(key not in self.traffic)
            counters = len(self.traffic.get(key, {}).keys() | counts.keys())
        return (
            len(self.records) < MAX_RECORDS
            and self.size + len(record) + 1 <= MAX_RECORD_BYTES
            and items <= MAX_COUNTER_ITEMS
            and counters <= MAX_COUNTERS
        )

    def add(self, record: bytes, time: str, usage: Mapping[UsageKey, Usage], traffic: Counted | None) -> None:
        self.records.append(record)
        self.size += len(record) + 1
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)
        for key, used in usage.items():
            self.usage[key] = self.usage[key] + used if key in self.usage else used
        if traffic is not None:
            place, counts = traffic
            sums = self.traffic.setdefault(place, {})
            for name, count in counts.items():
                sums[name] = sums.get(name, 0) + count


class RecordLines:
    """Writes batches to a ledger, each to the shard of its log stream.

    One instance remembers the heads that it saw last, which saves a read while no other writer moves them.
    """

    def __init__(
        self,
        ledger: AuditLedger,
        shards: int,
        *,
        pause: Callable[[float], None] = sleep,
        jitter: Callable[[float, float], float] = uniform,
    ) -> None:
        self._ledger = ledger
        self._shards = shards
        self._pause = pause
        self._jitter = jitter
        self._heads: dict[str, Head] = {}

    def __call__(self, batch: LogBatch) -> Recorded:
        """Record a batch; raises BackendUnavailable where it should be delivered again, BackendError."""
        done = Recorded(shard_of(batch.stream, self._shards))
        parts = list(_parts(batch.events, done))
        for number, part in enumerate(parts):
            self._append(part, batch.id if len(parts) == 1 else f"{batch.id}/{number}", done)
        return done

    def _append(self, part: _Part, batch: str, done: Recorded) -> None:
        shard = done.shard
        longest = _FIRST_PAUSE_S
        for _ in range(ATTEMPTS):
            before = self._head(shard)
            segment = seal(shard, before, batch, part.records, part.first, part.last)
            try:
                appended = self._ledger.append(segment, before, part.usage, part.traffic)
            except BaseException:
                self._heads.pop(shard, None)  # it may have been written all the same
                raise
            if appended is Appended.WRITTEN:
                self._heads[shard] = segment.head
                done.records += len(part.records)
                done.last = segment
                return
            if appended is Appended.DUPLICATE:
                done.duplicates += len(part.records)
                return
            self._heads.pop(shard, None)
            done.overtaken += 1
            self._pause(self._jitter(0.0, longest))
            longest = min(longest * 2, _LONGEST_PAUSE_S)
        raise BackendUnavailable(
            f"The audit shard {shard} could not be written to in {ATTEMPTS} attempts: it has too many writers at once, "
            "or its head is damaged (`sluice audit verify` tells)."
        )

    def _head(self, shard: str) -> Head:
        if shard not in self._heads:
            self._heads[shard] = self._ledger.head(shard) or genesis(shard)
        return self._heads[shard]


def _parts(events: Iterable[LogEvent], done: Recorded) -> Iterator[_Part]:
    """The batch as it is split, always in the same way; counts in `done` what is not recorded."""
    part = _Part()
    for event in events:
        usage: Mapping[UsageKey, Usage] = {}
        traffic: Counted | None = None
        try:
            line = parse_line(event.text)
        except UnreadableLine:
            done.unreadable += 1
            record = unreadable(event)
        else:
            found = None if line is None else record_of(line, event)
            if line is None or found is None:
                done.skipped += 1
                continue
            record = found
            if isinstance(line, RequestLine):
                when = time_of(line, event)
                usage, traffic = usage_of(line, when), traffic_of(line, when, done.shard)
        written = canonical(record)
        if not part.takes(written, usage, traffic):
            yield part
            part = _Part()
        part.add(written, record.time, usage, traffic)
    if part.records:
        yield part
