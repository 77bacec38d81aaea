"""Batches of log lines, recorded once; heads, anchored now and then; the trail, read again."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.audit import (
    MAX_COUNTER_ITEMS,
    MAX_COUNTERS,
    MAX_RECORDS,
    Anchor,
    Appended,
    AuditRecord,
    Head,
    Segment,
    genesis,
    lines_of,
    seal,
    shard_of,
    time_text,
)
from shared.domain.audit_check import Damage, verify
from shared.domain.endpoint.traffic_counts import TrafficKey, VariantTraffic, traffic_in
from shared.domain.errors import BackendUnavailable, Conflict
from shared.domain.request_line import LogBatch
from shared.domain.usage import Usage, UsageKey
from shared.usecases.anchor_heads import MAX_SEGMENTS, AnchorHeads
from shared.usecases.read_audit import newest_records, verify_shard
from shared.usecases.record_lines import ATTEMPTS, RecordLines
from tests.log_lines import NOON, InMemoryLedger, authorization, batch, entry, request

DAY = UsageKey("acme", "day#2026-11-21")
Used = Mapping[UsageKey, Usage]
Counted = Mapping[TrafficKey, Mapping[str, int]]


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


def recorder(ledger: Any, shards: int = 1, pauses: list[float] | None = None) -> RecordLines:
    return RecordLines(
        ledger, shards, pause=(pauses if pauses is not None else []).append, jitter=lambda _low, high: high
    )


def whole(ledger: InMemoryLedger) -> bool:
    return not any(verify(shard, chain, chain[-1].head) for shard, chain in ledger.chains.items())


# -------------------------------------------------------------------------------------- record


def test_a_batch_becomes_usage_and_a_segment(ledger: InMemoryLedger) -> None:
    found = batch(
        "START RequestId: 1",
        request(request_id="r-1"),
        authorization(),
        request(request_id="r-2", status=503),
        request(route="GET /health", tenant=None, key_id=None),
        request(tenant=7),
    )
    done = recorder(ledger)(found)
    assert (done.records, done.skipped, done.unreadable, done.duplicates, done.overtaken) == (4, 2, 1, 0, 0)
    assert done.last == ledger.chains["0"][-1]
    assert ledger.usage[DAY] == Usage(1, 1, 4, 200, 100, 3000, 1400)
    assert set(ledger.usage) == {
        DAY,
        UsageKey("acme", "month#2026-11"),
        UsageKey("acme", "day#2026-11-21#model#tumor"),
    }
    lines = lines_of(done.last)
    assert lines is not None
    kinds = [line.partition(b'"kind":"')[2].partition(b'"')[0] for line in lines]
    assert kinds == [b"request", b"authorization", b"request", b"unreadable"]


def test_a_batch_that_comes_again_changes_nothing(ledger: InMemoryLedger) -> None:
    found = batch(request(), request())
    recorder(ledger)(found)
    before = dict(ledger.usage)
    done = recorder(ledger)(found)
    assert (done.records, done.duplicates, done.last) == (0, 2, None)
    assert ledger.usage == before
    assert len(ledger.chains["0"]) == 1


def test_a_batch_becomes_traffic_once(ledger: InMemoryLedger) -> None:
    shadow = {"variant": "next", "state": "compared", "ms": 2, "primary_ms": 1, "rows": 2, "agreeing": 2}
    found = batch(
        request(shadow=shadow),
        request(status=503, experiment={"name": "colour", "arm": "main", "unit": "0" * 16}),
        request(fallback="cached", reason="circuit_open"),
        request(timestamp="2026-11-20T12:00:00Z", shadow="damaged"),
        request(model="made-up", version=None, variant=None, status=404),
        request(tenant=None, key_id=None),  # no decision, and nothing is known of who asked
        authorization(),
    )
    for _ in range(2):
        recorder(ledger)(found)
    assert set(ledger.traffic) == {
        TrafficKey("tumor", "day#2026-11-21#0"),
        TrafficKey("tumor", "day#2026-11-20#0"),
    }
    shown = traffic_in(ledger.traffic.values())
    assert shown.variants == {"main": VariantTraffic(requests=4, answers=3, errors=1, fallbacks=1, us=10_500)}
    assert shown.shadows["next"].agreement_rate == 1.0
    assert shown.arms["colour", "main"].error_rate == 1.0
    assert shown.fallbacks == {("cached", "circuit_open"): 1}
    assert ledger.usage[DAY].rows == 8  # damaged members cost nobody a line


def test_a_batch_of_many_endpoints_is_split_and_resumed(ledger: InMemoryLedger) -> None:
    lines = [request(model=f"m{number % 60}", tenant=f"t{number % 3}", request_id=str(number)) for number in range(240)]
    found = batch(*lines)

    class Dies(InMemoryLedger):
        alive = 1

        def append(self, segment: Segment, before: Head, usage: Used, traffic: Counted) -> Appended:
            assert len(usage) + len(traffic) <= MAX_COUNTER_ITEMS
            if self.alive == 0:
                raise BackendUnavailable("The audit store cannot be reached.")
            self.alive -= 1
            return super().append(segment, before, usage, traffic)

    dying = Dies()
    with pytest.raises(BackendUnavailable):
        recorder(dying)(found)
    assert len(dying.chains["0"]) == 1  # the first part is in, the function is gone
    dying.alive = 100
    done = recorder(dying)(found)
    assert 0 < done.duplicates < 240
    recorder(ledger)(found)
    assert (dying.traffic, dying.usage) == (ledger.traffic, ledger.usage)
    assert {
        key.endpoint: traffic_in([counters]).variants["main"].requests for key, counters in dying.traffic.items()
    } == {f"m{number}": 4 for number in range(60)}
    assert whole(dying)


def test_a_batch_with_many_names_is_split(ledger: InMemoryLedger) -> None:
    found = batch(*[request(variant=f"v{number % 50}", cache="hit") for number in range(100)])
    most = 0

    class Bounded(InMemoryLedger):
        def append(self, segment: Segment, before: Head, usage: Used, traffic: Counted) -> Appended:
            nonlocal most
            most = max(most, *map(len, traffic.values()))
            return super().append(segment, before, usage, traffic)

    bounded = Bounded()
    recorder(bounded)(found)
    assert MAX_COUNTERS - 4 < most <= MAX_COUNTERS
    assert len(bounded.chains["0"]) > 1
    variants = traffic_in(bounded.traffic.values()).variants
    assert {name: shown.requests for name, shown in variants.items()} == {f"v{number}": 2 for number in range(50)}
    assert bounded.usage[DAY].requests == 100


def test_a_batch_with_nothing_of_ours_writes_nothing(ledger: InMemoryLedger) -> None:
    done = recorder(ledger)(batch("START", "END", '{"message": "batch recorded"}'))
    assert (done.skipped, done.records, done.last) == (3, 0, None)
    assert ledger.chains == {}
    assert ledger.traffic == {}
    assert ledger.batches == set()


def test_each_stream_has_its_shard(ledger: InMemoryLedger) -> None:
    record = recorder(ledger, shards=4)
    for number in range(12):
        record(batch(request(), stream=f"stream-{number}"))
    assert set(ledger.chains) == {shard_of(f"stream-{number}", 4) for number in range(12)}
    assert sum(map(len, ledger.chains.values())) == 12
    assert whole(ledger)


def test_the_head_is_read_once_while_nobody_else_writes(ledger: InMemoryLedger) -> None:
    record = recorder(ledger)
    for _ in range(5):
        record(batch(request()))
    assert ledger.reads == 1
    recorder(ledger)(batch(request()))  # another environment
    done = record(batch(request()))
    assert done.overtaken == 1
    assert len(ledger.chains["0"]) == 7
    assert whole(ledger)


def test_time_that_is_far_off_is_that_of_the_log(ledger: InMemoryLedger) -> None:
    recorder(ledger)(batch(request(timestamp="2020-01-01T00:00:00Z"), request(timestamp="2099-01-01T00:00:00Z")))
    assert ledger.usage[DAY].requests == 2
    segment = ledger.chains["0"][0]
    assert segment.first == segment.last == time_text(NOON)


def test_a_batch_of_many_tenants_is_split_and_resumed(ledger: InMemoryLedger) -> None:
    found = batch(*[request(tenant=f"t{number % 80}", request_id=str(number)) for number in range(160)])

    class Dies(InMemoryLedger):
        alive = 1

        def append(self, segment: Segment, before: Head, usage: Used, traffic: Counted) -> Appended:
            if self.alive == 0:
                raise BackendUnavailable("The audit store cannot be reached.")
            self.alive -= 1
            return super().append(segment, before, usage, traffic)

    dying = Dies()
    with pytest.raises(BackendUnavailable):
        recorder(dying)(found)
    assert len(dying.chains["0"]) == 1  # the first part is in, the function is gone
    dying.alive = 100
    done = recorder(dying)(found)
    assert 0 < done.duplicates < 160
    assert done.records + done.duplicates == 160
    recorder(ledger)(found)
    assert dying.usage == ledger.usage
    assert {key: used.requests for key, used in ledger.usage.items() if key.period == "day#2026-11-21"} == {
        UsageKey(f"t{number}", "day#2026-11-21"): 2 for number in range(80)
    }
    assert {segment.batch for segment in ledger.chains["0"]} == {
        f"{found.id}/{number}" for number in range(len(ledger.chains["0"]))
    }
    assert whole(ledger)


def test_a_part_has_a_most_of_records_and_of_bytes(ledger: InMemoryLedger) -> None:
    recorder(ledger)(batch(*[authorization()] * (MAX_RECORDS + 1)))
    assert [segment.count for segment in ledger.chains["0"]] == [MAX_RECORDS, 1]
    wide = request(request_id="ü" * 300, route="ü" * 300, code="ü" * 300, target="ü" * 300)
    recorder(ledger)(batch(*[wide] * 200))
    assert sum(segment.count for segment in ledger.chains["0"][2:]) == 200
    assert len(ledger.chains["0"]) > 3
    assert whole(ledger)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda tenant, day, model, status: request(
                    tenant=f"t{tenant}",
                    timestamp=f"2026-11-{day}T12:00:00Z",
                    model=f"m{model}",
                    variant=f"v{tenant}",
                    status=status,
                ),
                st.integers(0, 60),
                st.sampled_from([20, 21, 22]),
                st.integers(0, 5),
                st.sampled_from([200, 404, 429, 500]),
            ),
            st.sampled_from([authorization(), "END", "{", request(rows="two")]),
        ),
        max_size=300,
    )
)
def test_any_batch_is_counted_to_the_last_line(lines: list[str]) -> None:
    class Bounded(InMemoryLedger):
        def append(self, segment: Segment, before: Head, usage: Used, traffic: Counted) -> Appended:
            assert len(usage) + len(traffic) <= MAX_COUNTER_ITEMS
            return super().append(segment, before, usage, traffic)

    ledger = Bounded()
    done = recorder(ledger)(batch(*lines))
    assert done.records + done.skipped == len(lines)
    assert sum(segment.count for segments in ledger.chains.values() for segment in segments) == done.records
    counted = [used for key, used in ledger.usage.items() if key.period.startswith("month#")]
    assert sum(used.requests for used in counted) == sum(
        '"status": 200' in x or '"status": 404' in x for x in lines
    ) - (lines.count(request(rows="two")))
    assert sum(used.errors for used in counted) == sum('"status": 500' in line for line in lines)
    variants = traffic_in(ledger.traffic.values()).variants.values()
    assert sum(found.requests for found in variants) == sum('"status"' in line for line in lines) - (
        lines.count(request(rows="two"))
    )
    assert whole(ledger)


def test_who_is_always_overtaken_gives_up(ledger: InMemoryLedger) -> None:
    class Contended(InMemoryLedger):
        def append(self, segment: Segment, before: Head, usage: Used, traffic: Counted) -> Appended:
            return Appended.OVERTAKEN

    pauses: list[float] = []
    with pytest.raises(BackendUnavailable, match="audit shard 0"):
        recorder(Contended(), pauses=pauses)(batch(request()))
    assert len(pauses) == ATTEMPTS
    assert pauses[:4] == [0.025, 0.05, 0.1, 0.2]
    assert sum(pauses) < 15


def test_an_unknown_outcome_is_asked_again(ledger: InMemoryLedger) -> None:
    class Lossy(InMemoryLedger):
        lost = True

        def append(self, segment: Segment, before: Head, usage: Used, traffic: Counted) -> Appended:
            appended = super().append(segment, before, usage, traffic)
            if self.lost:
                self.lost = False
                raise BackendUnavailable("The answer was lost.")
            return appended

    lossy = Lossy()
    record, found = recorder(lossy), batch(request())
    with pytest.raises(BackendUnavailable):
        record(found)
    assert record(found).duplicates == 1
    assert record(batch(request())).overtaken == 0  # the head was read again
    assert lossy.usage[DAY].requests == 2
    assert whole(lossy)


def test_writers_of_one_shard_take_turns(ledger: InMemoryLedger) -> None:
    batches = [batch(*[request()] * 3, stream=f"s{number}") for number in range(64)]
    recorders = [RecordLines(ledger, 1) for _ in range(8)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        for future in [pool.submit(recorders[number % 8], found) for number, found in enumerate(batches)]:
            future.result()
    assert len(ledger.chains["0"]) == 64
    assert ledger.usage[DAY].requests == 192
    assert whole(ledger)


# -------------------------------------------------------------------------------------- anchor


class Anchors:
    """An `AnchorStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], tuple[Anchor, float]] = {}
        self.asked = 0
        self.now = 1000.0

    def shards(self) -> list[str]:
        return sorted({shard for shard, _ in self.kept})

    def latest(self, shard: str, after: int) -> tuple[int, float] | None:
        self.asked += 1
        return max(((seq, at) for (of, seq), (_, at) in self.kept.items() if of == shard and seq > after), default=None)

    def add(self, anchor: Anchor) -> bool:
        kept, _ = self.kept.setdefault((anchor.shard, anchor.seq), (anchor, self.now))
        return kept.hash == anchor.hash

    def of_shard(self, shard: str) -> Iterable[Anchor]:
        return [anchor for (of, _), (anchor, _) in sorted(self.kept.items()) if of == shard]


@pytest.fixture
def anchors() -> Anchors:
    return Anchors()


def segments(count: int, start: int = 0) -> list[Segment]:
    made, head = [], Head(start, "h") if start else genesis("0")
    for number in range(count):
        made.append(seal("0", head, f"b{number}", [b'{"kind":"request"}'], "t", "t"))
        head = made[-1].head
    return made


def test_the_first_segment_is_anchored_and_then_one_an_hour(anchors: Anchors) -> None:
    anchor = AnchorHeads(anchors, 3600, now=lambda: anchors.now)
    first, second, third, fourth = segments(4)
    assert anchor(first) is True
    anchors.now += 3599
    assert anchor(second) is False
    anchors.now += 1
    assert anchor(third) is True
    assert anchor(fourth) is False
    assert [seq for _, seq in anchors.kept] == [1, 3]
    assert anchors.kept["0", 3][0] == Anchor("0", 3, third.hash, "1970-01-01T01:16:40.000Z")
    assert anchors.asked == 2


def test_another_environment_sees_what_is_anchored(anchors: Anchors) -> None:
    first, second, third = segments(3)
    assert AnchorHeads(anchors, 3600, now=lambda: anchors.now)(first) is True
    other = AnchorHeads(anchors, 3600, now=lambda: anchors.now)
    assert other(second) is False
    assert other(third) is False
    assert anchors.asked == 2  # the other one asked once


def test_many_segments_are_anchored_before_the_hour_is_over(anchors: Anchors) -> None:
    anchor = AnchorHeads(anchors, 3600, now=lambda: anchors.now)
    anchor(segments(1)[0])
    (before,) = segments(1, start=MAX_SEGMENTS - 1)
    (after,) = segments(1, start=MAX_SEGMENTS)
    assert anchor(before) is False
    assert anchor(after) is True
    assert [seq for _, seq in anchors.kept] == [1, MAX_SEGMENTS + 1]


def test_a_segment_whose_place_is_taken_is_told(anchors: Anchors) -> None:
    first, _ = segments(2)
    anchors.add(Anchor("0", 1, "of the chain that was there before"))
    anchors.now += 10_000
    with pytest.raises(Conflict, match="set back"):
        AnchorHeads(anchors, 3600, now=lambda: anchors.now)(first)


# ---------------------------------------------------------------------------------------- read


def test_a_whole_shard_is_reported(ledger: InMemoryLedger, anchors: Anchors) -> None:
    record, anchor = recorder(ledger), AnchorHeads(anchors, 3600, now=lambda: anchors.now)
    for _ in range(5):
        done = record(batch(request(), request()))
        assert done.last is not None
        anchor(done.last)
    seen: list[int] = []
    report = verify_shard(ledger, anchors, "0", lambda: seen.append(1))
    assert (report.segments, report.records, report.anchored, list(report.breaches)) == (5, 10, 1, [])
    assert len(seen) == 5


def test_a_shard_that_grows_meanwhile_is_whole(ledger: InMemoryLedger, anchors: Anchors) -> None:
    record = recorder(ledger)
    record(batch(request()))

    class Growing(InMemoryLedger):
        left = 3

        def head(self, shard: str) -> Head | None:
            if self.left:
                self.left -= 1
                record(batch(request()))
            return ledger.head(shard)

        def segments(self, shard: str, after: int = 0) -> Iterable[Segment]:
            return list(ledger.segments(shard, after))

    report = verify_shard(Growing(), anchors, "0")
    assert (report.segments, list(report.breaches)) == (4, [])


def test_what_is_broken_only_while_it_is_written_is_read_again(ledger: InMemoryLedger, anchors: Anchors) -> None:
    record = recorder(ledger)
    for _ in range(3):
        record(batch(request()))

    class Torn(InMemoryLedger):
        """The head can be seen before the segment, for a moment."""

        torn = True

        def head(self, shard: str) -> Head | None:
            return ledger.head(shard)

        def segments(self, shard: str, after: int = 0) -> Iterable[Segment]:
            found = list(ledger.segments(shard, after))
            if self.torn and not after:
                self.torn, found = False, [found[0], found[2]]
            return found

    assert list(verify_shard(Torn(), anchors, "0").breaches) == []
    del ledger.chains["0"][1]
    assert [breach.damage for breach in verify_shard(ledger, anchors, "0").breaches] == [Damage.MISSING]


def test_a_stray_segment_ends_the_check_all_the_same(ledger: InMemoryLedger, anchors: Anchors) -> None:
    class Stray(InMemoryLedger):
        def head(self, shard: str) -> Head | None:
            return Head(9, "h")

        def segments(self, shard: str, after: int = 0) -> Iterable[Segment]:
            return [Segment("0", -1, "", "", "", 0, "", "", b"")]

    damages = [breach.damage for breach in verify_shard(Stray(), anchors, "0").breaches]
    assert damages == [Damage.REORDERED, Damage.CHANGED, Damage.TRUNCATED]


def hours(count: int) -> LogBatch:
    """One line an hour, the last at noon."""
    times = [NOON - timedelta(hours=number) for number in reversed(range(count))]
    events = [
        entry(
            request(
                timestamp=time.isoformat(), request_id=f"h{time.hour}", tenant="even" if time.hour % 2 == 0 else "odd"
            ),
            time,
        )
        for time in times
    ]
    return LogBatch("g", "s", events)


def ids(records: Iterable[AuditRecord]) -> list[str]:
    return [record.request_id for record in records]


def test_the_newest_records_come_by_time(ledger: InMemoryLedger) -> None:
    record = recorder(ledger, shards=4)
    for number, event in enumerate(hours(10).events):
        record(LogBatch("g", f"stream-{number}", [event]))
    since = NOON - timedelta(hours=5)
    assert ids(newest_records(ledger, since=since, limit=100).records) == ["h7", "h8", "h9", "h10", "h11", "h12"]
    assert ids(newest_records(ledger, since=since, limit=2).records) == ["h11", "h12"]
    assert ids(newest_records(ledger, since=since, limit=100, tenant="odd").records) == ["h7", "h9", "h11"]
    assert ids(newest_records(ledger, since=since, limit=100, tenant="nobody").records) == []


def test_old_segments_are_not_read(ledger: InMemoryLedger) -> None:
    record = recorder(ledger)
    for event in hours(24).events:
        record(LogBatch("g", "s", [event]))
    read: list[int] = []

    class Counting(InMemoryLedger):
        def shards(self) -> list[str]:
            return ["0"]

        def newest(self, shard: str) -> Iterable[Segment]:
            for segment in ledger.newest(shard):
                read.append(segment.seq)
                yield segment

    found = newest_records(Counting(), since=NOON - timedelta(hours=1), limit=100)
    assert ids(found.records) == ["h11", "h12"]
    assert len(read) == 9  # six hours more, in which a late line may have come, and the first that is too old


def test_a_damaged_segment_is_named_and_left_out(ledger: InMemoryLedger) -> None:
    record = recorder(ledger)
    for event in hours(3).events:
        record(LogBatch("g", "s", [event]))
    chain = ledger.chains["0"]
    chain[1] = Segment("0", 2, "", "", "", 1, "", "", b"not gzip")
    chain.append(seal("0", chain[2].head, "b", [b"not JSON"], "t", "t"))
    found = newest_records(ledger, since=NOON - timedelta(days=1), limit=100)
    assert ids(found.records) == ["h10", "h12"]
    assert list(found.damaged) == [("0", 4), ("0", 2)]
