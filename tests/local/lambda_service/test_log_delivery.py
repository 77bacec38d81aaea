import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import CloudWatchLogsEvent
from aws_lambda_powertools.utilities.data_classes.cloud_watch_logs_event import CloudWatchLogsDecodedData
from aws_lambda_powertools.utilities.parser.models import CloudWatchLogsModel

from infra.local.log_delivery import delivery
from infra.local.log_delivery.delivery import LogDelivery
from infra.local.stack import LogSubscriptionSpec
from tests.local.lambda_service.conftest import Lambda, function

GROUP = "/aws/lambda/stack/lines"
REQUEST = '{"message": "request", "number": %d}'
STREAM = re.compile(r"\d{4}/\d\d/\d\d/stack-talk\[\$LATEST\][0-9a-f]{32}")


class Subscribed:
    """Functions `talk` and `flood`, whose request lines go to `collect`, which writes them to a file."""

    def __init__(self, service: Lambda, subscriptions: LogDelivery, collected: Path) -> None:
        self.service = service
        self.subscriptions = subscriptions
        self._collected = collected

    def close(self) -> None:
        self.service.runner.run(self.subscriptions.close(30.0))

    def talk(self, *lines: str) -> str:
        stream = json.loads(self.service.invoke("talk", {"lines": lines}).payload)
        assert isinstance(stream, str)
        return stream

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return (
            [json.loads(line) for line in self._collected.read_text().splitlines()] if self._collected.exists() else []
        )

    @property
    def batches(self) -> list[CloudWatchLogsDecodedData]:
        return [CloudWatchLogsEvent(attempt["event"]).parse_logs_data() for attempt in self.attempts]

    @property
    def messages(self) -> list[str]:
        return [event.message for batch in self.batches for event in batch.log_events]


@pytest.fixture
def subscribe(start: Any, tmp_path: Path) -> Iterator[Callable[..., Subscribed]]:
    started: list[Subscribed] = []

    def begin(pattern: str = '{ $.message = "request" }', **environment: str) -> Subscribed:
        collected = tmp_path / "collected"
        names = ("talk", "flood")
        sources = [function(name, f"logs.{name}", log_group=GROUP, timeout_s=30.0) for name in names]
        variables = {"COLLECTED": str(collected), **environment}
        sink = function("collect", "logs.collect", environment=variables, timeout_s=30.0)
        service = start(*sources, sink, event_retry_delays_s=(0.05, 0.1))
        spec = LogSubscriptionSpec("lines", GROUP, pattern, names, "collect")

        async def make() -> LogDelivery:
            return LogDelivery([spec], service.service)

        started.append(Subscribed(service, service.runner.run(make()), collected))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def test_lines_arrive_as_cloudwatch_logs_sends_them(subscribe: Callable[..., Subscribed]) -> None:
    stack = subscribe()
    stream = stack.talk("plain text", REQUEST % 1, '{"message": "other"}', REQUEST % 2)
    stack.close()
    (attempt,) = stack.attempts
    parsed = CloudWatchLogsModel.model_validate(attempt["event"]).awslogs.decoded_data
    assert (parsed.messageType, parsed.owner, parsed.logGroup) == ("DATA_MESSAGE", "000000000000", GROUP)
    assert (parsed.logStream, parsed.subscriptionFilters) == (stream, ["lines"])
    assert STREAM.fullmatch(stream)
    assert [event.message for event in parsed.logEvents] == [f"{REQUEST % 1}\n", f"{REQUEST % 2}\n"]
    ids = [event.id for event in parsed.logEvents]
    assert all(re.fullmatch(r"\d{56}", each) for each in ids)
    assert ids == sorted(set(ids))


def test_without_a_pattern_every_line_arrives_those_of_lambda_too(subscribe: Callable[..., Subscribed]) -> None:
    stack = subscribe("")
    stack.talk("one", "", "two")
    stack.close()
    assert [message.split()[0] for message in stack.messages] == ["START", "one", "two", "END", "REPORT"]


def test_lines_are_delivered_while_the_stack_runs(subscribe: Callable[..., Subscribed]) -> None:
    stack = subscribe()
    stack.talk(REQUEST % 1)
    for _ in range(1000):
        if stack.attempts:
            break
        stack.service.runner.run(asyncio.sleep(0.02))
    stack.talk(REQUEST % 2)
    stack.close()
    assert stack.messages == [f"{REQUEST % 1}\n", f"{REQUEST % 2}\n"]


def test_a_function_that_fails_gets_the_same_event_again(subscribe: Callable[..., Subscribed]) -> None:
    stack = subscribe(FAILURES="2")
    stack.talk(REQUEST % 1)
    stack.close()
    first, second, third = stack.attempts
    assert first == second == third


def test_after_two_retries_an_event_is_given_up(
    subscribe: Callable[..., Subscribed], caplog: pytest.LogCaptureFixture
) -> None:
    stack = subscribe(FAILURES="9")
    stack.talk(REQUEST % 1)
    stack.close()
    assert len(stack.attempts) == 3
    assert "collect has failed on the event" in caplog.text


def test_many_lines_come_in_bounded_batches_and_in_order(subscribe: Callable[..., Subscribed]) -> None:
    stack = subscribe()
    stack.service.invoke("flood", {"lines": 1200, "bytes": 0})
    stack.service.invoke("flood", {"lines": 20, "bytes": 60_000})
    stack.close()
    batches = sorted(([event.get_id for event in batch.log_events], batch) for batch in stack.batches)
    assert [json.loads(event.message)["number"] for _, batch in batches for event in batch.log_events] == [
        *range(1200),
        *range(20),
    ]
    assert all(len(ids) <= delivery.BATCH_LINES for ids, _ in batches)
    sizes = [sum(len(event.message) for event in batch.log_events) for _, batch in batches]
    assert max(sizes) <= delivery.BATCH_BYTES


def test_what_is_over_the_bound_is_dropped_with_one_warning_and_a_count(
    subscribe: Callable[..., Subscribed], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING_LINES", 100)
    monkeypatch.setattr(delivery, "BATCH_S", 60.0)  # nothing is taken out meanwhile
    stack = subscribe()
    stack.service.invoke("flood", {"lines": 500, "bytes": 1000})
    assert stack.subscriptions.dropped > 0
    stack.close()
    assert len(stack.messages) < 500
    assert sum("falls behind" in record.message for record in caplog.records) == 1
    assert f"{stack.subscriptions.dropped} log lines were not delivered" in caplog.text


def test_closing_waits_for_the_function_but_not_for_ever(subscribe: Callable[..., Subscribed]) -> None:
    stack = subscribe(SECONDS="25")
    stack.talk(REQUEST % 1)
    stack.service.runner.run(stack.subscriptions.close(0.5))
    assert [each["state"] for each in stack.service.environments("collect")] in (["starting"], ["busy"])
