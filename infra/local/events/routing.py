"""From a record of the outbox to the targets that want it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from infra.local.event_pattern import EventMatcher, compile_event_pattern
from infra.local.events.shapes import Event, bridge_event, bucket_event, topic_event
from infra.local.events.specs import EventsSpec, NotificationSpec, RuleSpec, RuleTarget, Target

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Delivery:
    """`text` is for `target`; `source_arn` is the rule's, where there is one."""

    target: Target
    text: str
    source_arn: str = ""


class Router:
    """The rules, notifications and subscriptions of a stack."""

    def __init__(self, spec: EventsSpec) -> None:
        self._spec = spec
        self._rules: list[tuple[RuleSpec, EventMatcher]] = [
            (rule, compile_event_pattern(rule.pattern))
            for rule in spec.rules
            if rule.enabled and rule.pattern is not None
        ]
        self._subscriptions = {(each.topic_arn, each.target.arn): each.arn for each in spec.subscriptions}
        self._functions = {each.target.arn: each.target for each in spec.subscriptions}

    @property
    def wants_records(self) -> bool:
        """Whether anything of the stack depends on what happens in the AWS services."""
        return bool(self._rules or self._spec.notifications or self._spec.subscriptions)

    def route(self, record: Mapping[str, Any]) -> Iterator[Delivery]:
        """Who gets what."""
        match record["kind"]:
            case "object":
                yield from self._object(record)
            case "message":
                yield from self._message(record)
            case "event":
                yield from self._event(record["event"])

    def _object(self, record: Mapping[str, Any]) -> Iterator[Delivery]:
        for notification in self._spec.notifications:
            if _wants(notification, record):
                yield Delivery(notification.target, json.dumps(bucket_event(record, notification.id)))
        if record["bucket"] in self._spec.event_bridge_buckets:
            yield from self._event(bridge_event(record))

    def _event(self, event: Event) -> Iterator[Delivery]:
        for rule, matches in self._rules:
            if matches(event):
                for target in rule.targets:
                    yield Delivery(target.target, rule_text(target, event), rule.arn)

    def _message(self, record: Mapping[str, Any]) -> Iterator[Delivery]:
        # A version or an alias means the function itself here.
        endpoint = ":".join(record["endpoint"].split(":")[:7])
        target = self._functions.get(endpoint)
        # A function that was subscribed through the API in place of the template.
        target = target or Target("function", endpoint, endpoint)
        arn = self._subscriptions.get((record["topic"], endpoint), record["subscription"])
        yield Delivery(target, json.dumps(topic_event(record, arn)))


def rule_text(target: RuleTarget, event: Event) -> str:
    """What a target of a rule gets of an event: JSON text."""
    if target.input is not None:
        return target.input
    if target.input_path is None:
        return json.dumps(event)
    found: Any = event
    for name in target.input_path:
        found = found.get(name, _ABSENT) if isinstance(found, dict) else _ABSENT
    return json.dumps(None if found is _ABSENT else found)


def _wants(notification: NotificationSpec, record: Mapping[str, Any]) -> bool:
    key = record["key"]
    return (
        record["bucket"] == notification.bucket
        and any(fnmatchcase(record["name"], pattern) for pattern in notification.events)
        and key.startswith(notification.prefix)
        and key.endswith(notification.suffix)
    )
