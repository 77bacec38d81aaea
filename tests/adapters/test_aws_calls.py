"""What requests are charged for: calls, and items where DynamoDB charges by them."""

from collections.abc import Callable
from contextvars import Context, copy_context
from threading import Event, Thread
from typing import Any

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.domain.errors import BackendTimeout
from shared.usecases.deadline import DeadlineRunner
from tests.adapters.samples import unique
from tests.conftest import LocalAws


def test_calls_and_items_are_counted_until_the_next_request(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, dynamodb = watched(local_aws, monkeypatch)
    table, model = local_aws.stack.resources["ModelsTable"].name, unique("m")
    calls.start()
    items = [{"model": {"S": model}, "version": {"N": str(number)}} for number in (1, 2, 3)]
    dynamodb.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": item}} for item in items]})
    found = dynamodb.batch_get_item(RequestItems={table: {"Keys": items[:2]}})
    assert len(found["Responses"][table]) == 2
    dynamodb.transact_write_items(
        TransactItems=[{"Delete": {"TableName": table, "Key": item}} for item in items[:2]],
    )
    dynamodb.get_item(TableName=table, Key=items[2])
    assert calls.counts() == {
        "dynamodb.BatchWriteItem": 1,
        "dynamodb.BatchGetItem": 1,
        "dynamodb.TransactWriteItems": 1,
        "dynamodb.GetItem": 1,
    }
    assert calls.items() == {
        "dynamodb.BatchWriteItem": 3,
        "dynamodb.BatchGetItem": 2,
        "dynamodb.TransactWriteItems": 2,
    }
    calls.start()
    assert (calls.counts(), calls.items()) == ({}, {})


def test_calls_that_were_given_up_count_for_no_later_request(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, dynamodb = watched(local_aws, monkeypatch)
    going_on, done = Event(), Event()

    def slow() -> None:
        dynamodb.list_tables()
        going_on.wait(30)
        dynamodb.list_tables()
        done.set()

    runner = DeadlineRunner()
    calls.start()
    with pytest.raises(BackendTimeout):
        runner.run("slow", slow, 0.5)
    assert calls.counts() == {"dynamodb.ListTables": 1}
    calls.start()
    runner.run("quick", dynamodb.describe_limits, 30)
    going_on.set()
    assert done.wait(30)
    assert calls.counts() == {"dynamodb.DescribeLimits": 1}


def test_requests_at_the_same_time_have_their_own_calls(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, dynamodb = watched(local_aws, monkeypatch)
    counted: dict[str, dict[str, int]] = {}
    first_began, second_ended = Event(), Event()

    def first() -> None:
        calls.start()
        first_began.set()
        second_ended.wait(30)
        dynamodb.list_tables()
        counted["first"] = calls.counts()

    def second() -> None:
        first_began.wait(30)
        calls.start()
        dynamodb.describe_limits()
        counted["second"] = calls.counts()
        second_ended.set()

    threads = [Thread(target=copy_context().run, args=(request,)) for request in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counted == {"first": {"dynamodb.ListTables": 1}, "second": {"dynamodb.DescribeLimits": 1}}


def test_calls_on_a_thread_of_no_request_count_for_the_one_that_began_last(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, dynamodb = watched(local_aws, monkeypatch)
    calls.start()
    thread = Thread(target=_outside(dynamodb.list_tables))
    thread.start()
    thread.join(30)
    assert calls.counts() == {"dynamodb.ListTables": 1}


def _outside(call: Callable[[], Any]) -> Callable[[], None]:
    """`call` in an empty context: newer releases of Python may start threads with a copy of their maker's."""
    return lambda: Context().run(call)


def watched(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> tuple[AwsCalls, Any]:
    """Calls that are counted, and a client of DynamoDB that makes them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    session, calls = Session(), AwsCalls()
    calls.watch(session)
    return calls, client("dynamodb", session=session, endpoint_url=local_aws.url)
