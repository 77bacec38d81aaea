"""A small stack of queues and streams, at work."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from infra.local.event_sources.sources import EventSources
from infra.local.event_sources.specs import EventSourceSpec
from infra.local.lambda_service.service import LambdaService
from infra.local.resources import provision
from infra.local.stack import StackSpec
from infra.local.template import load_stack
from tests.conftest import ROOT, LocalAws

LIMIT_S = 30.0

TEMPLATE = """\
Transform: AWS::Serverless-2016-10-31
Resources:
  Work:
    Type: AWS::Serverless::Function
    Properties:
      Handler: tests.local.event_sources.handlers.work
      Runtime: python3.13
      CodeUri: CODE
      MemorySize: 256
      Timeout: 20
      Environment: {Variables: {INBOX: FOLDER}}
      Events:
"""


def load(text: str, folder: Path, name: str) -> StackSpec:
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("CODE", str(ROOT)).replace("FOLDER", str(folder)))
    return load_stack(path, stack_name=name)


@dataclass
class Work:
    """A running stack, with the loop that it lives in; nothing happens but while a test waits for something."""

    runner: asyncio.Runner
    stack: StackSpec
    url: str
    folder: Path
    service: LambdaService
    sources: EventSources
    sqs: Any = field(init=False)
    dynamodb: Any = field(init=False)

    def __post_init__(self) -> None:
        session = isolated_session()
        self.sqs = local_client(session, "sqs", self.url)
        self.dynamodb = local_client(session, "dynamodb", self.url)

    # ------------------------------------------------------------ what has happened
    def events(self, source: str) -> list[list[dict[str, Any]]]:
        """The records of each event that the function got from a resource (a logical id), in order."""
        arn = self.arn(source)
        kept = (json.loads(path.read_text())["event"]["Records"] for path in sorted(self.folder.glob("*.json")))
        return [records for records in kept if records[0]["eventSourceARN"].startswith(arn)]

    def bodies(self, source: str) -> list[Any]:
        return [json.loads(record["body"]) for records in self.events(source) for record in records]

    def arn(self, source: str) -> str:
        resource = self.stack.resources[source]
        kind = "sqs:us-east-1:000000000000:" if "SQS" in resource.type else "dynamodb:us-east-1:000000000000:table/"
        return f"arn:aws:{kind}{resource.name}"

    def until(self, holds: Callable[[], bool]) -> None:
        """Let the stack work until something holds."""

        async def wait() -> None:
            deadline = time.monotonic() + LIMIT_S
            while not await asyncio.to_thread(holds):
                assert time.monotonic() < deadline, "it has not come true"
                await asyncio.sleep(0.02)

        self.runner.run(wait())

    def turn(self, seconds: float) -> None:
        """Let the stack work for some time, in which nothing more should happen."""
        self.runner.run(asyncio.sleep(seconds))

    # ------------------------------------------------------------ queues
    def queue_url(self, queue: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=self.stack.resources[queue].name)["QueueUrl"])

    def send(self, queue: str, *bodies: Any, **options: Any) -> list[str]:
        """Send messages; their ids."""
        url = self.queue_url(queue)
        texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        return [self.sqs.send_message(QueueUrl=url, MessageBody=text, **options)["MessageId"] for text in texts]

    def counts(self, queue: str) -> tuple[int, int]:
        """Messages that wait, and messages in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue_url(queue), AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def give_back(self, queue: str) -> None:
        """Have the messages that the function has failed on come again now, and not after the visibility timeout."""
        url = self.queue_url(queue)
        for record in (record for records in self.events(queue) for record in records):
            with contextlib.suppress(self.sqs.exceptions.ClientError):  # gone, or given back before
                self.sqs.change_message_visibility(
                    QueueUrl=url, ReceiptHandle=record["receiptHandle"], VisibilityTimeout=0
                )

    def receive(self, queue: str) -> list[dict[str, Any]]:
        url = self.queue_url(queue)
        found = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"])
        messages: list[dict[str, Any]] = found.get("Messages", [])
        return messages

    # ------------------------------------------------------------ tables
    def put(self, table: str, key: str, **order: Any) -> None:
        item = {"id": {"S": key}, "order": {"S": json.dumps(order)}}
        self.dynamodb.put_item(TableName=self.stack.resources[table].name, Item=item)

    def keys(self, source: str) -> list[list[str]]:
        """The keys of the items in each event of a table's stream."""
        return [[record["dynamodb"]["Keys"]["id"]["S"] for record in records] for records in self.events(source)]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def started(
    local_aws: LocalAws, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Work]]:
    """Starts a stack: `started("name", events, resources)`, both indented as in a template."""
    running: list[Work] = []

    def start(
        name: str,
        events: str,
        resources: str,
        *,
        specs: tuple[EventSourceSpec, ...] | None = None,
        visibility_s: int | None = None,
        **options: Any,
    ) -> Work:
        folder = tmp_path_factory.mktemp(name)
        text = TEMPLATE + indented(events, 8) + indented(resources, 2)
        stack = load(text, folder, name)
        provision(stack, local_aws.url, on_progress=lambda _line: None)
        if visibility_s is not None:  # a shorter one than Lambda allows for
            sqs = local_client(isolated_session(), "sqs", local_aws.url)
            for queue in stack.of_type("AWS::SQS::Queue"):
                url = sqs.get_queue_url(QueueName=queue.name)["QueueUrl"]
                sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(visibility_s)})

        async def make() -> tuple[LambdaService, EventSources]:
            service = LambdaService(stack.functions, base_environment={}, log_dir=folder, **options)
            sources = EventSources(stack.event_sources if specs is None else specs, service, local_aws.url)
            await sources.start()
            return service, sources

        work = Work(runner, stack, local_aws.url, folder, *runner.run(make()))
        running.append(work)
        return work

    yield start
    for work in running:
        runner.run(work.sources.close())
        runner.run(work.service.close())


def indented(text: str, spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}\n" for line in dedent(text).strip("\n").splitlines())
