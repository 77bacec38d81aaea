import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import EventBridgeModel

from infra.local.events import local_events
from infra.local.events.local_events import LocalEvents
from infra.local.events.specs import EventsSpec
from tests.local.events.conftest import Stack


@dataclass
class Clock:
    """A clock that stands still but for the tests."""

    time: datetime

    def now(self) -> datetime:
        return self.time


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_events, "MAX_SLEEP_S", 0.01)


@contextmanager
def clock_of(stack: Stack, start: datetime, *, fires: bool = True) -> Iterator[Clock]:
    """The rules and schedules of the stack by a clock of their own."""
    clock = Clock(start)
    spec = EventsSpec(rules=stack.spec.events.rules, schedules=stack.spec.events.schedules)

    async def make() -> LocalEvents:
        found = LocalEvents(spec, stack.functions, stack.aws_url, None, fires_schedules=fires, now=clock.now)
        await asyncio.sleep(0.05)  # its tasks look at the clock
        return found

    events = stack.runner.run(make())
    try:
        yield clock
    finally:
        stack.runner.run(asyncio.sleep(0.05))
        stack.runner.run(events.close())
        stack.settle()


def told(stack: Stack, day: str, resource: str) -> list[dict[str, Any]]:
    """Events of the clock of that day, of the rule or schedule whose ARN ends in `resource`, by their time."""
    found = [event for event in stack.got("Clocked") if event.get("resources", [""])[0].endswith(resource)]
    return sorted((event for event in found if event["time"].startswith(day)), key=lambda event: str(event["time"]))


def test_a_schedule_sends_the_scheduler_s_event_when_it_is_due(stack: Stack) -> None:
    with clock_of(stack, datetime(2030, 1, 1, 0, 0, 30, tzinfo=UTC)) as clock:
        assert told(stack, "2030-01-01", "ticks") == []
        clock.time = datetime(2030, 1, 1, 0, 1, 0, 1, tzinfo=UTC)
        stack.wait_for(lambda: told(stack, "2030-01-01", "ticks"))
    (event,) = told(stack, "2030-01-01", "ticks")
    parsed = EventBridgeModel.model_validate(event)
    assert (parsed.source, parsed.detail_type) == ("aws.scheduler", "Scheduled Event")
    assert (event["time"], event["detail"]) == ("2030-01-01T00:01:00Z", "{}")
    assert event["resources"] == ["arn:aws:scheduler:us-east-1:000000000000:schedule/default/ticks"]


def test_rates_recur_and_what_is_disabled_or_past_does_not_fire(stack: Stack) -> None:
    input_ = {"schedule": "arn:aws:scheduler:us-east-1:000000000000:schedule/default/ClockedTold"}
    rule, day = "rule/events-ClockedRuled", "2030-01-02"
    before = stack.got("Clocked").count(input_)
    failed = len(stack.failures)
    with clock_of(stack, datetime(2030, 1, 2, tzinfo=UTC)) as clock:
        for minute in (1, 2, 3):
            clock.time = datetime(2030, 1, 2, 0, minute, 1, tzinfo=UTC)
            stack.wait_for(lambda minute=minute: len(told(stack, day, rule)) == minute)
        stack.wait_for(lambda: stack.got("Clocked").count(input_) == before + 3)
    events = told(stack, day, rule)
    assert [event["time"] for event in events] == [f"2030-01-02T00:0{minute}:00Z" for minute in (1, 2, 3)]
    assert (events[0]["source"], events[0]["detail"]) == ("aws.events", {})
    assert told(stack, day, "ClockedStopped") == []
    assert len(stack.failures) == failed


def test_of_times_that_were_slept_through_one_is_made_up_for(stack: Stack) -> None:
    with clock_of(stack, datetime(2030, 1, 3, tzinfo=UTC)) as clock:
        clock.time = datetime(2030, 1, 3, 5, 0, 30, tzinfo=UTC)
        stack.wait_for(lambda: told(stack, "2030-01-03", "ticks"))
        clock.time = datetime(2030, 1, 3, 5, 1, 30, tzinfo=UTC)
        stack.wait_for(lambda: len(told(stack, "2030-01-03", "ticks")) == 2)
    times = [event["time"] for event in told(stack, "2030-01-03", "ticks")]
    assert times == ["2030-01-03T00:01:00Z", "2030-01-03T05:01:00Z"]


def test_a_queue_gets_the_input_as_it_is(stack: Stack) -> None:
    stack.messages("Fixed")
    bodies: list[str] = []

    def arrived() -> bool:
        bodies.extend(message["Body"] for message in stack.messages("Fixed"))
        return bool(bodies)

    with clock_of(stack, datetime(2030, 6, 1, 0, 30, tzinfo=UTC)) as clock:
        clock.time = datetime(2030, 6, 1, 1, 0, 1, tzinfo=UTC)  # 3:00 in Berlin, in summer
        stack.wait_for(arrived)
    assert bodies == ["not JSON"]


def test_the_clock_can_be_switched_off(stack: Stack) -> None:
    with clock_of(stack, datetime(2030, 1, 4, tzinfo=UTC), fires=False) as clock:
        clock.time = datetime(2030, 1, 4, 1, tzinfo=UTC)
    assert told(stack, "2030-01-04", "ticks") == []


# ---------------------------------------------------------------- on demand
def trigger(stack: Stack, name: str, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return stack.runner.run(stack.events.trigger(name, event))


@pytest.mark.parametrize("name", ["ClockedTick", "ticks", "ClockedStopped", "ClockedRuled"])
def test_a_schedule_fires_on_demand_whatever_its_state(stack: Stack, name: str) -> None:
    before = len(stack.got("Clocked"))
    (answer,) = trigger(stack, name)
    assert (answer["target"], answer["queued"], answer["function_error"]) == ("Clocked", False, None)
    assert answer["payload"]["request_id"] in answer["log"]
    assert len(stack.got("Clocked")) == before + 1


def test_what_a_target_makes_of_it_is_told(stack: Stack) -> None:
    (answer,) = trigger(stack, "FailingNever")
    assert (answer["function_error"], answer["payload"]["errorMessage"]) == ("Unhandled", "bad luck")
    assert trigger(stack, "Queued") == [{"target": "events-Fixed", "queued": True}]
    assert "not JSON" in [message["Body"] for message in stack.messages("Fixed")]


def test_a_rule_with_a_pattern_needs_an_event(stack: Stack) -> None:
    with pytest.raises(ValueError, match="waits for events"):
        trigger(stack, "Orders")
    with pytest.raises(ValueError, match="its own event"):
        trigger(stack, "ticks", {})
    with pytest.raises(KeyError):
        trigger(stack, "Unknown")
    stack.messages("Work")
    answers = trigger(stack, "Orders", {"detail": {"id": "by hand"}})
    assert [answer["target"] for answer in answers] == ["Listener", "events-Work", "events-Fixed", "events-Broken"]
    assert {"detail": {"id": "by hand"}} in stack.got("Listener")
    assert [json.loads(message["Body"]) for message in stack.messages("Work")] == [{"id": "by hand"}]
