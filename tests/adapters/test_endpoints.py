"""The contract of the endpoint store, held by the fake and by DynamoDB."""

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from shared.adapters.aws import client
from shared.adapters.dynamodb_endpoints import KEPT_REVISIONS, DynamoDBEndpoints
from shared.domain.endpoint.config import (
    BackendChoice,
    CacheSettings,
    EndpointConfig,
    EndpointState,
    Experiment,
    Fallback,
    Hedge,
    LogSettings,
    Retries,
    Shadow,
    StoredEndpoint,
    Threshold,
    Variant,
)
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable, PreconditionFailed, RevisionNotFound
from shared.domain.ports import EndpointReader, EndpointStore
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.fakes import InMemoryEndpoints
from tests.faults import BROKEN, LOST, SILENT, THROTTLED, Fault, FaultProxy, answers

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient

RICH = EndpointConfig(
    "rich",
    variants=(Variant("main", 1, weight=95.5), Variant("candidate", "prod", "triton", 4.5), Variant("dark", None)),
    labels={"prod": 2, "v4.2": 1},
    experiment=Experiment("colours", "header:x-user", {"main": 1.0, "candidate": 2.0}),
    shadow=Shadow("dark", 0.25),
    backends={"triton": BackendChoice("open-inference-http", {"url": "http://x", "deep": [{"a": 1.5}, None, True]})},
    retries=Retries(2, hedge=Hedge(50)),
    fallback=(
        Fallback("variant", variant="main"),
        Fallback("cached"),
        Fallback("static", outputs={"y": ["Zeichen ü"]}),
    ),
    cache=CacheSettings(60, store="dynamodb", join=True),
    thresholds={"decision": Threshold("y", 1e-7, "low", "high")},
    class_labels={"y": {"0": "ä"}},
    logging=LogSettings(0.25, 1e-7, ("age",)),
)


def tables(local_aws: LocalAws) -> tuple[str, str]:
    resources = local_aws.stack.resources
    return resources["EndpointsTable"].name, resources["GuardsTable"].name


@pytest.fixture(params=["fake", "dynamodb"])
def store(request: pytest.FixtureRequest) -> EndpointStore:
    if request.param == "fake":
        return InMemoryEndpoints()
    local_aws: LocalAws = request.getfixturevalue("local_aws")
    return DynamoDBEndpoints(cast("DynamoDBClient", request.getfixturevalue("dynamodb")), *tables(local_aws))


def stored(revision: int = 1, endpoint: str = "", **changes: Any) -> StoredEndpoint:
    config = replace(RICH, endpoint=endpoint or unique("model"), **changes)
    return StoredEndpoint(config, revision, 1_763_700_000 + revision, "k" * 16, f"note ü {revision}")


def test_what_is_put_is_found(store: EndpointStore) -> None:
    first, second = stored(), stored(variants=(Variant("main"),), labels={}, fallback=())
    for made in (first, second):
        store.put(made)
        assert store.get(made.config.endpoint) == made
        assert cast("EndpointReader", store).read(made.config.endpoint) == EndpointState(made)
        assert store.revision(made.config.endpoint, 1) == made
    listed = store.list()
    assert all(made in listed for made in (first, second))
    assert [made.config.endpoint for made in listed] == sorted(made.config.endpoint for made in listed)


@pytest.mark.parametrize("endpoint", ["absent", "", "Absent", "a" * 65, "../x"])
def test_what_is_not_stored(store: EndpointStore, endpoint: str) -> None:
    assert store.get(endpoint) is None
    assert cast("EndpointReader", store).read(endpoint) == EndpointState()
    assert list(store.history(endpoint)) == []
    for revision in (-1, 0, 1, 10**12):
        with pytest.raises(RevisionNotFound):
            store.revision(endpoint, revision)


def test_an_edit_of_what_has_changed_is_refused(store: EndpointStore) -> None:
    first = stored()
    name = first.config.endpoint
    store.put(first)
    second = stored(2, name, timeout_ms=1000)
    store.put(second)
    for late in (first, second, stored(2, name, timeout_ms=5), stored(4, name)):
        with pytest.raises(PreconditionFailed):
            store.put(late)
    assert store.get(name) == second
    assert list(store.history(name)) == [second, first]


def test_what_is_not_there_cannot_be_edited(store: EndpointStore) -> None:
    missing = stored(2)
    with pytest.raises(PreconditionFailed):
        store.put(missing)
    assert store.get(missing.config.endpoint) is None
    assert list(store.history(missing.config.endpoint)) == []


def test_the_history_is_read_in_parts_and_ends_after_a_hundred_revisions(store: EndpointStore) -> None:
    name = unique("model")
    every = [stored(number, name, timeout_ms=number) for number in range(1, KEPT_REVISIONS + 4)]
    for made in every:
        store.put(made)
    newest = every[::-1]
    assert list(store.history(name)) == newest[:20]
    assert list(store.history(name, limit=3, before=newest[2].revision)) == newest[3:6]
    assert list(store.history(name, limit=1000)) == newest[:KEPT_REVISIONS]
    assert list(store.history(name, before=1)) == []
    assert store.revision(name, 4) == every[3]
    with pytest.raises(RevisionNotFound):
        store.revision(name, 3)
    assert store.get(name) == newest[0]
    assert [made.revision for made in store.list() if made.config.endpoint == name] == [newest[0].revision]


def test_of_many_writers_one_wins_each_time(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    store, name = DynamoDBEndpoints(dynamodb, *tables(local_aws)), unique("model")
    for revision in (1, 2):
        barrier = threading.Barrier(8)
        outcomes: list[int] = []

        def put(number: int, revision: int, barrier: threading.Barrier, outcomes: list[int]) -> None:
            barrier.wait()
            try:
                store.put(stored(revision, name, timeout_ms=100 + number))
            except PreconditionFailed:
                return
            outcomes.append(100 + number)

        threads = [threading.Thread(target=put, args=(number, revision, barrier, outcomes)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1
        found = store.get(name)
        assert found is not None
        assert (found.revision, found.config.timeout_ms) == (revision, outcomes[0])
        assert store.revision(name, revision) == found


def test_open_circuits_are_read_with_the_configuration(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    endpoints, guards = tables(local_aws)
    made = stored()
    name = made.config.endpoint
    dynamodb.put_item(
        TableName=guards,
        Item={
            "endpoint": {"S": name},
            "open:triton/candidate": {"N": "1763700123.25"},
            "open:function/main": {"N": "5"},
            "slot:triton:0": {"N": "7"},
            "expires_at": {"N": "9"},
        },
    )
    expected = {"triton/candidate": 1763700123.25, "function/main": 5.0}
    store = DynamoDBEndpoints(dynamodb, endpoints, guards)
    assert store.read(name) == EndpointState(None, expected)
    store.put(made)
    assert store.read(name) == EndpointState(made, expected)
    assert DynamoDBEndpoints(dynamodb, endpoints).read(name) == EndpointState(made)


def test_a_configuration_of_another_release(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    """Members that a later release added are left out; what cannot be understood is an error, and no default."""
    endpoints, guards = tables(local_aws)
    store, name = DynamoDBEndpoints(dynamodb, endpoints, guards), unique("model")
    item: dict[str, Any] = {
        "endpoint": {"S": name},
        "revision": {"N": "0"},
        "current": {"N": "7"},
        "document": {"S": f'{{"endpoint": "{name}", "added_later": {{"x": 1}}, "timeout_ms": 5}}'},
        "changed_at": {"N": "9"},
        "changed_by": {"S": "somebody"},
        "note": {"S": ""},
    }
    dynamodb.put_item(TableName=endpoints, Item=item)
    assert store.read(name).stored == StoredEndpoint(EndpointConfig(name, timeout_ms=5), 7, 9, "somebody")
    for broken in ({"document": {"S": '{"variants": 5}'}}, {"document": {"S": "no json"}}, {"current": {"S": "x"}}):
        dynamodb.put_item(TableName=endpoints, Item=item | broken)
        with pytest.raises(BackendError, match=f"{name} cannot be read"):
            store.read(name)
    dynamodb.delete_item(TableName=endpoints, Key={"endpoint": {"S": name}, "revision": {"N": "0"}})


def test_a_table_that_is_away_or_absent(dynamodb: "DynamoDBClient", aws_session: "Session", free_port: int) -> None:
    absent = DynamoDBEndpoints(dynamodb, "absent", "absent-too")
    for call in (absent.list, lambda: absent.read("m"), lambda: absent.get("m"), lambda: absent.history("m")):
        with pytest.raises(BackendError, match="ResourceNotFoundException"):
            call()
    url = f"http://127.0.0.1:{free_port}"
    away = DynamoDBEndpoints(client("dynamodb", session=aws_session, endpoint_url=url, retries=0), "any", "other")
    for call in (lambda: away.get("model"), lambda: away.read("model"), lambda: away.put(stored())):
        with pytest.raises(BackendUnavailable):
            call()


def test_a_store_that_fails_changes_nothing_and_says_so(local_aws: LocalAws, aws_session: "Session") -> None:
    with FaultProxy(local_aws.url) as proxy:
        dynamodb = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=0.3, retries=0)
        store, first = DynamoDBEndpoints(dynamodb, *tables(local_aws)), stored()
        name = first.config.endpoint
        for fault, expected in (
            (THROTTLED, BackendUnavailable),
            (BROKEN, BackendUnavailable),
            (SILENT, BackendTimeout),
        ):
            proxy.fail(fault)
            for call in (lambda: store.put(first), lambda: store.read(name), store.list, lambda: store.history(name)):
                with pytest.raises(expected):
                    call()
            proxy.heal()
            assert store.get(name) is None
        store.put(first)
        # What was not read is not taken for what is not there.
        for table in tables(local_aws):
            proxy.fail(unprocessed(table, name), operation="BatchGetItem", times=1)
            with pytest.raises(BackendUnavailable):
                store.read(name)
        assert store.read(name).stored == first


def unprocessed(table: str, endpoint: str) -> Fault:
    """What DynamoDB answers to a batch of which it took nothing on for one of the tables."""
    left = {table: {"Keys": [{"endpoint": {"S": endpoint}}]}}
    return answers(200, json.dumps({"Responses": {}, "UnprocessedKeys": left}).encode())


def test_a_change_whose_answer_is_lost_is_made_once(local_aws: LocalAws, aws_session: "Session") -> None:
    with FaultProxy(local_aws.url) as proxy:
        dynamodb = client("dynamodb", session=aws_session, endpoint_url=proxy.url, retries=0)
        store, first = DynamoDBEndpoints(dynamodb, *tables(local_aws)), stored()
        proxy.fail(LOST, operation="TransactWriteItems", times=1)
        with pytest.raises(BackendUnavailable):
            store.put(first)
        assert store.get(first.config.endpoint) == first
        with pytest.raises(PreconditionFailed):  # who tries again is told, and reads what is there
            store.put(first)
