"""`PowertoolsIdempotency` on the stores of the template: what comes back when, who may write, what is stored."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyPersistenceLayerError
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.errors import (
    BackendTimeout,
    IdempotencyInFlight,
    IdempotencyMismatch,
    IdempotencyUnavailable,
    InvalidIdempotencyKey,
)
from shared.domain.idempotency import IdempotencyScope, StoredAnswer, record_id
from shared.domain.ports import IdempotencyStore
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.faults import BROKEN, CLOSED, LOST, SILENT, THROTTLED, Fault, FaultProxy, answers, throttled

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

SCOPE = IdempotencyScope("acme", "POST /v1/models/{model}/predict", "tumor")
DIGEST = sha256(b"payload").digest()
OTHER = sha256(b"another payload").digest()
ANSWER = StoredAnswer(200, (("content-type", "application/json"), ("x-request-id", "r1")), b'{"predictions": [1]}')
BINARY = StoredAnswer(200, (("content-type", "application/octet-stream"),), bytes(range(256)))
LARGE = StoredAnswer(200, (("content-type", "application/octet-stream"),), bytes(range(256)) * 2048)
PEPPER = b"pepper" * 6
MINUTE_MS = 60_000


@dataclass
class Work:
    """Counts how often it is done."""

    answer: StoredAnswer = ANSWER
    error: Exception | None = None
    first: Callable[[], object] = lambda: None
    done: int = field(default=0, init=False)

    def __call__(self) -> StoredAnswer:
        self.done += 1
        self.first()
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass
class Door:
    """One store and one key: `__call__` is a request with it."""

    store: IdempotencyStore
    dynamodb: "DynamoDBClient"
    s3: "S3Client"
    table: str
    bucket: str
    key: str = field(default_factory=lambda: unique("key"))

    def __call__(
        self,
        work: Callable[[], StoredAnswer],
        *,
        digest: bytes = DIGEST,
        remaining_ms: int = MINUTE_MS,
        scope: IdempotencyScope = SCOPE,
        seal_with: bytes | None = None,
    ) -> tuple[StoredAnswer, bool]:
        return self.store.run(scope, self.key, digest, remaining_ms, work, seal_with=seal_with)

    @property
    def id(self) -> str:
        return record_id(SCOPE, self.key)

    def record(self) -> dict[str, Any] | None:
        found: dict[str, Any] = dict(self.dynamodb.get_item(TableName=self.table, Key={"id": {"S": self.id}}))
        return found.get("Item")

    def objects(self) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"idempotency/{self.id}/")
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def change(self, name: str, value: int) -> None:
        self.dynamodb.update_item(
            TableName=self.table,
            Key={"id": {"S": self.id}},
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": {"N": str(value)}},
        )

    def abandon(self) -> None:
        """Let the deadline of the run that has the key pass."""
        self.change("in_progress_expiration", int(time.time() * 1000) - 1000)


@pytest.fixture
def names(local_aws: LocalAws) -> tuple[str, str]:
    resources = local_aws.stack.resources
    return resources["IdempotencyTable"].name, resources["DataBucket"].name


@pytest.fixture
def door(dynamodb: "DynamoDBClient", s3: "S3Client", names: tuple[str, str]) -> Door:
    table, bucket = names
    return Door(PowertoolsIdempotency(dynamodb, table, lambda: s3, bucket, 24), dynamodb, s3, table, bucket)


@pytest.fixture
def proxy(local_aws: LocalAws) -> Iterator[FaultProxy]:
    with FaultProxy(local_aws.url) as found:
        yield found


@pytest.fixture
def through(proxy: FaultProxy, door: Door, aws_session: Session) -> Callable[..., Door]:
    """The same key and stores, reached through the proxy, with so many retries."""

    def build(retries: int = 0) -> Door:
        dynamodb = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=0.5, retries=retries)
        s3 = client("s3", session=aws_session, endpoint_url=proxy.url, read_timeout=0.5, retries=retries)
        store = PowertoolsIdempotency(dynamodb, door.table, lambda: s3, door.bucket, 24)
        return Door(store, door.dynamodb, door.s3, door.table, door.bucket, door.key)

    return build


def must_not_run() -> StoredAnswer:
    raise AssertionError("the work was done again")


# What comes back


@pytest.mark.parametrize("answer", [ANSWER, BINARY, LARGE, StoredAnswer(204, (), b"")])
@pytest.mark.parametrize("seal_with", [None, PEPPER])
def test_the_same_request_has_the_same_answer(door: Door, answer: StoredAnswer, seal_with: bytes | None) -> None:
    assert door(Work(answer), seal_with=seal_with) == (answer, False)
    for _ in range(2):
        assert door(must_not_run, seal_with=seal_with) == (answer, True)


def test_another_payload_is_refused_once_it_is_answered_and_while_it_is(door: Door) -> None:
    def meanwhile() -> None:
        with pytest.raises(IdempotencyMismatch):
            door(must_not_run, digest=OTHER)

    door(Work(first=meanwhile))
    with pytest.raises(IdempotencyMismatch, match="used for another request"):
        door(must_not_run, digest=OTHER)
    assert door(must_not_run) == (ANSWER, True)


def test_a_request_in_flight_is_to_be_asked_for_again_soon(door: Door) -> None:
    waits: list[float | None] = []

    def meanwhile() -> None:
        with pytest.raises(IdempotencyInFlight) as refused:
            door(must_not_run)
        waits.append(refused.value.retry_after_s)

    work = Work(first=meanwhile)
    assert door(work) == (ANSWER, False)
    assert waits == [1.0]
    assert work.done == 1


def test_long_work_is_asked_for_less_often(door: Door) -> None:
    waits: list[float | None] = []

    def meanwhile() -> None:
        door.change("started", int(time.time() * 1000) - 20_000)
        with pytest.raises(IdempotencyInFlight) as refused:
            door(must_not_run)
        waits.append(refused.value.retry_after_s)

    door(Work(first=meanwhile))
    assert waits == [5.0]


@pytest.mark.parametrize(
    "scope",
    [
        IdempotencyScope("other", SCOPE.route, SCOPE.model),
        IdempotencyScope(SCOPE.tenant, "POST /v1/admin/keys", SCOPE.model),
        IdempotencyScope(SCOPE.tenant, SCOPE.route, "digits"),
    ],
)
def test_a_key_counts_in_its_scope_only(door: Door, scope: IdempotencyScope) -> None:
    door(Work())
    mine = StoredAnswer(200, (), b"mine")
    assert door(Work(mine), scope=scope) == (mine, False)
    assert door(must_not_run) == (ANSWER, True)


def test_another_key_is_another_request(door: Door) -> None:
    door(Work())
    assert Door(door.store, door.dynamodb, door.s3, door.table, door.bucket)(Work())[1] is False


def test_a_key_that_is_none_is_refused_before_anything_is_done(door: Door) -> None:
    work = Work()
    with pytest.raises(InvalidIdempotencyKey):
        door.store.run(SCOPE, "a key", DIGEST, MINUTE_MS, work)
    assert work.done == 0


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_refusal_is_passed_on_and_frees_the_key(door: Door, status: int) -> None:
    refusal = StoredAnswer(status, (("retry-after", "1"),), b"{}")
    assert door(Work(refusal)) == (refusal, False)
    assert door.record() is None
    assert door(Work()) == (ANSWER, False)


def test_an_error_is_passed_on_and_frees_the_key(door: Door) -> None:
    error = BackendTimeout("too slow")
    with pytest.raises(BackendTimeout) as raised:
        door(Work(error=error))
    assert raised.value is error
    assert door.record() is None


def test_an_answer_ends_with_its_hours_whether_or_not_dynamodb_has_deleted_it(door: Door) -> None:
    door(Work())
    record = door.record()
    assert record is not None
    assert abs(int(record["expiration"]["N"]) - time.time() - 24 * 3600) < 60
    door.change("expiration", int(time.time()) - 10)
    again = StoredAnswer(200, (), b"again")
    assert door(Work(again), digest=OTHER) == (again, False)


# How much it costs


def test_a_first_request_takes_two_calls_and_a_replay_one(
    local_aws: LocalAws, aws_session: Session, s3: "S3Client", names: tuple[str, str]
) -> None:
    calls: Counter[str] = Counter()
    counted = client("dynamodb", session=aws_session, endpoint_url=local_aws.url)
    counted.meta.events.register("before-send", lambda event_name, **_: calls.update([event_name.split(".")[-1]]))
    store = PowertoolsIdempotency(counted, names[0], lambda: pytest.fail("S3 is not needed"), names[1], 24)
    key = unique("key")
    store.run(SCOPE, key, DIGEST, MINUTE_MS, Work())
    assert calls == {"PutItem": 1, "UpdateItem": 1}
    calls.clear()
    store.run(SCOPE, key, DIGEST, MINUTE_MS, must_not_run)
    assert calls == {"PutItem": 1}
    calls.clear()
    with pytest.raises(BackendTimeout):
        store.run(SCOPE, unique("key"), DIGEST, MINUTE_MS, Work(error=BackendTimeout("slow")))
    assert calls == {"PutItem": 1, "DeleteItem": 1}


# What is stored


def test_the_key_is_not_stored_and_a_small_answer_is_in_the_item(door: Door) -> None:
    door(Work())
    record = door.record()
    assert record is not None
    assert record.keys() == {
        "id", "status", "owner", "validation", "started", "in_progress_expiration", "expiration", "data"
    }  # fmt: skip
    assert door.key not in str(record)
    assert json.loads(record["data"]["S"])["text"] == ANSWER.body.decode()
    assert door.objects() == []


def test_a_large_answer_is_in_the_bucket_under_its_owner(door: Door) -> None:
    door(Work(LARGE))
    record = door.record()
    assert record is not None
    assert "data" not in record
    assert door.objects() == [f"idempotency/{door.id}/{record['owner']['S']}"] == [record["object"]["S"]]
    stored = door.s3.get_object(Bucket=door.bucket, Key=record["object"]["S"])["Body"].read()
    assert sha256(stored).hexdigest() == record["sha256"]["S"]


@pytest.mark.parametrize("padding", [0, 300_000])
def test_a_sealed_answer_opens_with_its_key_and_secret_only(door: Door, padding: int) -> None:
    secret = StoredAnswer(201, (), b'{"api_key": "sluice_abc_secret"}' + b" " * padding)
    door(Work(secret), seal_with=PEPPER)
    record = door.record()
    assert record is not None
    at_rest = (
        door.s3.get_object(Bucket=door.bucket, Key=record["object"]["S"])["Body"].read()
        if padding
        else record["data"]["B"]
    )
    assert b"secret" not in at_rest
    assert b"sluice_" not in at_rest
    assert door(must_not_run, seal_with=PEPPER) == (secret, True)
    for other in (None, b"another pepper"):
        with pytest.raises(IdempotencyUnavailable, match="sealed"):
            door(must_not_run, seal_with=other)


def test_a_sealed_answer_does_not_open_in_another_record(door: Door) -> None:
    door(Work(), seal_with=PEPPER)
    there = Door(door.store, door.dynamodb, door.s3, door.table, door.bucket)
    there(Work(), seal_with=PEPPER)
    moved = door.record()
    assert moved is not None
    door.dynamodb.put_item(TableName=door.table, Item=moved | {"id": {"S": there.id}})
    with pytest.raises(IdempotencyUnavailable, match="sealed with another secret"):
        there(must_not_run, seal_with=PEPPER)


def test_an_answer_cannot_be_sealed_with_nothing(door: Door) -> None:
    with pytest.raises(ValueError, match="empty secret"):
        door(must_not_run, seal_with=b"")


def test_a_stored_answer_that_is_gone_is_not_made_again(door: Door) -> None:
    door(Work(LARGE))
    door.s3.delete_object(Bucket=door.bucket, Key=door.objects()[0])
    with pytest.raises(IdempotencyUnavailable, match="its object is gone") as refused:
        door(must_not_run)
    assert refused.value.retry_after_s is None


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b" "])
def test_a_stored_answer_that_is_damaged_is_not_given(door: Door, change: Callable[[bytes], bytes]) -> None:
    door(Work(LARGE))
    at = door.objects()[0]
    content = door.s3.get_object(Bucket=door.bucket, Key=at)["Body"].read()
    door.s3.put_object(Bucket=door.bucket, Key=at, Body=change(content))
    with pytest.raises(IdempotencyUnavailable, match="other bytes"):
        door(must_not_run)


# Who may write: runs that outlive their deadline


def overtaken_by(door: Door, newer: Callable[[], object]) -> Callable[[], object]:
    """What happens while the first run works: its deadline passes, and a newer one comes."""

    def meanwhile() -> None:
        door.abandon()
        newer()

    return meanwhile


def test_a_run_that_was_overtaken_gives_the_newer_answer_and_leaves_the_record(door: Door) -> None:
    newer = StoredAnswer(200, (), b"newer")
    old = Work(first=overtaken_by(door, lambda: door(Work(newer))))
    assert door(old) == (newer, True)
    assert old.done == 1
    assert door(must_not_run) == (newer, True)


def test_a_large_answer_of_an_overtaken_run_does_not_replace_the_newer_one(door: Door) -> None:
    newer = StoredAnswer(200, (), LARGE.body[::-1])
    assert door(Work(LARGE, first=overtaken_by(door, lambda: door(Work(newer))))) == (newer, True)
    assert door(must_not_run) == (newer, True)


def test_a_run_that_was_overtaken_and_fails_leaves_the_newer_record(door: Door) -> None:
    newer = StoredAnswer(200, (), b"newer")
    with pytest.raises(BackendTimeout):
        door(Work(error=BackendTimeout("slow"), first=overtaken_by(door, lambda: door(Work(newer)))))
    assert door(must_not_run) == (newer, True)


@pytest.mark.parametrize(("fault", "outcome"), [(None, IdempotencyInFlight), (BackendTimeout("slow"), BackendTimeout)])
def test_a_run_that_was_overtaken_by_one_in_flight_leaves_it_alone(
    door: Door, fault: Exception | None, outcome: type[Exception]
) -> None:
    at_work, may_end = Event(), Event()
    newer = StoredAnswer(200, (), b"newer")

    def old_first() -> None:
        at_work.set()
        assert may_end.wait(30)

    with ThreadPoolExecutor(1) as other:
        old = other.submit(door, Work(error=fault, first=old_first))
        assert at_work.wait(30)
        door.abandon()
        ended: list[BaseException | None] = []

        def let_old_end() -> None:
            may_end.set()
            ended.append(old.exception(30))

        assert door(Work(newer, first=let_old_end)) == (newer, False)
    assert isinstance(ended[0], outcome)
    assert door(must_not_run) == (newer, True)


def test_a_run_that_was_overtaken_by_one_that_failed_stores_its_own_answer(door: Door) -> None:
    old = Work(first=overtaken_by(door, lambda: door(Work(StoredAnswer(503, (), b"{}")))))
    assert door(old) == (ANSWER, False)
    assert old.done == 1
    assert door(must_not_run) == (ANSWER, True)


def test_a_run_that_was_overtaken_by_another_request_has_lost_its_key(door: Door) -> None:
    newer = StoredAnswer(200, (), b"newer")
    with pytest.raises(IdempotencyMismatch):
        door(Work(first=overtaken_by(door, lambda: door(Work(newer), digest=OTHER))))
    assert door(must_not_run, digest=OTHER) == (newer, True)


# When the stores fail


@pytest.mark.parametrize("fault", [THROTTLED, throttled("ThrottlingException"), BROKEN, SILENT, CLOSED])
def test_nothing_runs_without_the_store(proxy: FaultProxy, through: Callable[..., Door], fault: Fault) -> None:
    proxy.fail(fault, operation="PutItem")
    work = Work()
    with pytest.raises(IdempotencyUnavailable, match="try again with the same key") as refused:
        through()(work)
    assert refused.value.retry_after_s == 1.0
    assert work.done == 0
    proxy.heal()
    assert through()(work) == (ANSWER, False)


def test_nothing_runs_if_aws_refuses_the_call(proxy: FaultProxy, through: Callable[..., Door]) -> None:
    proxy.fail(throttled("AccessDeniedException"), operation="PutItem")
    with pytest.raises(IdempotencyUnavailable):
        through()(must_not_run)


def test_a_first_write_whose_answer_was_lost_is_known_again(proxy: FaultProxy, through: Callable[..., Door]) -> None:
    proxy.fail(LOST, operation="PutItem", times=1)
    assert through(1)(Work()) == (ANSWER, False)
    assert proxy.calls == {"PutItem": 2, "UpdateItem": 1}
    assert through()(must_not_run) == (ANSWER, True)


def test_a_first_write_that_arrives_late_does_not_undo_the_answer(
    door: Door, local_aws: LocalAws, aws_session: Session
) -> None:
    sent: list[dict[str, Any]] = []
    watched = client("dynamodb", session=aws_session, endpoint_url=local_aws.url)
    watched.meta.events.register(
        "provide-client-params.dynamodb.PutItem", lambda params, **_: sent.append(dict(params))
    )
    PowertoolsIdempotency(watched, door.table, lambda: door.s3, door.bucket, 24).run(
        SCOPE, door.key, DIGEST, MINUTE_MS, Work()
    )
    with pytest.raises(door.dynamodb.exceptions.ConditionalCheckFailedException):
        door.dynamodb.put_item(**sent[0])
    assert door(must_not_run) == (ANSWER, True)


def test_a_first_write_that_nobody_heard_of_takes_the_key_until_the_deadline(
    proxy: FaultProxy, through: Callable[..., Door], door: Door
) -> None:
    proxy.fail(LOST, operation="PutItem", times=1)
    with pytest.raises(IdempotencyUnavailable):
        through()(must_not_run)
    with pytest.raises(IdempotencyInFlight):
        door(must_not_run)
    door.abandon()
    assert door(Work()) == (ANSWER, False)


def test_a_last_write_whose_answer_was_lost_is_written_again(proxy: FaultProxy, through: Callable[..., Door]) -> None:
    proxy.fail(LOST, operation="UpdateItem", times=1)
    assert through(1)(Work()) == (ANSWER, False)
    assert through()(must_not_run) == (ANSWER, True)


@pytest.mark.parametrize("fault", [THROTTLED, BROKEN, SILENT, CLOSED])
def test_an_answer_that_cannot_be_stored_is_given_and_the_key_taken_until_the_deadline(
    proxy: FaultProxy, through: Callable[..., Door], door: Door, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.fail(fault, operation="UpdateItem")
    with caplog.at_level(logging.WARNING, "shared"):
        assert through()(Work()) == (ANSWER, False)
    assert fields_of(caplog) == [{"idempotency_not_stored": 1, "idempotency_id": door.id}]
    assert door.key not in caplog.text
    with pytest.raises(IdempotencyInFlight):
        door(must_not_run)
    door.abandon()
    assert door(Work()) == (ANSWER, False)


def test_a_large_answer_that_the_bucket_does_not_take_is_given(
    proxy: FaultProxy, through: Callable[..., Door], door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.fail(answers(503), operation="PUT")
    with caplog.at_level(logging.WARNING, "shared"):
        assert through()(Work(LARGE)) == (LARGE, False)
    assert fields_of(caplog) == [{"idempotency_not_stored": 1, "idempotency_id": door.id}]
    record = door.record()
    assert record is not None
    assert record["status"]["S"] == "INPROGRESS"


def test_a_large_answer_that_the_bucket_does_not_give_is_unavailable_for_now(
    proxy: FaultProxy, through: Callable[..., Door], door: Door
) -> None:
    door(Work(LARGE))
    proxy.fail(answers(503), operation="GET")
    with pytest.raises(IdempotencyUnavailable) as refused:
        through()(must_not_run)
    assert refused.value.retry_after_s == 1.0
    proxy.heal()
    assert through()(must_not_run) == (LARGE, True)


def test_a_failure_is_passed_on_even_if_the_key_cannot_be_freed(
    proxy: FaultProxy, through: Callable[..., Door], door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.fail(THROTTLED, operation="DeleteItem")
    refusal = StoredAnswer(503, (), b"{}")
    with caplog.at_level(logging.WARNING, "shared"):
        assert through()(Work(refusal)) == (refusal, False)
    assert [fields["idempotency_not_freed"] for fields in fields_of(caplog)] == [1]
    door.abandon()
    assert door(Work()) == (ANSWER, False)


def test_an_overtaken_run_gives_no_answer_of_its_own_if_the_store_fails_then(
    proxy: FaultProxy, through: Callable[..., Door], door: Door
) -> None:
    newer = StoredAnswer(200, (), b"newer")

    def newer_then_broken() -> None:
        door(Work(newer))
        proxy.fail(BROKEN, operation="PutItem")

    with pytest.raises(IdempotencyUnavailable):
        through()(Work(first=overtaken_by(door, newer_then_broken)))
    assert door(must_not_run) == (newer, True)


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_store(door: Door) -> None:
    door(Work())
    door.dynamodb.update_item(
        TableName=door.table,
        Key={"id": {"S": door.id}},
        UpdateExpression="REMOVE #data",
        ExpressionAttributeNames={"#data": "data"},
    )
    with pytest.raises(IdempotencyPersistenceLayerError) as raised:
        door(must_not_run)
    assert isinstance(raised.value.__cause__, KeyError)


def fields_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record)["fields"] for record in caplog.records]
