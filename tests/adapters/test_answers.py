"""Stores of kept answers: one contract for both, then what is each one's own."""

import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.aws import client
from shared.adapters.dynamodb_answers import MAX_ENCODED, MAX_IN_ITEM, DynamoDBAnswers
from shared.adapters.memory_answers import MemoryAnswers
from shared.codecs.compression import compress
from shared.codecs.v2 import V2Response, V2Tensor, encode_response
from shared.domain.dtypes import DType
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from shared.domain.ports import AnswerStore
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bytes_tensor
from tests.codecs.signatures import BOUNDED
from tests.codecs.test_v2_properties import tensors
from tests.conftest import LocalAws
from tests.faults import BROKEN, CLOSED, LOST, SILENT, THROTTLED, FaultProxy

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NOW = 1_800_000_000.25


class Clock:
    """Seconds since 1970 that pass when they are told to."""

    def __init__(self) -> None:
        self.s = NOW

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(local_aws: LocalAws) -> str:
    return local_aws.stack.resources["AnswersTable"].name


@pytest.fixture
def shared(dynamodb: "DynamoDBClient", table: str, clock: Clock) -> DynamoDBAnswers:
    return DynamoDBAnswers(dynamodb, table, now=clock)


@pytest.fixture(params=["memory", "dynamodb"])
def store(request: pytest.FixtureRequest, clock: Clock) -> AnswerStore:
    if request.param == "memory":
        return MemoryAnswers(now=clock)
    found: AnswerStore = request.getfixturevalue("shared")
    return found


def new_key(tenant: str = "acme") -> str:
    return f"{tenant}/{uuid4().hex * 2}"


def of(outputs: Tensors, made_at: float = NOW) -> KeptAnswer:
    return KeptAnswer(outputs, "main", "function", made_at)


def answer(**outputs: Array) -> KeptAnswer:
    return of(outputs or {"y": np.array([[0.5, 1.5]], np.float32)})


def content(array: Array) -> object:
    return array.reshape(-1).tolist() if array.dtype == np.object_ else array.tobytes()


def assert_same(one: KeptAnswer | None, other: KeptAnswer) -> None:
    assert one is not None
    assert (one.variant, one.backend) == (other.variant, other.backend)
    assert one.made_at == pytest.approx(other.made_at, abs=0.001)
    assert list(one.outputs) == list(other.outputs)
    for name, array in other.outputs.items():
        found = one.outputs[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert content(found) == content(array)


# ----------------------------------------------------------------------------------------------------- the contract
def test_an_answer_comes_back_as_it_was(store: AnswerStore) -> None:
    key = new_key()
    assert store.get(key) is None
    outputs: dict[str, Array] = {
        "scores": np.array([[0.1, np.nan], [-0.0, np.inf]], np.float32),
        "a/b ✿": bytes_tensor([b"", b"\xff\0", "Käse".encode()]),
        "scalar": np.array(7, np.int64),
        "nothing": np.empty((0, 3), np.float64),
        "flags": np.array([True, False]),
    }
    kept = KeptAnswer(outputs, "canary", "container", NOW - 1)
    assert store.put(key, kept, 60)
    assert_same(store.get(key), kept)
    assert store.get(new_key()) is None


def test_dtypes_of_the_protocol_all_have_a_way_back(store: AnswerStore) -> None:
    kept = of({dtype.value: np.zeros(1, numpy) for dtype, numpy in NUMPY_DTYPES.items() if dtype is not DType.BYTES})
    key = new_key()
    assert store.put(key, kept, 60)
    assert_same(store.get(key), kept)


def test_an_answer_without_outputs_is_one(store: AnswerStore) -> None:
    key = new_key()
    kept = KeptAnswer({}, "main", "function", NOW)
    assert store.put(key, kept, 60)
    assert_same(store.get(key), kept)


def test_a_later_answer_takes_the_place_of_an_earlier_one(store: AnswerStore) -> None:
    key = new_key()
    store.put(key, answer(), 60)
    later = of({"z": np.array([1], np.int8)}, NOW + 5)
    assert store.put(key, later, 60)
    assert_same(store.get(key), later)


def test_an_answer_is_there_until_its_time_is_over(store: AnswerStore, clock: Clock) -> None:
    key = new_key()
    store.put(key, answer(), 60)
    clock.s += 59.9
    assert store.get(key) is not None
    clock.s += 1.1  # the table's times are whole seconds
    assert store.get(key) is None


def test_nobody_can_write_to_what_others_get(store: AnswerStore) -> None:
    key = new_key()
    store.put(key, answer(y=np.ones((2, 2), np.float32), t=bytes_tensor([b"a"])), 60)
    found = store.get(key)
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found.outputs["y"][0, 0] = 5
    mine = found.outputs
    assert isinstance(mine, dict)
    mine.clear()
    again = store.get(key)
    assert again is not None
    assert again.outputs.keys() == {"y", "t"}


def test_one_of_many_takes_the_lease(store: AnswerStore) -> None:
    key = new_key()
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.lease(key, 10), range(16)))
    assert sum(taken) == 1
    assert store.lease(new_key(), 10)


def test_a_lease_ends(store: AnswerStore, clock: Clock) -> None:
    key = new_key()
    assert store.lease(key, 10)
    clock.s += 9.9
    assert not store.lease(key, 10)
    clock.s += 0.2
    assert store.lease(key, 10)


def test_a_lease_can_be_given_back(store: AnswerStore) -> None:
    key = new_key()
    store.release(key)  # there is none
    assert store.lease(key, 10)
    store.release(key)
    assert store.lease(key, 10)
    assert not store.lease(key, 10)


def test_a_lease_is_no_answer_and_does_not_touch_one(store: AnswerStore) -> None:
    key = new_key()
    assert store.lease(key, 10)
    assert store.get(key) is None
    store.put(key, answer(), 60)
    assert not store.lease(key, 10)
    store.release(key)
    assert_same(store.get(key), answer())


# ------------------------------------------------------------------------------------------------------- in memory
def test_the_least_recently_used_answer_goes_first(clock: Clock) -> None:
    store = MemoryAnswers(max_entries=3, now=clock)
    for key in "abc":
        store.put(key, answer(), 60)
    store.get("a")
    store.put("d", answer(), 60)
    assert [key for key in "abcd" if store.get(key) is not None] == ["a", "c", "d"]
    assert len(store) == 3


def test_memory_is_bounded_by_bytes(clock: Clock) -> None:
    store = MemoryAnswers(max_bytes=100_000, now=clock)
    for number in range(50):
        assert store.put(str(number), answer(y=np.zeros(2000, np.float32)), 60)
    assert 5 < len(store) < 12
    assert store.nbytes <= 100_000
    assert store.get("49") is not None
    before = len(store)
    assert not store.put("huge", answer(y=np.zeros(10_000, np.float32)), 60)
    assert not store.put("many texts", answer(y=bytes_tensor([b""] * 1000)), 60)
    assert len(store) == before
    # What is too large does not leave the answer before it in its place.
    assert not store.put("49", answer(y=np.zeros(10_000, np.float32)), 60)
    assert store.get("49") is None


def test_what_is_counted_is_given_back(clock: Clock) -> None:
    store = MemoryAnswers(now=clock)
    for _ in range(3):
        store.put("a", answer(), 10)
    store.put("b", answer(), 20)
    clock.s += 15
    assert store.get("a") is None
    one = store.nbytes
    clock.s += 15
    assert store.get("b") is None
    assert (one > 0, store.nbytes, len(store)) == (True, 0, 0)


def test_a_view_is_kept_by_itself(clock: Clock) -> None:
    store = MemoryAnswers(now=clock)
    batch = np.arange(1_000_000, dtype=np.float32)
    store.put("a", answer(y=batch[:3]), 60)
    batch[0] = 5
    found = store.get("a")
    assert found is not None
    assert found.outputs["y"].tolist() == [0, 1, 2]
    assert found.outputs["y"].base is None
    assert store.nbytes < 10_000


def test_leases_are_bounded(clock: Clock) -> None:
    store = MemoryAnswers(now=clock)
    assert all(store.lease(str(number), 10) for number in range(5000))
    assert not store.lease("0", 10)
    # Whoever finds no room takes it all the same: an answer made twice, and nobody waits.
    assert store.lease("4999", 10)
    clock.s += 11
    assert store.lease("0", 10)
    assert store.lease("new", 10)
    assert not store.lease("new", 10)


def test_threads_share_a_memory(clock: Clock) -> None:
    store = MemoryAnswers(max_entries=20, now=clock)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for number in random.integers(0, 40, 500):
            if (found := store.get(str(number))) is not None:
                assert found.outputs["y"].tolist() == [number]
            store.put(str(number), answer(y=np.array([number])), 60)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(store) == 20
    for number in range(40):
        store.put(str(number), answer(y=np.zeros(10_000_000, np.int8)), 60)  # each is too large
    assert (len(store), store.nbytes) == (0, 0)


# ------------------------------------------------------------------------------------------------------ in DynamoDB
@pytest.fixture
def calls(dynamodb: "DynamoDBClient") -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The calls that are made."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def note(params: dict[str, Any], model: Any, **_: object) -> None:
        seen.append((model.name, params))

    dynamodb.meta.events.register("provide-client-params.dynamodb.*", note, unique_id="test-answers")
    yield seen
    dynamodb.meta.events.unregister("provide-client-params.dynamodb.*", unique_id="test-answers")


def test_each_step_is_one_call(shared: DynamoDBAnswers, calls: list[tuple[str, dict[str, Any]]]) -> None:
    key = new_key()
    shared.get(key)
    shared.lease(key, 10)
    shared.put(key, answer(), 60)
    shared.lease(key, 10)
    shared.release(key)
    shared.release(key)
    assert [name for name, _ in calls] == ["GetItem", "UpdateItem", "PutItem", "UpdateItem", "UpdateItem"]


def test_items_are_removed_by_the_table_itself(dynamodb: "DynamoDBClient", table: str, shared: DynamoDBAnswers) -> None:
    key = new_key()
    shared.put(key, answer(), 60)
    shared.lease(key, 10)
    settings = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert settings["AttributeName"] == "expires_at"
    ends = [
        int(dynamodb.get_item(TableName=table, Key={"id": {"S": name}})["Item"]["expires_at"]["N"])
        for name in (key, f"{key}#lease")
    ]
    assert NOW + 60 <= ends[0] <= NOW + 61
    assert NOW + 10 <= ends[1] <= NOW + 120


@BOUNDED
@given(st.dictionaries(st.text(min_size=1, max_size=4), tensors(), max_size=3))
def test_any_outputs_come_back(local_aws: LocalAws, dynamodb: "DynamoDBClient", outputs: dict[str, V2Tensor]) -> None:
    store = DynamoDBAnswers(dynamodb, local_aws.stack.resources["AnswersTable"].name, now=lambda: NOW)
    key = new_key()
    kept = of({name: tensor.array for name, tensor in outputs.items()})
    assert store.put(key, kept, 60)
    assert_same(store.get(key), kept)


def test_what_shrinks_is_kept_compressed(dynamodb: "DynamoDBClient", table: str, shared: DynamoDBAnswers) -> None:
    key = new_key()
    even = answer(y=np.zeros((1000, 200), np.float32))
    assert shared.put(key, even, 60)
    item = dynamodb.get_item(TableName=table, Key={"id": {"S": key}})["Item"]
    assert item["coding"] == {"S": "deflate"}
    assert len(item["outputs"]["B"]) < 10_000
    assert_same(shared.get(key), even)


@pytest.mark.parametrize(
    "large",
    [
        np.random.default_rng(1).integers(0, 256, MAX_IN_ITEM + 1, np.uint8),
        np.zeros(MAX_ENCODED // 4, np.float32),
        bytes_tensor([b"x" * MAX_ENCODED]),
        np.array([1 + 2j]),
    ],
    ids=["does not shrink", "shrinks", "text", "has no name in the protocol"],
)
def test_what_is_too_large_for_an_item_is_not_kept(
    shared: DynamoDBAnswers, calls: list[tuple[str, dict[str, Any]]], large: Array
) -> None:
    assert not shared.put(new_key(), answer(y=large), 60)
    assert calls == []


def body(key: str, outputs: Tensors | None = None) -> tuple[bytes, int]:
    arrays = {"y": np.array([1.0, 2.0], np.float32)} if outputs is None else outputs
    wire = {name: V2Tensor(DType.FP32, array) for name, array in arrays.items()}
    made, header = encode_response(V2Response("", "", wire, key), binary=True)
    assert header is not None
    return made, header


def bomb(key: str) -> bytes:
    made, _ = body(key, {"y": np.zeros(MAX_ENCODED, np.float32)})
    return compress(made, "deflate")[0]


DAMAGES: dict[str, Any] = {
    "another tenant's": lambda key: {"tenant": {"S": "globex"}},
    "no tenant's": lambda key: {"tenant": None},
    "another request's outputs": lambda key: {"outputs": {"B": body(new_key())[0]}},
    "outputs cut off": lambda key: {"outputs": {"B": body(key)[0][:-1]}},
    "outputs that go on": lambda key: {"outputs": {"B": body(key)[0] + b"x"}},
    "no outputs": lambda key: {"outputs": None},
    "outputs that are text": lambda key: {"outputs": {"S": "y"}},
    "a header of no bytes": lambda key: {"header": {"N": "0"}},
    "a header beyond the end": lambda key: {"header": {"N": "100000"}},
    "a header that is no JSON": lambda key: {"outputs": {"B": b"\0" * 300}},
    "a header that is a list": lambda key: {"outputs": {"B": b"[]"}, "header": {"N": "2"}},
    "compressed garbage": lambda key: {"coding": {"S": "deflate"}},
    "another coding": lambda key: {"coding": {"S": "br"}, "outputs": {"B": zlib.compress(body(key)[0])}},
    "a bomb": lambda key: {"coding": {"S": "deflate"}, "outputs": {"B": bomb(key)}},
    "no time": lambda key: {"made_at": None},
    "a time that is text": lambda key: {"expires_at": {"S": "soon"}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_item_is_none(
    dynamodb: "DynamoDBClient", table: str, shared: DynamoDBAnswers, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    key = new_key()
    shared.put(key, answer(), 60)
    good = dynamodb.get_item(TableName=table, Key={"id": {"S": key}})["Item"]
    changes = DAMAGES[damage](key)
    if "outputs" in changes and "header" not in changes:
        changes["header"] = {"N": str(body(key)[1])}
    item = {name: value for name, value in {**good, **changes}.items() if value is not None}
    dynamodb.put_item(TableName=table, Item=item)
    with caplog.at_level(logging.WARNING):
        assert shared.get(key) is None
    (record,) = caplog.records
    assert record.__dict__["fields"]["answer_id"] == key
    assert record.__dict__["fields"]["answer_damaged"] == 1
    # It is made anew, and then it is there.
    assert shared.put(key, answer(), 60)
    assert_same(shared.get(key), answer())


def test_a_lease_is_found_free_by_the_attempt_that_took_it(
    local_aws: LocalAws, aws_session: Session, table: str, clock: Clock
) -> None:
    with FaultProxy(local_aws.url) as proxy:
        retrying = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=2, retries=1)
        store = DynamoDBAnswers(retrying, table, now=clock)
        key = new_key()
        proxy.fail(LOST, operation="UpdateItem", times=1)
        assert store.lease(key, 10)
        assert proxy.calls["UpdateItem"] == 2
        assert not store.lease(key, 10)


def test_a_lease_of_another_is_not_given_back(
    dynamodb: "DynamoDBClient", table: str, shared: DynamoDBAnswers, clock: Clock
) -> None:
    key = new_key()
    assert shared.lease(key, 10)
    clock.s += 11
    other = DynamoDBAnswers(dynamodb, table, now=clock)
    assert other.lease(key, 10)
    shared.release(key)
    assert not shared.lease(key, 10)
    other.release(key)
    assert shared.lease(key, 10)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (BROKEN, BackendUnavailable),
        (THROTTLED, BackendUnavailable),
        (CLOSED, BackendUnavailable),
        (SILENT, BackendTimeout),
    ],
    ids=["broken", "throttled", "closed", "silent"],
)
def test_a_store_that_fails_says_so_in_time(
    local_aws: LocalAws, aws_session: Session, table: str, fault: Any, error: type[BackendError]
) -> None:
    with FaultProxy(local_aws.url) as proxy:
        short = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=0.2, retries=0)
        store = DynamoDBAnswers(short, table)
        key = new_key()
        assert store.lease(key, 10)
        proxy.fail(fault)
        started = monotonic()
        for call in (
            lambda: store.get(key),
            lambda: store.put(key, answer(), 60),
            lambda: store.lease(key, 10),
            lambda: store.release(key),
        ):
            with pytest.raises(error):
                call()
        assert monotonic() - started < 10
