"""The audit chain: who asked for what, when, and what was decided, in segments that are chained by hash.

A shard is one chain. A segment's hash is SHA-256 over its header (canonical JSON: keys sorted, no white space) and the
SHA-256 of its records; the header holds the hash of the segment before. So nothing can be changed, removed or put in
between without changing every hash that follows, the shard's head and the anchors of the head included.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256

import msgspec

from shared.domain.request_line import AuthorizationLine, LogEvent, RequestLine, time_of

# These four say how a batch is split, and so are part of what makes one that comes twice count once: with others, a
# batch that is half done could not be gone on with. Canonical JSON of this size stays below 300 KB in any case,
# compressed (zlib adds 5 bytes to 16 KB that do not compress), and an item may have 400 KB. One transaction has at most
# 100 items: the mark of the batch, the head, the segment, and those with usage and traffic. What a record holds decides
# where the bytes are full, too.
MAX_RECORDS = 1000
MAX_RECORD_BYTES = 256 * 1024
MAX_COUNTER_ITEMS = 97
# Of one item with traffic; DynamoDB takes update expressions of 4 KB with 300 operators, which is twice as many.
MAX_COUNTERS = 100
MAX_SHARDS = 64
_MAX_TEXT = 256
_FORMAT = 1
_GZIP = 31


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the trail: never inputs, outputs or a credential.

    `kind` is `request`, `authorization`, or `unreadable` for a line that could not be read, of which `digest` (SHA-256)
    and `bytes` are kept. `time` is RFC 3339 in UTC. Texts are cut after 256 characters. `variant` answered, or was to;
    with `fallback` it stood in for another. `cache` is what the store of kept answers had. `arm` of `experiment` was
    shown to `unit`, a digest.
    """

    kind: str
    time: str
    tenant: str = ""
    key_id: str = ""
    route: str = ""
    model: str = ""
    version: str = ""
    variant: str = ""
    fallback: str = ""
    cache: str = ""
    experiment: str = ""
    arm: str = ""
    unit: str = ""
    target: str = ""
    status: int = 0
    code: str = ""
    authorized: bool | None = None
    reason: str = ""
    request_id: str = ""
    trace_id: str = ""
    digest: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The last segment of a shard: `seq` counts from 1, 0 is a shard without any; `time` is that of its last record."""

    seq: int
    hash: str
    time: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A link of the chain; `records` are `count` lines of canonical JSON, compressed with gzip.

    `first` and `last` are the times of its oldest and newest record, `batch` is what of the log it was made from.
    """

    shard: str
    seq: int
    previous: str
    hash: str
    batch: str
    count: int
    first: str
    last: str
    records: bytes

    @property
    def head(self) -> Head:
        """The head of the shard while this is its last segment."""
        return Head(self.seq, self.hash, self.last)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that was written where it cannot be changed; `rewritten` if somebody wrote over it or deleted it since."""

    shard: str
    seq: int
    hash: str
    time: str = ""
    rewritten: bool = False


class Appended(StrEnum):
    """What became of a segment: it is in; its batch was in already; another writer was faster."""

    WRITTEN = "written"
    DUPLICATE = "duplicate"
    OVERTAKEN = "overtaken"


def shard_of(stream: str, shards: int) -> str:
    """The shard of a log stream, `"0"` to `shards - 1`: the same in every process."""
    return str(int.from_bytes(sha256(stream.encode("utf-8", "replace")).digest()[:8]) % shards)


def genesis(shard: str) -> Head:
    """What the first segment of a shard is chained to."""
    return Head(0, sha256(f"sluice audit chain {_FORMAT}, shard {shard}".encode()).hexdigest())


def time_text(when: datetime) -> str:
    """A time as the trail has it: RFC 3339 in UTC with milliseconds, so that text order is the order in time."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record_of(line: RequestLine | AuthorizationLine, event: LogEvent) -> AuditRecord | None:
    """The record of a line; None for an answer that nothing was decided for: an open route, asked by anybody."""
    time = time_text(time_of(line, event))
    if isinstance(line, AuthorizationLine):
        return AuditRecord(
            kind="authorization",
            time=time,
            tenant=_cut(line.tenant),
            key_id=_cut(line.key_id),
            authorized=line.authorized,
            reason=_cut(line.reason),
            request_id=_cut(line.request_id),
            trace_id=_cut(line.trace_id),
        )
    if not line.tenant and line.status < 400:
        return None
    exposure = line.exposure
    return AuditRecord(
        kind="request",
        time=time,
        tenant=_cut(line.tenant),
        key_id=_cut(line.key_id),
        route=_cut(line.route),
        model=_cut(line.model),
        version="" if line.version is None else _cut(str(line.version)),
        variant=_cut(line.variant),
        fallback=_cut(line.stand_in),
        cache=_cut(line.kept),
        experiment="" if exposure is None else exposure.name,
        arm="" if exposure is None else exposure.arm,
        unit="" if exposure is None else exposure.unit,
        target=_cut(line.target),
        status=line.status,
        code=_cut(line.code),
        request_id=_cut(line.request_id),
        trace_id=_cut(line.trace_id),
    )


def unreadable(event: LogEvent) -> AuditRecord:
    """The record of a line that could not be read."""
    content = event.text.encode("utf-8", "surrogatepass")
    return AuditRecord(
        kind="unreadable", time=time_text(event.time), digest=sha256(content).hexdigest(), bytes=len(content)
    )


def canonical(record: AuditRecord) -> bytes:
    """The one way in which a record is written."""
    return msgspec.json.encode(record, order="sorted")


def seal(shard: str, previous: Head, batch: str, records: Sequence[bytes], first: str, last: str) -> Segment:
    """The segment after `previous` with these canonical records."""
    lines = b"\n".join(records)
    seq = previous.seq + 1
    header = _header(shard, seq, previous.hash, batch, len(records), first, last)
    return Segment(
        shard=shard,
        seq=seq,
        previous=previous.hash,
        hash=_hash(header, lines),
        batch=batch,
        count=len(records),
        first=first,
        last=last,
        records=zlib.compress(lines, wbits=_GZIP),  # zlib writes no time into the header: same bytes every time
    )


def lines_of(segment: Segment) -> Sequence[bytes] | None:
    """The canonical records of a segment; None if they are not those that it was sealed with."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        lines = unpacker.decompress(segment.records, MAX_RECORD_BYTES + 1)
    except zlib.error:
        return None
    header = _header(
        segment.shard, segment.seq, segment.previous, segment.batch, segment.count, segment.first, segment.last
    )
    if not unpacker.eof or unpacker.unused_data or _hash(header, lines) != segment.hash:
        return None
    return lines.split(b"\n")


def _header(shard: str, seq: int, previous: str, batch: str, count: int, first: str, last: str) -> bytes:
    header = {
        "batch": batch,
        "count": count,
        "first": first,
        "format": _FORMAT,
        "last": last,
        "previous": previous,
        "seq": seq,
        "shard": shard,
    }
    return msgspec.json.encode(header, order="sorted")


def _hash(header: bytes, lines: bytes) -> str:
    return sha256(header + sha256(lines).digest()).hexdigest()


def _cut(text: str | None) -> str:
    return "" if text is None else text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
