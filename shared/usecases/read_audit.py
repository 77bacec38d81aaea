"""Read the audit trail: hold its chains against their heads and anchors, or look for records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from shared.domain.audit import AuditRecord, Segment, lines_of, time_text
from shared.domain.audit_check import Breach, ChainCheck
from shared.domain.ports import AnchorStore, AuditTrail

# A segment may be written later than its lines by as long as Lambda keeps an event that it cannot deliver.
# Source: AWS Lambda Developer Guide, "Asynchronous invocation", MaximumEventAgeInSeconds.
_LATEST = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What the check of one shard found; `anchored` is the last segment that an anchor vouches for, 0 if none does."""

    shard: str
    segments: int
    records: int
    anchored: int
    breaches: Sequence[Breach]


@dataclass(frozen=True, slots=True)
class Found:
    """Records by time, the oldest first, and the segments (shard, seq) that cannot be read as they were written."""

    records: Sequence[AuditRecord]
    damaged: Sequence[tuple[str, int]]


def verify_shard(
    trail: AuditTrail, anchors: AnchorStore, shard: str, on_segment: Callable[[], None] = lambda: None
) -> ShardReport:
    """Read a shard from its start and check it; `on_segment` is called after each segment. Raises BackendError.

    The shard may grow meanwhile: anchors are read first and the head last, and segments until there are as many as the
    head says. What is found broken is read once more, since the three are not one snapshot.
    """
    report = _verify(trail, anchors, shard, on_segment)
    return _verify(trail, anchors, shard, lambda: None) if report.breaches else report


def _verify(trail: AuditTrail, anchors: AnchorStore, shard: str, on_segment: Callable[[], None]) -> ShardReport:
    check = ChainCheck(shard, anchors.of_shard(shard))
    last, goes_on = 0, True
    while goes_on:
        start = last
        for segment in trail.segments(shard, after=last):
            check.add(segment)
            last = max(last, segment.seq)
            on_segment()
        head = trail.head(shard)
        goes_on = last > start and head is not None and head.seq > last
    check.end(head)
    return ShardReport(shard, check.segments, check.records, check.anchored, check.breaches)


def newest_records(trail: AuditTrail, *, since: datetime, limit: int, tenant: str | None = None) -> Found:
    """At most `limit` records from `since` on, the newest there are, of one tenant or of all. Raises BackendError."""
    earliest, stop = time_text(since), time_text(since - _LATEST)
    records: list[AuditRecord] = []
    damaged: list[tuple[str, int]] = []
    for shard in trail.shards():
        found: list[AuditRecord] = []
        for segment in trail.newest(shard):
            content = _records(segment)
            if content is None:
                damaged.append((shard, segment.seq))
                continue
            if segment.last < stop:
                break
            found += (
                record for record in content if record.time >= earliest and (tenant is None or record.tenant == tenant)
            )
            if len(found) >= limit:
                break
        records += found
    records.sort(key=lambda record: record.time)
    return Found(records[-limit:], damaged)


def _records(segment: Segment) -> Sequence[AuditRecord] | None:
    lines = lines_of(segment)
    if lines is None:
        return None
    try:
        return [msgspec.json.decode(line, type=AuditRecord) for line in lines]
    except msgspec.DecodeError:  # sealed by somebody else than `seal`
        return None
