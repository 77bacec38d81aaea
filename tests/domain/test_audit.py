"""Records, segments, and the check of a chain: one test for each way to tamper with it."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import fields, replace
from hashlib import sha256
from os import urandom
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.audit import (
    MAX_RECORD_BYTES,
    Anchor,
    AuditRecord,
    Head,
    Segment,
    canonical,
    genesis,
    lines_of,
    record_of,
    seal,
    shard_of,
    time_text,
    unreadable,
)
from shared.domain.audit_check import Breach, ChainCheck, Damage, verify
from shared.domain.request_line import parse_line
from tests.log_lines import NOON, authorization, entry, request

SHARD = "2"
TIME = time_text(NOON)


def record(**fields_: object) -> bytes:
    event = entry(request(**fields_))
    line = parse_line(event.text)
    assert line is not None
    found = record_of(line, event)
    assert found is not None
    return canonical(found)


def chain(count: int, shard: str = SHARD) -> list[Segment]:
    segments: list[Segment] = []
    head = genesis(shard)
    for number in range(1, count + 1):
        lines = [record(request_id=f"r-{number}-{line}") for line in range(3)]
        segments.append(seal(shard, head, f"batch-{number}", lines, TIME, TIME))
        head = segments[-1].head
    return segments


def anchor(segment: Segment) -> Anchor:
    return Anchor(segment.shard, segment.seq, segment.hash, TIME)


def places(breaches: Sequence[Breach]) -> list[tuple[int, Damage]]:
    return [(breach.seq, breach.damage) for breach in breaches]


# ------------------------------------------------------------------------------------- records


def test_a_request_is_recorded_without_what_was_sent() -> None:
    event = entry(request(inputs={"age": [42]}, outputs={"p": [0.5]}, target="key k9"))
    line = parse_line(event.text)
    assert line is not None
    found = record_of(line, event)
    assert found == AuditRecord(
        kind="request",
        time="2026-11-21T12:00:00.000Z",
        tenant="acme",
        key_id="k1",
        route="POST /v1/models/{model}/predict",
        model="tumor",
        version="3",
        variant="main",
        target="key k9",
        status=200,
        code="ok",
        request_id="r-1",
        trace_id="1-65f0c0de-0123456789abcdef01234567",
    )


def test_who_got_what_is_recorded() -> None:
    found = json.loads(
        record(
            variant="small",
            fallback="variant=small",
            reason="circuit_open",
            cache="miss",
            experiment={"name": "colour", "arm": "b", "unit": "0123456789abcdef"},
            shadow={"variant": "next", "state": "dropped"},
        )
    )
    assert {name: found[name] for name in ("variant", "fallback", "cache", "experiment", "arm", "unit")} == {
        "variant": "small",
        "fallback": "variant=small",
        "cache": "miss",
        "experiment": "colour",
        "arm": "b",
        "unit": "0123456789abcdef",
    }
    assert "reason" not in found
    assert "next" not in found.values()
    damaged = json.loads(record(experiment={"name": "colour"}, fallback={"a": 1}, cache=[]))
    assert not {"experiment", "arm", "unit", "fallback", "cache"} & damaged.keys()


def test_a_segment_of_before_there_were_variants_still_verifies() -> None:
    # As an earlier release wrote and sealed it.
    old = (
        b'{"code":"ok","key_id":"k1","kind":"request","model":"tumor","request_id":"r-1","route":"POST /p",'
        b'"status":200,"tenant":"acme","time":"2026-11-21T12:00:00.000Z","version":"3"}'
    )
    segment = seal("0", genesis("0"), "b", [old], "2026-11-21T12:00:00.000Z", "2026-11-21T12:00:00.000Z")
    assert segment.hash == "5c64cce34b46f1f5ebb9d01fd76eea0ef4ae938a3159ba5c0f6e73c5596071e2"
    assert lines_of(segment) == [old]
    read = msgspec.json.decode(old, type=AuditRecord)
    assert (read.version, read.variant, read.arm) == ("3", "", "")
    assert canonical(read) == old


def test_a_refusal_of_the_authorizer_is_recorded() -> None:
    event = entry(authorization(authorized=False, reason="wrong_secret", tenant=None))
    line = parse_line(event.text)
    assert line is not None
    found = record_of(line, event)
    assert found is not None
    assert json.loads(canonical(found)) == {
        "kind": "authorization",
        "time": "2026-11-21T12:00:00.000Z",
        "key_id": "k1",
        "authorized": False,
        "reason": "wrong_secret",
        "request_id": "g-1",
    }


@pytest.mark.parametrize(("status", "recorded"), [(200, False), (304, False), (401, True), (404, True), (500, True)])
def test_answers_of_open_routes_are_no_decisions(status: int, recorded: bool) -> None:
    line = parse_line(request(tenant=None, key_id=None, status=status))
    assert line is not None
    assert (record_of(line, entry("")) is not None) is recorded


def test_an_unreadable_line_is_recorded_by_its_digest() -> None:
    found = unreadable(entry('{"message": "request", "tenant": 7}'))
    assert found.kind == "unreadable"
    assert found.digest == sha256(b'{"message": "request", "tenant": 7}').hexdigest()
    assert found.bytes == 35


def test_long_texts_are_cut_so_that_a_segment_has_room() -> None:
    text = record(**dict.fromkeys(("request_id", "route", "key_id", "model", "target", "code", "trace_id"), "ü" * 9999))
    assert len(text) < 8192
    assert json.loads(text)["route"] == "ü" * 255 + "…"


def test_a_record_is_written_in_one_way() -> None:
    text = record()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert b"\n" not in record(code="a\nb")


@given(st.text(), st.integers(1, 64))
def test_a_stream_always_has_the_same_shard(stream: str, shards: int) -> None:
    assert shard_of(stream, shards) == shard_of(stream, shards)
    assert 0 <= int(shard_of(stream, shards)) < shards


def test_streams_spread_over_the_shards() -> None:
    found = [shard_of(f"2026/11/21/[$LATEST]{number}", 4) for number in range(400)]
    assert min(found.count(shard) for shard in "0123") > 50
    assert shard_of("a stream", 4) == "0"  # for all time: it is part of what is stored


# ------------------------------------------------------------------------------------ segments


def test_a_segment_holds_its_records() -> None:
    lines = [record(request_id=str(number)) for number in range(5)]
    segment = seal(SHARD, genesis(SHARD), "b", lines, "t1", "t2")
    assert lines_of(segment) == lines
    assert (segment.seq, segment.previous, segment.count) == (1, genesis(SHARD).hash, 5)


def test_the_same_records_make_the_same_segment() -> None:
    lines = [record(request_id=str(number)) for number in range(5)]
    assert seal(SHARD, genesis(SHARD), "b", lines, "t1", "t2") == seal(SHARD, genesis(SHARD), "b", lines, "t1", "t2")


def test_every_shard_starts_elsewhere() -> None:
    assert len({genesis(str(number)).hash for number in range(64)}) == 64


def test_the_hash_is_that_of_the_documentation() -> None:
    lines = [record()]
    segment = seal("0", genesis("0"), "b", lines, "t1", "t2")
    header = json.dumps(
        {
            "format": 1,
            "shard": "0",
            "seq": 1,
            "previous": sha256(b"sluice audit chain 1, shard 0").hexdigest(),
            "batch": "b",
            "count": 1,
            "first": "t1",
            "last": "t2",
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    assert segment.hash == sha256(header.encode() + sha256(lines[0]).digest()).hexdigest()


def test_records_that_do_not_compress_fit_into_an_item() -> None:
    noise = urandom(MAX_RECORD_BYTES)
    segment = seal(SHARD, genesis(SHARD), "b", [noise.replace(b"\n", b" ")], "t", "t")
    assert len(segment.records) < 300_000
    assert lines_of(segment) is not None


@pytest.mark.parametrize(
    "records",
    [b"", b"not gzip", zlib.compress(b"x"), zlib.compress(bytes(100_000_000), wbits=31)],
    ids=["empty", "no-gzip", "zlib", "bomb"],
)
def test_records_that_cannot_be_unpacked_are_not_those_that_were_written(records: bytes) -> None:
    assert lines_of(replace(chain(1)[0], records=records)) is None


@settings(max_examples=50)
@given(st.data())
def test_no_byte_of_a_segment_can_be_changed(data: st.DataObject) -> None:
    (segment,) = chain(1)
    name = data.draw(st.sampled_from([field.name for field in fields(Segment)]))
    value = getattr(segment, name)
    if isinstance(value, int):
        changed: object = data.draw(st.integers().filter(lambda number: number != value))
    elif isinstance(value, str):
        changed = data.draw(st.text().filter(lambda text: text != value))
    else:
        at = data.draw(st.integers(10, len(value) - 9))  # the header of gzip says nothing of the content
        changed = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
    change: Any = {name: changed}
    assert lines_of(replace(segment, **change)) is None


# --------------------------------------------------------------------------------------- chain


def test_a_whole_chain_has_no_breach() -> None:
    segments = chain(6)
    check = ChainCheck(SHARD, [anchor(segments[0]), anchor(segments[3])])
    for segment in segments:
        check.add(segment)
    check.end(segments[-1].head)
    assert check.breaches == []
    assert (check.segments, check.records, check.anchored) == (6, 18, 4)
    assert verify(SHARD, [], None) == []


def test_a_changed_record_is_found() -> None:
    segments = chain(5)
    lines = lines_of(segments[2])
    assert lines is not None
    forged = [lines[0], lines[1].replace(b"acme", b"evil"), lines[2]]
    segments[2] = replace(segments[2], records=zlib.compress(b"\n".join(forged), wbits=31))
    (breach,) = verify(SHARD, segments, segments[-1].head)
    assert (breach.shard, breach.seq, breach.damage) == (SHARD, 3, Damage.CHANGED)


def test_a_changed_record_with_a_new_hash_breaks_the_link() -> None:
    segments = chain(5)
    segments[2] = seal(SHARD, segments[1].head, segments[2].batch, [record(tenant="evil")], TIME, TIME)
    assert places(verify(SHARD, segments, segments[-1].head)) == [(4, Damage.UNLINKED)]


def test_a_rewritten_rest_is_found_by_the_head() -> None:
    segments = chain(5)
    rewritten = [seal(SHARD, segments[3].head, "other", [record(tenant="evil")], TIME, TIME)]
    assert places(verify(SHARD, segments[:4] + rewritten, segments[-1].head)) == [(5, Damage.HEAD)]


def test_a_rewritten_rest_with_its_head_is_found_by_the_anchor() -> None:
    segments = chain(5)
    other = chain(1)
    head = other[0].head
    for number in range(2, 6):
        other.append(seal(SHARD, head, f"forged-{number}", [record(tenant="evil")], TIME, TIME))
        head = other[-1].head
    assert verify(SHARD, other, head) == []  # which is why there are anchors
    found = verify(SHARD, other, head, [anchor(segments[3])])
    assert places(found) == [(4, Damage.ANCHOR)]


@pytest.mark.parametrize(("gone", "place"), [(slice(0, 1), 1), (slice(2, 3), 3), (slice(1, 4), 2)])
def test_missing_segments_are_found(gone: slice, place: int) -> None:
    segments = chain(6)
    head = segments[-1].head
    del segments[gone]
    assert places(verify(SHARD, segments, head)) == [(place, Damage.MISSING)]


def test_reordered_segments_are_found() -> None:
    segments = chain(6)
    head = segments[-1].head
    segments[2], segments[3] = segments[3], segments[2]
    assert places(verify(SHARD, segments, head)) == [(3, Damage.MISSING), (3, Damage.REORDERED)]


def test_segments_that_swapped_their_numbers_are_found() -> None:
    segments = chain(6)
    head = segments[-1].head
    segments[2], segments[3] = replace(segments[3], seq=3), replace(segments[2], seq=4)
    found = verify(SHARD, segments, head)
    assert {(3, Damage.CHANGED), (4, Damage.CHANGED)} <= set(places(found))


def test_a_stray_segment_is_found_and_hides_nothing() -> None:
    segments = chain(4)
    stray = replace(segments[1], seq=-1)
    found = verify(SHARD, [*segments[:2], stray, *segments[2:]], segments[-1].head)
    assert places(found) == [(-1, Damage.REORDERED), (-1, Damage.CHANGED)]


def test_a_tail_that_was_cut_off_is_found_by_the_head() -> None:
    segments = chain(6)
    assert places(verify(SHARD, segments[:4], segments[-1].head)) == [(5, Damage.TRUNCATED)]
    assert places(verify(SHARD, [], segments[-1].head)) == [(1, Damage.TRUNCATED)]


def test_a_tail_that_was_cut_off_with_the_head_set_back_is_found_by_the_anchor() -> None:
    segments = chain(6)
    anchors = [anchor(segments[0]), anchor(segments[5])]
    assert places(verify(SHARD, segments[:4], segments[3].head, anchors)) == [(5, Damage.TRUNCATED)]
    # A whole shard that is gone, head and all.
    assert places(verify(SHARD, [], None, anchors)) == [(1, Damage.TRUNCATED)] * 2


@pytest.mark.parametrize(
    "head",
    [None, Head(4, ""), Head(6, "0" * 64), Head(-1, "")],
    ids=["gone", "behind", "other-hash", "damaged"],
)
def test_a_head_that_disagrees_is_found(head: Head | None) -> None:
    assert places(verify(SHARD, chain(6), head)) == [(6, Damage.HEAD)]


def test_an_anchor_that_was_written_over_is_found() -> None:
    segments = chain(3)
    found = verify(SHARD, segments, segments[-1].head, [replace(anchor(segments[1]), rewritten=True)])
    assert places(found) == [(2, Damage.ANCHOR)]


def test_a_segment_of_another_shard_is_found() -> None:
    segments = chain(3)
    other = chain(3, shard="1")
    moved = [segments[0], replace(other[1], shard=SHARD), segments[2]]
    assert (2, Damage.CHANGED) in places(verify(SHARD, moved, segments[-1].head))


def test_of_very_many_breaches_the_first_are_told() -> None:
    segments = [replace(segment, records=b"") for segment in chain(120)]
    found = verify(SHARD, segments, segments[-1].head)
    assert [breach.seq for breach in found] == list(range(1, ChainCheck.MAX_BREACHES + 1))


WHOLE = chain(8)


@settings(max_examples=100)
@given(st.permutations(WHOLE), st.integers(0, 8))
def test_only_the_whole_chain_in_its_order_passes(order: list[Segment], kept: int) -> None:
    found = verify(SHARD, order[:kept], WHOLE[-1].head)
    assert (not found) is (order[:kept] == WHOLE)
