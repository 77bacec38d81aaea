"""InvokeEndpointAsync at the front: its objects, its notices, its times, with real clients and local AWS services."""

import asyncio
import json
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.sagemaker_front.app import create_app
from infra.local.sagemaker_front.endpoints import AsyncConfig, Endpoint, Endpoints
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.local.fronts import listening

PREFIX = "x-amzn-sagemaker-"
PATIENCE_S = 20
TOPICS = ("SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC")


@dataclass
class Container:
    """Answers as the payload asks; `running` counts the requests in it, `most` the most there were at once.

    One that says `hold` stays until `release`.
    """

    requests: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    async def invocations(self, request: web.Request) -> web.Response:
        payload = await request.read()
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if payload == b"hold":
                await asyncio.to_thread(self.release.wait, PATIENCE_S)
            if payload == b"hang":
                await asyncio.sleep(PATIENCE_S)
        finally:
            self.running -= 1
        if payload == b"bad":
            return web.Response(status=400, text='{"code": "bad_image"}' + " " * 5000)
        return web.Response(body=payload[::-1], headers={"Content-Type": "application/x-answer", "X-Other": "1"})

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/invocations", self.invocations)
        return app


@dataclass
class Stage:
    """A front with endpoints of every sort, and clients for all that it touches."""

    runtime: Any
    s3: Any
    sqs: Any
    bucket: str
    notices: dict[str, str]
    container: Container

    def submit(self, endpoint: str = "queue", **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.runtime.invoke_endpoint_async(EndpointName=endpoint, **arguments)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
        return answer

    def put(self, body: bytes) -> str:
        key = f"async/in/{unique('input')}"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def wait_for(self, location: str) -> dict[str, Any]:
        """The object, once it is there."""
        assert location.startswith(f"s3://{self.bucket}/")
        key = location.removeprefix(f"s3://{self.bucket}/")
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                found: dict[str, Any] = self.s3.get_object(Bucket=self.bucket, Key=key)
            except self.s3.exceptions.NoSuchKey:
                assert time.monotonic() < give_up, location
                time.sleep(0.02)
            else:
                return {**found, "Content": found["Body"].read()}

    def notice(self, which: str) -> dict[str, Any]:
        """The next notice that came to a topic's queue."""
        url = self.notices[which]
        received = self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=9)["Messages"]
        (message,) = received
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return dict(json.loads(json.loads(message["Body"])["Message"]))


def subscribed(local_aws: LocalAws) -> tuple[str, str]:
    """A topic, and the queue of what is published there."""
    session = isolated_session()
    sns, sqs = (local_client(session, service, local_aws.url) for service in ("sns", "sqs"))
    name = unique("notices")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return topic, url


@pytest.fixture(scope="module")
def stage(local_aws: LocalAws) -> Iterator[Stage]:
    session = isolated_session()
    bucket = local_aws.stack.resources["DataBucket"].name
    success, error = subscribed(local_aws), subscribed(local_aws)
    container = Container()
    config = AsyncConfig(
        f"s3://{bucket}/async/out/",
        f"s3://{bucket}/async/failed",
        success_topic=success[0],
        error_topic=error[0],
        include_in=frozenset(TOPICS),
        concurrency=2,
    )
    with listening(container.app()) as inner:
        queue = Endpoint("queue", inner, asynchronous=config)
        silent = AsyncConfig(config.output_path, concurrency=1)
        endpoints = Endpoints(
            [
                queue,
                replace(queue, name="silent", asynchronous=silent),
                replace(queue, name="narrow", asynchronous=silent),
                Endpoint("plain", inner),
                Endpoint("gone", "http://127.0.0.1:9", asynchronous=config),
            ]
        )
        with listening(create_app(endpoints, local_aws.url, queue_limit=2)) as url:
            runtime = local_client(session, "sagemaker-runtime", url)
            s3, sqs = (local_client(session, service, local_aws.url) for service in ("s3", "sqs"))
            yield Stage(runtime, s3, sqs, bucket, {"success": success[1], "error": error[1]}, container)


def test_an_input_from_s3_is_answered_there_and_a_notice_says_so(stage: Stage) -> None:
    location = stage.put(b"payload")
    answer = stage.submit(
        InputLocation=location,
        ContentType="application/x-tensors",
        Accept="application/x-answer",
        CustomAttributes="model=m",
        InferenceId="id-1",
    )
    assert answer["InferenceId"] == "id-1"
    assert answer["FailureLocation"].startswith(f"s3://{stage.bucket}/async/failed/")
    found = stage.wait_for(answer["OutputLocation"])
    assert (found["Content"], found["ContentType"]) == (b"daolyap", "application/x-answer")
    seen = dict(stage.container.requests[-1])
    assert seen.pop("host").startswith("127.0.0.1:")
    assert seen == {
        "content-length": "7",
        "content-type": "application/x-tensors",
        "accept": "application/x-answer",
        f"{PREFIX}custom-attributes": "model=m",
        f"{PREFIX}inference-id": "id-1",
    }
    notice = stage.notice("success")
    received, sent = (datetime.fromisoformat(notice.pop(name)) for name in ("receivedTime", "eventTime"))
    assert received <= sent
    assert b64decode(notice.pop("responseBody")["content"]) == b"daolyap"
    assert notice == {
        "awsRegion": "us-east-1",
        "invocationStatus": "Completed",
        "requestParameters": {
            "accept": "application/x-answer",
            "contentType": "application/x-tensors",
            "customAttributes": "model=m",
            "endpointName": "queue",
            "inputLocation": location,
        },
        "responseParameters": {"contentType": "application/x-answer", "outputLocation": answer["OutputLocation"]},
        "inferenceId": "id-1",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def test_a_small_input_may_be_in_the_call(stage: Stage) -> None:
    answer = stage.submit("silent", Body=b"inline", S3OutputPathExtension="team/a", Filename="mine.out")
    assert answer["OutputLocation"] == f"s3://{stage.bucket}/async/out/team/a/mine.out"
    assert "FailureLocation" not in answer
    assert answer["InferenceId"]
    assert stage.wait_for(answer["OutputLocation"])["Content"] == b"enilni"


def test_what_the_container_refuses_is_kept_whole_beside_the_answers(stage: Stage) -> None:
    answer = stage.submit(Body=b"bad", InferenceId="id-2")
    found = stage.wait_for(answer["FailureLocation"])
    assert found["Content"].startswith(b'{"code": "bad_image"}')
    assert len(found["Content"]) > 5000
    notice = stage.notice("error")
    assert (notice["invocationStatus"], notice["inferenceId"]) == ("Failed", "id-2")
    assert notice["failureReason"].startswith("ModelError: Received client error (400)")
    assert b64decode(notice["responseBody"]["content"]) == found["Content"]
    with pytest.raises(stage.s3.exceptions.NoSuchKey):
        stage.s3.get_object(Bucket=stage.bucket, Key=answer["OutputLocation"].partition(f"{stage.bucket}/")[2])


@pytest.mark.parametrize(
    ("endpoint", "arguments", "reason"),
    [
        ("queue", {"Body": b"hang", "InvocationTimeoutSeconds": 1}, "Your invocation timed out"),
        ("queue", {"InputLocation": "s3://no-such-bucket/input"}, "Unable to download the input"),
        ("gone", {"Body": b"x"}, "is not reachable"),
    ],
)
def test_what_cannot_be_run_is_a_failure(stage: Stage, endpoint: str, arguments: dict[str, Any], reason: str) -> None:
    answer = stage.submit(endpoint, **arguments)
    assert reason in stage.wait_for(answer["FailureLocation"])["Content"].decode()
    assert reason in stage.notice("error")["failureReason"]


def test_as_many_run_at_once_as_the_endpoint_says_and_the_queue_has_an_end(stage: Stage) -> None:
    stage.container.most = 0
    locations = [stage.submit("narrow", Body=b"hold")["OutputLocation"]]
    give_up = time.monotonic() + PATIENCE_S
    while stage.container.running == 0:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    locations += [stage.submit("narrow", Body=b"next")["OutputLocation"] for _ in range(2)]
    # The client asks once more by itself: the queue is still full then.
    with pytest.raises(stage.runtime.exceptions.ServiceUnavailable, match="queue of narrow is full"):
        stage.submit("narrow", Body=b"x")
    stage.container.release.set()
    for location in locations:
        stage.wait_for(location)
    assert stage.container.most == 1


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("plain", {"Body": b"x"}, "not an asynchronous inference endpoint"),
        ("nobody", {"Body": b"x"}, "Endpoint nobody of account 000000000000 not found"),
        ("queue", {}, "exactly one of Body and InputLocation"),
        ("queue", {"Body": b"x", "InputLocation": "s3://b/k"}, "exactly one of Body and InputLocation"),
        ("queue", {"InputLocation": "s3://bucket-alone"}, "no address of an object"),
        ("queue", {"InputLocation": "https://example.com/x"}, "no address of an object"),
        ("queue", {"Body": b"x" * 128_001}, "less than or equal to 128000"),
        ("queue", {"Body": b"x", "CustomAttributes": "two words"}, "CustomAttributes must be"),
        ("queue", {"Body": b"x", "InvocationTimeoutSeconds": 3601}, "InvocationTimeoutSeconds must be between 1 and"),
        ("queue", {"Body": b"x", "RequestTTLSeconds": 21601}, "RequestTTLSeconds must be between 60 and 21600"),
    ],
)
def test_what_sagemaker_does_not_take(stage: Stage, endpoint: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(stage.runtime.exceptions.ValidationError, match=message):
        stage.submit(endpoint, **arguments)


@pytest.mark.parametrize("operation", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_an_asynchronous_endpoint_answers_nobody_at_once(stage: Stage, operation: str) -> None:
    with pytest.raises(ClientError, match="use InvokeEndpointAsync") as raised:
        getattr(stage.runtime, operation)(EndpointName="queue", Body=b"x")
    assert raised.value.response["Error"]["Code"] == "ValidationError"


def test_what_waited_too_long_is_not_run(local_aws: LocalAws) -> None:
    """The shortest time to live is a minute, so the request is made an old one."""
    from infra.local.sagemaker_front.async_invocations import AsyncInvocations
    from infra.local.sagemaker_front.async_results import AsyncResults
    from infra.local.sagemaker_front.container_call import client_session

    bucket = local_aws.stack.resources["DataBucket"].name
    config = AsyncConfig(f"s3://{bucket}/async/out", f"s3://{bucket}/async/failed")
    endpoint = Endpoint("late", "http://127.0.0.1:9", asynchronous=config)

    async def run() -> str | None:
        async with client_session() as session:
            queues = AsyncInvocations(Endpoints([endpoint]), AsyncResults(local_aws.url), session)
            taken = queues.submit(endpoint, {"X-Amzn-SageMaker-RequestTTLSeconds": "60"}, b"x")
            old = replace(taken, received_at=taken.received_at.replace(year=2020))
            await queues.run(old, config)
            return taken.failure_location

    location = asyncio.run(run())
    assert location is not None
    s3 = local_client(isolated_session(), "s3", local_aws.url)
    found = s3.get_object(Bucket=bucket, Key=location.partition(f"{bucket}/")[2])["Body"].read()
    assert b"expired in the queue" in found
