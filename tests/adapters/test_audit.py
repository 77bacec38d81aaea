"""The audit chain in DynamoDB and S3: what the ledger promises, on the fake, too, and what those who tamper leave."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger, DynamoDBAuditTrail
from shared.adapters.s3_anchors import S3Anchors
from shared.domain.audit import MAX_COUNTER_ITEMS, MAX_SHARDS, Anchor, Appended, Head, Segment, genesis, seal
from shared.domain.audit_check import Damage, verify
from shared.domain.endpoint.traffic_counts import TrafficKey
from shared.domain.errors import BackendError, BackendUnavailable
from shared.domain.usage import Usage, UsageKey
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.faults import LOST, THROTTLED, FaultProxy, answers
from tests.log_lines import InMemoryLedger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

TIME = "2026-11-21T12:00:00.000Z"


class Ledger(Protocol):
    """Both sides of the chain."""

    def head(self, shard: str) -> Head | None: ...
    def append(
        self,
        segment: Segment,
        before: Head,
        usage: Mapping[UsageKey, Usage],
        traffic: Mapping[TrafficKey, Mapping[str, int]],
    ) -> Appended: ...
    def segments(self, shard: str, after: int = 0) -> Iterable[Segment]: ...
    def newest(self, shard: str) -> Iterable[Segment]: ...


class DynamoDBLedger(DynamoDBAuditLedger, DynamoDBAuditTrail):
    """Writes and reads the stores of the template."""

    def __init__(self, dynamodb: "DynamoDBClient", audit_table: str, usage_table: str, traffic_table: str) -> None:
        DynamoDBAuditLedger.__init__(self, dynamodb, audit_table, usage_table, traffic_table)
        self._table = audit_table


@pytest.fixture(scope="module")
def tables(local_aws: LocalAws) -> tuple[str, str, str]:
    resources = local_aws.stack.resources
    return resources["AuditTable"].name, resources["UsageTable"].name, resources["TrafficTable"].name


@pytest.fixture
def dynamodb_ledger(dynamodb: "DynamoDBClient", tables: tuple[str, str, str]) -> DynamoDBLedger:
    return DynamoDBLedger(dynamodb, *tables)


@pytest.fixture(params=["fake", "dynamodb"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    made: Ledger = InMemoryLedger() if request.param == "fake" else request.getfixturevalue("dynamodb_ledger")
    return made


def after(head: Head, shard: str, batch: str | None = None) -> Segment:
    return seal(shard, head, batch or unique("b"), [b'{"kind":"request"}'] * 2, TIME, TIME)


def fill(ledger: Ledger, shard: str, count: int) -> list[Segment]:
    head, made = genesis(shard), []
    for _ in range(count):
        made.append(after(head, shard))
        assert ledger.append(made[-1], head, {}, {}) is Appended.WRITTEN
        head = made[-1].head
    return made


# -------------------------------------------------------------------------------- the contract


def test_a_new_shard_has_no_head(ledger: Ledger) -> None:
    shard = unique("s")
    assert ledger.head(shard) is None
    assert list(ledger.segments(shard)) == []


def test_segments_come_back_as_they_were_written(ledger: Ledger) -> None:
    shard = unique("s")
    made = fill(ledger, shard, 5)
    assert list(ledger.segments(shard)) == made
    assert list(ledger.segments(shard, after=3)) == made[3:]
    assert list(ledger.newest(shard)) == made[::-1]
    assert ledger.head(shard) == made[-1].head
    assert verify(shard, ledger.segments(shard), ledger.head(shard)) == []


def test_a_batch_is_written_once(ledger: Ledger) -> None:
    shard, other, batch = unique("s"), unique("s"), unique("b")
    first = after(genesis(shard), shard, batch)
    assert ledger.append(first, genesis(shard), {}, {}) is Appended.WRITTEN
    assert ledger.append(first, genesis(shard), {}, {}) is Appended.DUPLICATE
    assert ledger.append(after(first.head, shard, batch), first.head, {}, {}) is Appended.DUPLICATE
    assert ledger.append(after(genesis(other), other, batch), genesis(other), {}, {}) is Appended.DUPLICATE
    assert list(ledger.segments(shard)) == [first]
    assert ledger.head(other) is None


def test_a_head_that_moved_on_is_not_written_over(ledger: Ledger) -> None:
    shard = unique("s")
    first, second = fill(ledger, shard, 2)
    for before in (genesis(shard), first.head, Head(2, "other"), Head(3, second.hash)):
        assert ledger.append(after(before, shard), before, {}, {}) is Appended.OVERTAKEN
    assert list(ledger.segments(shard)) == [first, second]
    assert ledger.append(after(second.head, shard), second.head, {}, {}) is Appended.WRITTEN


# ---------------------------------------------------------------------------------- DynamoDB


def test_usage_is_added_with_the_segment_or_not_at_all(
    dynamodb_ledger: DynamoDBLedger, dynamodb: "DynamoDBClient", tables: tuple[str, str, str]
) -> None:
    shard, tenant = unique("s"), unique("t")
    used = Usage(1, 0, 2, 100, 50, 1500, 700)
    usage = {UsageKey(tenant, "day#2026-11-21"): used, UsageKey(tenant, "month#2026-11"): used}
    first = after(genesis(shard), shard)
    assert dynamodb_ledger.append(first, genesis(shard), usage, {}) is Appended.WRITTEN
    assert dynamodb_ledger.append(first, genesis(shard), usage, {}) is Appended.DUPLICATE
    assert dynamodb_ledger.append(after(genesis(shard), shard), genesis(shard), usage, {}) is Appended.OVERTAKEN
    assert dynamodb_ledger.append(after(first.head, shard), first.head, usage, {}) is Appended.WRITTEN
    item = dynamodb.get_item(TableName=tables[1], Key={"tenant": {"S": tenant}, "period": {"S": "month#2026-11"}})
    numbers = {name: int(value["N"]) for name, value in item["Item"].items() if "N" in value}
    assert numbers == {
        "requests": 2,
        "errors": 0,
        "rows": 4,
        "bytes_in": 200,
        "bytes_out": 100,
        "model_us": 3000,
        "cost_nusd": 1400,
    }


def test_one_transaction_takes_so_much_usage(dynamodb_ledger: DynamoDBLedger, dynamodb: "DynamoDBClient") -> None:
    shard = unique("s")
    first = after(genesis(shard), shard)
    usage = {UsageKey(unique("t"), f"day#{number}"): Usage(1) for number in range(MAX_COUNTER_ITEMS + 1)}
    with pytest.raises(ValueError, match="98 keys"):
        dynamodb_ledger.append(first, genesis(shard), usage, {})
    usage.popitem()
    one = {TrafficKey(shard, "day#2026-11-21#0"): {"variant#main#requests": 1}}
    with pytest.raises(ValueError, match="98 keys"):
        dynamodb_ledger.append(first, genesis(shard), usage, one)
    usage.popitem()
    assert dynamodb_ledger.append(first, genesis(shard), usage, one) is Appended.WRITTEN


def test_the_mark_of_a_batch_outlives_every_queue(
    dynamodb: "DynamoDBClient", tables: tuple[str, str, str], local_aws: LocalAws
) -> None:
    shard, batch = unique("s"), unique("b")
    DynamoDBAuditLedger(dynamodb, *tables, now=lambda: 1_800_000_000.7).append(
        after(genesis(shard), shard, batch), genesis(shard), {}, {}
    )
    mark = dynamodb.get_item(TableName=tables[0], Key={"shard": {"S": f"batch#{batch}"}, "seq": {"N": "0"}})["Item"]
    assert mark["expires_at"] == {"N": str(1_800_000_000 + 15 * 86_400)}
    ttl = local_aws.stack.resources["AuditTable"].properties["TimeToLiveSpecification"]
    assert ttl["AttributeName"] == "expires_at"
    assert "expires_at" not in dynamodb.get_item(TableName=tables[0], Key={"shard": {"S": shard}, "seq": {"N": "1"}})


def test_one_of_many_writers_wins(dynamodb_ledger: DynamoDBLedger) -> None:
    shard = unique("s")
    with ThreadPoolExecutor(max_workers=8) as pool:
        won = list(
            pool.map(lambda _: dynamodb_ledger.append(after(genesis(shard), shard), genesis(shard), {}, {}), range(8))
        )
    assert sorted(won) == [Appended.OVERTAKEN] * 7 + [Appended.WRITTEN]
    assert verify(shard, dynamodb_ledger.segments(shard), dynamodb_ledger.head(shard)) == []


def test_the_shards_are_those_with_a_head_or_a_first_segment(
    dynamodb_ledger: DynamoDBLedger, dynamodb: "DynamoDBClient", tables: tuple[str, str, str]
) -> None:
    for shard in ("62", str(MAX_SHARDS - 1)):
        head = dynamodb_ledger.head(shard) or genesis(shard)
        dynamodb_ledger.append(after(head, shard), head, {}, {})
    dynamodb.delete_item(TableName=tables[0], Key={"shard": {"S": "63"}, "seq": {"N": "0"}})
    found = dynamodb_ledger.shards()
    assert found[-2:] == ["62", "63"]
    assert found == sorted(found, key=int)


def test_what_was_tampered_with_is_read_as_it_is(
    dynamodb_ledger: DynamoDBLedger, dynamodb: "DynamoDBClient", tables: tuple[str, str, str]
) -> None:
    shard = unique("s")
    fill(dynamodb_ledger, shard, 3)
    broken: list[dict[str, Any]] = [
        {"seq": {"N": "2"}},
        {"seq": {"N": "2.5"}, "hash": {"N": "3"}, "records": {"S": "text"}},
        {"seq": {"N": "3"}, "count": {"N": "-1e5"}, "records": {"B": b"\x1f\x8b"}},
        {"seq": {"N": "0"}, "hash": {"BOOL": True}},
    ]
    for item in broken:
        dynamodb.put_item(TableName=tables[0], Item={"shard": {"S": shard}, **item})
    found = verify(shard, dynamodb_ledger.segments(shard), dynamodb_ledger.head(shard))
    assert {(2, Damage.CHANGED), (-1, Damage.REORDERED), (3, Damage.CHANGED), (3, Damage.HEAD)} <= {
        (breach.seq, breach.damage) for breach in found
    }


def test_many_segments_are_read_page_by_page(dynamodb_ledger: DynamoDBLedger) -> None:
    shard, lines = unique("s"), [b"{}"]
    head = genesis(shard)
    # Some 270 KB each, so that a page of a megabyte ends in between.
    for number in range(6):
        made = replace(seal(shard, head, unique("b"), lines, TIME, TIME), records=bytes(270_000))
        assert dynamodb_ledger.append(made, head, {}, {}) is Appended.WRITTEN
        head = made.head
        assert made.seq == number + 1
    assert [segment.seq for segment in dynamodb_ledger.segments(shard)] == [1, 2, 3, 4, 5, 6]
    assert [segment.seq for segment in dynamodb_ledger.newest(shard)] == [6, 5, 4, 3, 2, 1]


def cancelled(*codes: str) -> bytes:
    return json.dumps(
        {
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": "Transaction cancelled",
            "CancellationReasons": [{"Code": code} for code in codes],
        }
    ).encode()


FAILED = "ConditionalCheckFailed"


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        ((FAILED, "None", "None"), Appended.DUPLICATE),
        ((FAILED, FAILED, FAILED), Appended.DUPLICATE),
        (("None", FAILED, "None"), Appended.OVERTAKEN),
        (("None", "None", FAILED), Appended.OVERTAKEN),
        (("None", "None", "None", "TransactionConflict"), Appended.OVERTAKEN),
        (("TransactionConflict", "TransactionConflict", "None"), Appended.OVERTAKEN),
        (("None", "None", "None", "ThrottlingError"), BackendUnavailable),
        (("None", "ProvisionedThroughputExceeded", "None"), BackendUnavailable),
        (("None", "None", "None", "ValidationError"), BackendError),
        ((), BackendError),
    ],
)
def test_why_a_transaction_was_cancelled(
    local_aws: LocalAws, aws_session: Session, tables: tuple[str, str, str], codes: tuple[str, ...], outcome: Any
) -> None:
    with FaultProxy(local_aws.url) as proxy:
        proxied = DynamoDBAuditLedger(
            client("dynamodb", session=aws_session, endpoint_url=proxy.url, retries=0), *tables
        )
        proxy.fail(answers(400, cancelled(*codes)), operation="TransactWriteItems")
        shard = unique("s")
        if isinstance(outcome, Appended):
            assert proxied.append(after(genesis(shard), shard), genesis(shard), {}, {}) is outcome
            return
        with pytest.raises(outcome) as raised:
            proxied.append(after(genesis(shard), shard), genesis(shard), {}, {})
        assert type(raised.value) is outcome


def test_a_lost_answer_leaves_the_batch_written_once(
    local_aws: LocalAws, aws_session: Session, tables: tuple[str, str, str], dynamodb_ledger: DynamoDBLedger
) -> None:
    shard = unique("s")
    first = after(genesis(shard), shard)
    usage = {UsageKey(shard, "day#2026-11-21"): Usage(1)}
    with FaultProxy(local_aws.url) as proxy:
        proxied = DynamoDBAuditLedger(
            client("dynamodb", session=aws_session, endpoint_url=proxy.url, retries=0), *tables
        )
        proxy.fail(LOST, operation="TransactWriteItems", times=1)
        with pytest.raises(BackendUnavailable):
            proxied.append(first, genesis(shard), usage, {})
        assert proxied.append(first, genesis(shard), usage, {}) is Appended.DUPLICATE
        proxy.fail(THROTTLED, operation="TransactWriteItems")
        with pytest.raises(BackendUnavailable):
            proxied.append(after(first.head, shard), first.head, usage, {})
    assert list(dynamodb_ledger.segments(shard)) == [first]


# ----------------------------------------------------------------------------------- anchors


@pytest.fixture
def bucket(local_aws: LocalAws) -> str:
    return local_aws.stack.resources["AuditBucket"].name


@pytest.fixture
def anchors(s3: "S3Client", bucket: str) -> S3Anchors:
    return S3Anchors(s3, bucket)


def test_an_anchor_is_written_once(anchors: S3Anchors, s3: "S3Client", bucket: str) -> None:
    shard = unique("s")
    first = Anchor(shard, 7, "a" * 64, TIME)
    assert anchors.latest(shard, after=0) is None
    assert anchors.add(first) is True
    assert anchors.add(first) is True  # an attempt that had done it already
    assert anchors.add(replace(first, hash="b" * 64)) is False
    assert list(anchors.of_shard(shard)) == [first]
    stored = s3.get_object(Bucket=bucket, Key=f"anchors/{shard}/000000000007.json")
    assert json.loads(stored["Body"].read()) == {"shard": shard, "seq": 7, "hash": "a" * 64, "time": TIME}
    assert shard in anchors.shards()


def test_the_latest_anchor_is_found_among_the_next(anchors: S3Anchors, s3: "S3Client", bucket: str) -> None:
    shard = unique("s")
    for seq in (1, 1001, 2000):
        anchors.add(Anchor(shard, seq, "a" * 64, TIME))
    s3.put_object(Bucket=bucket, Key=f"anchors/{shard}/notes.txt", Body=b"")
    for after_seq, expected in ((-5, 2000), (1000, 2000), (1999, 2000)):
        found = anchors.latest(shard, after=after_seq)
        assert found is not None
        assert found[0] == expected
    assert anchors.latest(shard, after=2000) is None


def test_what_was_done_to_an_anchor_is_told(anchors: S3Anchors, s3: "S3Client", bucket: str) -> None:
    shard = unique("s")
    whole = [Anchor(shard, seq, f"{seq:064d}", TIME) for seq in range(1, 5)]
    for anchor in whole:
        anchors.add(anchor)

    def key(seq: int) -> str:
        return f"anchors/{shard}/{seq:012d}.json"

    forged = json.dumps({"shard": shard, "seq": 2, "hash": "f" * 64, "time": TIME}).encode()
    s3.put_object(Bucket=bucket, Key=key(2), Body=forged)
    s3.delete_object(Bucket=bucket, Key=key(3))
    for seq, body in ((5, b"not JSON"), (6, b"[1]"), (7, forged), (8, b'{"hash": 3}')):
        s3.put_object(Bucket=bucket, Key=key(seq), Body=body)
    found = list(anchors.of_shard(shard))
    assert found[:4] == [
        whole[0],
        replace(whole[1], rewritten=True),
        replace(whole[2], rewritten=True),
        whole[3],
    ]
    assert [(anchor.seq, anchor.hash) for anchor in found[4:]] == [(5, ""), (6, ""), (7, ""), (8, "")]


def test_a_bucket_out_of_reach_is_told(aws_session: Session, free_port: int) -> None:
    s3 = client("s3", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable, match="store of anchors"):
        S3Anchors(s3, "bucket").add(Anchor("0", 1, "a", TIME))
