"""A small stack with every kind of event, its functions, and the AWS services that it is connected to."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from infra.local.events.local_events import LocalEvents
from infra.local.failed_events import FailedEventQueues
from infra.local.lambda_service.service import LambdaService
from infra.local.resources import provision
from infra.local.stack import StackSpec
from infra.local.template import load_stack
from tests.local.test_aws_services import running_services

PATIENCE_S = 30


@dataclass
class Stack:
    """The stack in the loop that it lives in; nothing moves but while one of these methods waits."""

    runner: asyncio.Runner
    spec: StackSpec
    aws_url: str
    functions: LambdaService
    events: LocalEvents
    collected: Path

    def client(self, service: str) -> Any:
        return local_client(isolated_session(), service, self.aws_url)

    def bucket(self, logical_id: str) -> str:
        return self.spec.resources[logical_id].name

    def got(self, function: str) -> list[Any]:
        """The events that a function has got."""
        files = sorted(self.collected.glob(f"{function}-*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def settle(self) -> None:
        """Wait until all that has happened so far has been dealt with."""
        mark = f"settled-{time.monotonic_ns()}"
        entry = {"Source": "tests", "DetailType": mark, "Detail": "{}"}
        self.client("events").put_events(Entries=[entry])
        # It comes last: events are taken in their order.
        self.wait_for(lambda: any(mark in text for text in self._marks))
        self.runner.run(self.functions.settle_events(PATIENCE_S))

    def wait_for(self, holds: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            self.runner.run(asyncio.sleep(0.01))

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """What is in a queue; it is taken out."""
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName=self.spec.resources[queue].name)["QueueUrl"]
        found: list[dict[str, Any]] = []
        while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
            "Messages"
        ):
            found += batch
            for message in batch:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    @property
    def failures(self) -> list[str]:
        """What the function that always fails has logged of it."""
        log = self.collected.parent / "Failing.log"
        return [line for line in log.read_text().splitlines() if "bad luck" in line] if log.exists() else []

    @property
    def _marks(self) -> list[str]:
        return [json.dumps(event) for event in self.got("Settled")]


def small_stack(collected: Path) -> StackSpec:
    """`stack.yaml`, whose functions write to `collected`."""
    collected.mkdir()
    return load_stack(
        Path(__file__).parent / "stack.yaml", stack_name="events", parameters={"Collected": str(collected)}
    )


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> tuple[StackSpec, Path]:
    folder = tmp_path_factory.mktemp("events")
    return small_stack(folder / "collected"), folder


@pytest.fixture(scope="session")
def stack(spec: tuple[StackSpec, Path]) -> Iterator[Stack]:
    """The stack, with a clock that does not fire."""
    resolved, folder = spec
    with running_services("http://127.0.0.1:9", "--events") as url, asyncio.Runner() as runner:
        provision(resolved, url, on_progress=lambda _: None)

        async def make() -> tuple[LambdaService, LocalEvents]:
            functions = LambdaService(
                resolved.functions,
                base_environment={"AWS_ENDPOINT_URL": url},
                log_dir=folder,
                max_environments=2,
                event_retry_delays_s=(0.01, 0.01),
                failed_events=FailedEventQueues(url),
            )
            return functions, LocalEvents(resolved.events, functions, url, url, fires_schedules=False)

        functions, events = runner.run(make())
        yield Stack(runner, resolved, url, functions, events, folder / "collected")
        runner.run(events.close())
        runner.run(functions.close())
