import http.client
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.aws_services import Atomic

THREADS = 16
TRIES = 208
LIMIT = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_services(port: int, lambda_url: str, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "infra.local.aws_services", "--port", str(port), "--lambda-url", lambda_url]
    command += options
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/moto-api/data.json")
            if connection.getresponse().status == 200:
                return process
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    process.kill()
    output, _ = process.communicate()
    raise AssertionError(f"the AWS services did not start: {output.decode()}")


@contextmanager
def running_services(lambda_url: str, *options: str) -> Iterator[str]:
    """The real process on a free port; its address."""
    port = free_port()
    process = start_services(port, lambda_url, *options)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert output == b"", "the server must be quiet"


class LambdaService(http.server.BaseHTTPRequestHandler):
    """What the local Lambda service looks like from outside: it records the call and echoes the payload."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - read by the tests

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("X-Amz-Executed-Version", "$LATEST")
        if b"fail" in payload:
            self.send_header("X-Amz-Function-Error", "Unhandled")
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def lambda_url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), LambdaService)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def aws_url(lambda_url: str) -> Iterator[str]:
    with running_services(lambda_url) as url:
        yield url


def clients(service: str, url: str) -> list[Any]:
    """One real client for each thread, as each function process has its own."""
    session = isolated_session()
    return [local_client(session, service, url, read_timeout_s=60) for _ in range(THREADS)]


def outcomes(attempt: Callable[[Any, int], None], callers: list[Any]) -> list[str]:
    """The results of TRIES attempts from all callers at once: `ok`, or the code of the error."""

    def run(caller: int) -> list[str]:
        results = []
        for number in range(caller, TRIES, THREADS):
            try:
                attempt(callers[caller], number)
            except ClientError as error:
                results.append(error.response["Error"]["Code"])
            else:
                results.append("ok")
        return results

    with ThreadPoolExecutor(THREADS) as pool:
        return [result for results in pool.map(run, range(THREADS)) for result in results]


def table(url: str, name: str, **item: Any) -> Any:
    dynamodb = local_client(isolated_session(), "dynamodb", url)
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    dynamodb.put_item(TableName=name, Item={"id": {"S": "counter"}, "used": {"N": "0"}, **item})
    return dynamodb


def used(dynamodb: Any, name: str) -> int:
    item = dynamodb.get_item(TableName=name, Key={"id": {"S": "counter"}}, ConsistentRead=True)["Item"]
    return int(item["used"]["N"])


INCREMENT: dict[str, Any] = {
    "Key": {"id": {"S": "counter"}},
    "UpdateExpression": "SET used = used + :one",
    "ConditionExpression": "used < :limit",
    "ExpressionAttributeValues": {":one": {"N": "1"}, ":limit": {"N": str(LIMIT)}},
}


def test_conditional_updates_are_atomic(aws_url: str) -> None:
    dynamodb = table(aws_url, "updates")

    def attempt(client: Any, _: int) -> None:
        client.update_item(TableName="updates", **INCREMENT)

    results = outcomes(attempt, clients("dynamodb", aws_url))
    assert results.count("ok") == LIMIT
    assert results.count("ConditionalCheckFailedException") == TRIES - LIMIT
    assert used(dynamodb, "updates") == LIMIT


def test_transactions_are_atomic(aws_url: str) -> None:
    dynamodb = table(aws_url, "transactions")

    def attempt(client: Any, number: int) -> None:
        marker = {"id": {"S": f"marker-{number}"}}
        client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": "transactions", "Item": marker}},
                {"Update": {"TableName": "transactions", **INCREMENT}},
            ]
        )

    results = outcomes(attempt, clients("dynamodb", aws_url))
    assert results.count("ok") == LIMIT
    assert results.count("TransactionCanceledException") == TRIES - LIMIT
    assert used(dynamodb, "transactions") == LIMIT
    # Each that was cancelled has left nothing, each that went through has left its marker.
    assert dynamodb.scan(TableName="transactions", Select="COUNT")["Count"] == LIMIT + 1


@pytest.mark.parametrize("sort_key", [False, True])
def test_a_cancelled_transaction_leaves_everything_as_it_was(aws_url: str, sort_key: bool) -> None:
    name = f"cancelled-{sort_key}"
    dynamodb = local_client(isolated_session(), "dynamodb", aws_url)
    keys = [("id", "HASH"), ("at", "RANGE")] if sort_key else [("id", "HASH")]
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )

    def key(text: str) -> dict[str, Any]:
        return {attribute: {"S": text} for attribute, _ in keys}

    for text in ("replaced", "updated", "deleted"):
        dynamodb.put_item(TableName=name, Item={**key(text), "list": {"L": [{"N": "1"}]}})
    writes: list[Any] = [
        {"Put": {"TableName": name, "Item": key("new")}},
        {"Put": {"TableName": name, "Item": {**key("replaced"), "list": {"L": []}}}},
        {
            "Update": {
                "TableName": name,
                "Key": key("updated"),
                "UpdateExpression": "SET #l = list_append(#l, :more)",
                "ExpressionAttributeNames": {"#l": "list"},
                "ExpressionAttributeValues": {":more": {"L": [{"N": "2"}]}},
            }
        },
        {"Delete": {"TableName": name, "Key": key("deleted")}},
    ]
    never = {"TableName": name, "Key": key("absent"), "ConditionExpression": "attribute_exists(id)"}
    before = dynamodb.scan(TableName=name)["Items"]
    with pytest.raises(ClientError) as refused:
        dynamodb.transact_write_items(TransactItems=[*writes, {"ConditionCheck": never}])
    assert refused.value.response["Error"]["Code"] == "TransactionCanceledException"
    after = dynamodb.scan(TableName=name)["Items"]
    assert sorted(map(str, after)) == sorted(map(str, before))
    dynamodb.transact_write_items(TransactItems=writes)
    assert {item["id"]["S"] for item in dynamodb.scan(TableName=name)["Items"]} == {"new", "replaced", "updated"}


def test_a_conditional_delete_succeeds_once(aws_url: str) -> None:
    dynamodb = table(aws_url, "deletes")

    def attempt(client: Any, _: int) -> None:
        client.delete_item(
            TableName="deletes", Key={"id": {"S": "counter"}}, ConditionExpression="attribute_exists(id)"
        )

    results = outcomes(attempt, clients("dynamodb", aws_url))
    assert results.count("ok") == 1
    assert "Item" not in dynamodb.get_item(TableName="deletes", Key={"id": {"S": "counter"}})


def test_a_reader_never_sees_half_an_update_or_a_cancelled_transaction(aws_url: str) -> None:
    table(aws_url, "pairs", left={"N": "0"}, right={"N": "0"})
    both = {
        "Key": {"id": {"S": "counter"}},
        "UpdateExpression": "SET #l = #l + :one, #r = #r + :one",
        "ExpressionAttributeNames": {"#l": "left", "#r": "right"},
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    never = {
        "TableName": "pairs",
        "Key": {"id": {"S": "other"}},
        "ConditionExpression": "attribute_exists(id)",
    }
    torn: list[Any] = []

    def attempt(client: Any, number: int) -> None:
        if number % 3 == 0:
            client.update_item(TableName="pairs", **both)
        elif number % 3 == 1:
            put = {"TableName": "pairs", "Item": {"id": {"S": "counter"}, "left": {"N": "-1"}, "right": {"N": "0"}}}
            client.transact_write_items(TransactItems=[{"Put": put}, {"ConditionCheck": never}])
        else:
            items = client.scan(TableName="pairs", ConsistentRead=True)["Items"]
            torn.extend(item for item in items if item["left"] != item["right"])

    results = outcomes(attempt, clients("dynamodb", aws_url))
    assert torn == []
    assert set(results) == {"ok", "TransactionCanceledException"}


def test_an_object_that_must_not_exist_is_written_once(aws_url: str) -> None:
    callers = clients("s3", aws_url)
    callers[0].create_bucket(Bucket="once")

    def attempt(client: Any, number: int) -> None:
        client.put_object(Bucket="once", Key="owner", Body=str(number).encode(), IfNoneMatch="*")

    results = outcomes(attempt, callers)
    assert results.count("ok") == 1
    assert set(results) == {"ok", "PreconditionFailed"}


class Overlap:
    """A WSGI application that records how many calls were ever in it at once; each stays a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.03)
        yield b"an answer is rendered while it is iterated"
        with self._lock:
            self._inside -= 1


def signed(service: str, method: str, target: str = "") -> dict[str, str]:
    scope = f"AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/{service}/aws4_request, Signature=0"
    return {"REQUEST_METHOD": method, "HTTP_AUTHORIZATION": scope} | ({"HTTP_X_AMZ_TARGET": target} if target else {})


@pytest.mark.parametrize(
    ("environ", "is_serialised"),
    [
        (signed("dynamodb", "POST", "DynamoDB_20120810.UpdateItem"), True),
        (signed("dynamodb", "POST", "DynamoDB_20120810.GetItem"), True),
        (signed("dynamodb", "POST", "DynamoDBStreams_20120810.GetRecords"), True),
        (signed("s3", "PUT"), True),
        (signed("s3", "DELETE"), True),
        ({"REQUEST_METHOD": "PUT"}, True),
        (signed("s3", "GET"), False),
        (signed("sqs", "POST", "AmazonSQS.ReceiveMessage"), False),
        (signed("sns", "POST"), False),
    ],
)
def test_what_waits_for_one_another(environ: dict[str, str], is_serialised: bool) -> None:
    overlap = Overlap()
    app = Atomic(overlap)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: b"".join(app(dict(environ), lambda *_: lambda _: None)), range(8)))
    assert answers == [b"an answer is rendered while it is iterated"] * 8
    assert (overlap.most == 1) is is_serialised


@pytest.mark.parametrize("size", [0, 1, 12 * 1024 * 1024])
def test_objects_of_any_size_come_back_as_they_went(aws_url: str, size: int) -> None:
    s3 = local_client(isolated_session(), "s3", aws_url)
    s3.create_bucket(Bucket="sizes")
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    s3.put_object(Bucket="sizes", Key=f"{size}", Body=body)
    assert s3.get_object(Bucket="sizes", Key=f"{size}")["Body"].read() == body


def test_a_presigned_upload_goes_through(aws_url: str) -> None:
    s3 = local_client(isolated_session(), "s3", aws_url)
    s3.create_bucket(Bucket="presigned")
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "presigned", "Key": "k"})
    connection = http.client.HTTPConnection(aws_url.removeprefix("http://"), timeout=20)
    connection.request("PUT", url.removeprefix(aws_url), body=iter([b"in ", b"chunks"]))
    assert connection.getresponse().status == 200
    connection.close()
    assert s3.get_object(Bucket="presigned", Key="k")["Body"].read() == b"in chunks"


def test_invoke_reaches_the_lambda_service(aws_url: str) -> None:
    client = local_client(isolated_session(), "lambda", aws_url)
    answer = client.invoke(FunctionName="sluice-Fn", Qualifier="live", LogType="Tail", Payload=b'{"a": 1}')
    assert json.load(answer["Payload"]) == {"a": 1}
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    path, headers = LambdaService.seen[-1]
    assert path == "/2015-03-31/functions/sluice-Fn/invocations?Qualifier=live"
    assert headers["x-amz-log-type"] == "Tail"

    arn = "arn:aws:lambda:us-east-1:000000000000:function:sluice-Fn"
    failed = client.invoke(FunctionName=arn, InvocationType="Event", Payload=b'"fail"')
    assert failed["FunctionError"] == "Unhandled"
    path, headers = LambdaService.seen[-1]
    assert (
        path == "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Asluice-Fn/invocations"
    )
    assert headers["x-amz-invocation-type"] == "Event"


def test_invoke_limits_the_payload_as_lambda_does(aws_url: str) -> None:
    client = local_client(isolated_session(), "lambda", aws_url)
    seen = len(LambdaService.seen)
    with pytest.raises(client.exceptions.RequestTooLargeException):
        client.invoke(FunctionName="sluice-Fn", Payload=b'"' + b"x" * 6 * 1024 * 1024 + b'"')
    assert len(LambdaService.seen) == seen


def test_a_lambda_service_that_is_gone_is_lambda_s_own_error_and_sigterm_ends_at_once() -> None:
    port = free_port()
    process = start_services(port, f"http://127.0.0.1:{free_port()}")
    client = local_client(isolated_session(), "lambda", f"http://127.0.0.1:{port}")
    with pytest.raises(client.exceptions.ServiceException, match="does not answer"):
        client.invoke(FunctionName="sluice-Fn")
    idle = socket.create_connection(("127.0.0.1", port))  # an open connection must not hold the end up
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    idle.close()
    assert process.returncode == -signal.SIGTERM
    assert output == b""


def test_connections_are_kept(aws_url: str) -> None:
    connection = http.client.HTTPConnection(aws_url.removeprefix("http://"), timeout=20)
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert b"ListAllMyBucketsResult" in answer.read()
        assert (answer.status, answer.version) == (200, 11)
        sockets.add(connection.sock)
    assert len(sockets) == 1
    assert None not in sockets
    connection.close()


def test_a_service_may_be_elsewhere_and_the_rest_is_here(aws_url: str, lambda_url: str) -> None:
    session = isolated_session()
    with running_services(lambda_url, "--service", f"s3={aws_url}") as url:
        here, there = local_client(session, "s3", url), local_client(session, "s3", aws_url)
        here.create_bucket(Bucket="passed-on")
        body = bytes(range(256)) * 5000
        here.put_object(Bucket="passed-on", Key="a key/with: signs", Body=body)
        assert there.get_object(Bucket="passed-on", Key="a key/with: signs")["Body"].read() == body
        assert here.head_object(Bucket="passed-on", Key="a key/with: signs")["ContentLength"] == len(body)
        keys = [{"AttributeName": "id", "KeyType": "HASH"}]
        types = [{"AttributeName": "id", "AttributeType": "S"}]
        tables = local_client(session, "dynamodb", url)
        tables.create_table(TableName="Here", KeySchema=keys, AttributeDefinitions=types, BillingMode="PAY_PER_REQUEST")
        assert "Here" in tables.list_tables()["TableNames"]
        assert "Here" not in local_client(session, "dynamodb", aws_url).list_tables()["TableNames"]


def test_a_presigned_request_finds_a_service_that_is_elsewhere(aws_url: str, lambda_url: str) -> None:
    session = isolated_session()
    with running_services(lambda_url, "--service", f"s3={aws_url}") as url:
        here, there = local_client(session, "s3", url), local_client(session, "s3", aws_url)
        here.create_bucket(Bucket="presigned-elsewhere")
        place = {"Bucket": "presigned-elsewhere", "Key": "a key"}
        put = here.generate_presigned_url("put_object", Params={**place, "ContentType": "a/b"})
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        for kind, status in (("a/b", 200), ("text/html", 403)):
            connection.request("PUT", put.removeprefix(url), body=b"body", headers={"Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
        connection.close()
        found = there.get_object(**place)
        assert (found["Body"].read(), found["ContentType"]) == (b"body", "a/b")


def test_a_service_that_is_not_there_is_told(lambda_url: str) -> None:
    with running_services(lambda_url, "--service", f"s3=http://127.0.0.1:{free_port()}") as url:
        client = local_client(isolated_session(), "s3", url)
        with pytest.raises(ClientError, match=r"does not answer|ServiceException|500"):
            client.list_buckets()
