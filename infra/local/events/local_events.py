"""The events of a running stack: fetched from the AWS services, made by the clock, or asked for by `sluice trigger`."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec

from infra.local.events.delivery import Deliveries
from infra.local.events.expressions import Expression
from infra.local.events.outbox import PATH
from infra.local.events.routing import Router, rule_text
from infra.local.events.shapes import rule_event, schedule_event, with_context
from infra.local.events.specs import EventsSpec, RuleSpec, ScheduleSpec, Target
from infra.local.lambda_service.service import LambdaService
from infra.local.tasks import end

_log = logging.getLogger(__name__)

POLL_S: Final = 10.0
_RETRY_S: Final = 0.5
# Longer sleeps would miss that the machine itself has slept, or that its clock was set.
MAX_SLEEP_S: Final = 5.0

Fires = Callable[[datetime], Coroutine[Any, Any, None]]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LocalEvents:
    """Runs the events of a stack. Make it, use it and close it in the event loop of its `LambdaService`.

    Args:
        spec: what the template says.
        functions: who gets events.
        aws_url: where queues and topics are.
        outbox_url: the AWS services that keep an outbox, or None.
        fires_schedules: without it, nothing happens by the clock.
        now: the time, aware.

    """

    def __init__(
        self,
        spec: EventsSpec,
        functions: LambdaService,
        aws_url: str,
        outbox_url: str | None,
        *,
        fires_schedules: bool = True,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._spec = spec
        self._router = Router(spec)
        self._deliveries = Deliveries(functions, aws_url)
        self._now = now
        work: list[Coroutine[Any, Any, None]] = []
        if self._router.wants_records and outbox_url is not None:
            work.append(self._fetch(outbox_url))
        if fires_schedules:
            work += [self._tick(expression, fire) for expression, fire in self._clocked()]
        self._tasks = [asyncio.get_running_loop().create_task(each, name="local events") for each in work]

    async def close(self) -> None:
        """End at once: what has not been fetched ends with the stores."""
        await end(self._tasks)
        self._tasks = []

    # ------------------------------------------------------------ what happens in the AWS services
    async def _fetch(self, url: str) -> None:
        after = 0
        timeout = aiohttp.ClientTimeout(total=POLL_S * 3, connect=2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    params = {"after": str(after), "wait": str(POLL_S)}
                    async with session.get(f"{url}{PATH}", params=params) as response:
                        response.raise_for_status()
                        answer = msgspec.json.decode(await response.read())
                except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
                    _log.warning("the AWS services do not tell of events: %s", error)
                    await asyncio.sleep(_RETRY_S)
                    continue
                for record in answer["records"]:
                    await self._take(record)
                after = answer["last"]

    async def _take(self, record: dict[str, Any]) -> None:
        try:
            for delivery in self._router.route(record):
                await self._deliveries.deliver(delivery.target, delivery.text, source_arn=delivery.source_arn)
        except Exception:  # noqa: BLE001 - a fault of ours, which must not keep all that comes after from its functions
            _log.exception("an event was not delivered: %s", record.get("kind"))

    # ------------------------------------------------------------ the clock
    def _clocked(self) -> list[tuple[Expression, Fires]]:
        rules = [
            (rule.schedule, self._firing_rule(rule))
            for rule in self._spec.rules
            if rule.enabled and rule.schedule is not None
        ]
        schedules = [(each.schedule, self._firing_schedule(each)) for each in self._spec.schedules if each.enabled]
        return [*rules, *schedules]

    def _firing_rule(self, rule: RuleSpec) -> Fires:
        async def fire(at: datetime) -> None:
            for target, text in rule_texts(rule, at):
                await self._deliveries.deliver(target, text, source_arn=rule.arn)

        return fire

    def _firing_schedule(self, schedule: ScheduleSpec) -> Fires:
        async def fire(at: datetime) -> None:
            text = schedule_text(schedule, at)
            await self._deliveries.deliver(schedule.target, text, source_arn=schedule.arn)

        return fire

    async def _tick(self, expression: Expression, fire: Fires) -> None:
        """Fire whenever it is due; of several times that were missed, while the machine slept, only the first."""
        began = self._now()
        due = expression.next(began, began)
        while due is not None:
            left = (due - self._now()).total_seconds()
            if left > 0:
                await asyncio.sleep(min(left, MAX_SLEEP_S))
            else:
                await fire(due)
                due = expression.next(max(due, self._now()), began)

    # ------------------------------------------------------------ on demand
    @property
    def names(self) -> list[str]:
        """The logical ids of rules and schedules."""
        rules = [rule.logical_id for rule in self._spec.rules]
        return sorted(rules + [schedule.logical_id for schedule in self._spec.schedules])

    async def trigger(self, name: str, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Fire the rule or schedule `name` (logical id or name) now, whatever its state; what came of each target.

        A rule with a pattern gets `event`, which need not match; a rule or schedule by the clock makes its own.
        Functions are waited for.

        Raises:
            KeyError: there is none of this name.
            ValueError: an event is missing, or cannot be given.
            LambdaApiError, BotoCoreError, ClientError: a target refused it.

        """
        for schedule in self._spec.schedules:
            if name in {schedule.logical_id, schedule.name}:
                if event is not None:
                    raise ValueError(f"The schedule {name} sends its own event.")
                return [await self._ask(schedule.target, schedule_text(schedule, self._now()))]
        for rule in self._spec.rules:
            if name in {rule.logical_id, rule.name}:
                if event is None and rule.schedule is None:
                    raise ValueError(f"The rule {name} waits for events: give it one.")
                texts = (
                    rule_texts(rule, self._now())
                    if event is None
                    else [(target.target, rule_text(target, event)) for target in rule.targets]
                )
                return [await self._ask(target, text) for target, text in texts]
        raise KeyError(name)

    async def _ask(self, target: Target, text: str) -> dict[str, Any]:
        if target.kind != "function":
            await self._deliveries.hand_over(target, text)
            return {"target": target.name, "queued": True}
        result = await self._deliveries.functions.invoke(target.name, text.encode())
        return {
            "target": target.name,
            "queued": False,
            "function_error": result.function_error,
            "payload": json.loads(result.payload or b"null"),
            "log": result.log_tail.decode("utf-8", "replace"),
        }


def rule_texts(rule: RuleSpec, at: datetime) -> list[tuple[Target, str]]:
    """What a rule sends to each of its targets by the clock."""
    event = rule_event(rule.arn, at)
    return [(target.target, rule_text(target, event)) for target in rule.targets]


def schedule_text(schedule: ScheduleSpec, at: datetime) -> str:
    """What a schedule sends to its target."""
    if schedule.input is None:
        return json.dumps(schedule_event(schedule.arn, at))
    return with_context(schedule.input, schedule.arn, at)
