"""The contract of the endpoint store, held by the fake and by DynamoDB."""

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from shared.adapters.aws import client
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.domain.endpoint_settings import EndpointSettings
from shared.domain.errors import BackendError, BackendUnavailable, Conflict
from shared.domain.ports import EndpointStore
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.fakes import InMemoryEndpoints

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient


def table(local_aws: LocalAws) -> str:
    return local_aws.stack.resources["EndpointsTable"].name


@pytest.fixture(params=["fake", "dynamodb"])
def store(request: pytest.FixtureRequest) -> EndpointStore:
    if request.param == "fake":
        return InMemoryEndpoints()
    local_aws: LocalAws = request.getfixturevalue("local_aws")
    return DynamoDBEndpoints(cast("DynamoDBClient", request.getfixturevalue("dynamodb")), table(local_aws))


def settings(**changes: Any) -> EndpointSettings:
    made = EndpointSettings(unique("model"), log_inputs=0.25, log_outputs=1e-7, redact=("age", "Zeichen ü"), version=1)
    return replace(made, **changes)


def test_what_is_put_is_found(store: EndpointStore) -> None:
    first, second = settings(), settings(log_inputs=1.0, redact=())
    for made in (first, second):
        store.put(made)
        assert store.get(made.endpoint) == made
    listed = store.list()
    assert {first, second} <= set(listed)
    assert [made.endpoint for made in listed] == sorted(made.endpoint for made in listed)


@pytest.mark.parametrize("endpoint", ["absent", "", "Absent", "a" * 65, "../x"])
def test_what_is_not_stored(store: EndpointStore, endpoint: str) -> None:
    assert store.get(endpoint) is None


def test_an_edit_of_what_has_changed_is_refused(store: EndpointStore) -> None:
    first = settings()
    store.put(first)
    second = replace(first, log_inputs=0.5, version=2)
    store.put(second)
    for late in (first, replace(second, log_outputs=0.5), replace(second, version=4)):
        with pytest.raises(Conflict):
            store.put(late)
    assert store.get(first.endpoint) == second


def test_what_is_not_there_cannot_be_edited(store: EndpointStore) -> None:
    with pytest.raises(Conflict):
        store.put(settings(version=2))


def test_of_many_first_settings_one_wins(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    store = DynamoDBEndpoints(dynamodb, table(local_aws))
    first, barrier = settings(), threading.Barrier(8)
    outcomes: list[bool] = []

    def put(number: int) -> None:
        barrier.wait()
        try:
            store.put(replace(first, log_inputs=number / 10))
            outcomes.append(True)
        except Conflict:
            outcomes.append(False)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_a_table_that_is_away_or_absent(dynamodb: "DynamoDBClient", aws_session: "Session", free_port: int) -> None:
    with pytest.raises(BackendError, match="ResourceNotFoundException"):
        DynamoDBEndpoints(dynamodb, "absent").list()
    url = f"http://127.0.0.1:{free_port}"
    away = DynamoDBEndpoints(client("dynamodb", session=aws_session, endpoint_url=url, retries=0), "any")
    with pytest.raises(BackendUnavailable):
        away.get("model")
    with pytest.raises(BackendUnavailable):
        away.put(settings())
