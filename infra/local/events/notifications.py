"""Notifications of the buckets of a template: to EventBridge, functions, queues and topics."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from infra.local.cfn_to_api import sends_to_event_bridge
from infra.local.events.shapes import OBJECT_EVENTS
from infra.local.events.specs import NotificationSpec, TargetKind
from infra.local.events.targets import Targets, refuse_others
from infra.local.intrinsics import TemplateError
from infra.local.stack_scope import ResolvedResource

BUCKET: Final = "AWS::S3::Bucket"
_KINDS: Final[Mapping[str, tuple[str, TargetKind]]] = {
    "LambdaConfigurations": ("Function", "function"),
    "QueueConfigurations": ("Queue", "queue"),
    "TopicConfigurations": ("Topic", "topic"),
}


def event_bridge_buckets(resources: Iterable[ResolvedResource]) -> frozenset[str]:
    """The names of the buckets that send their events to the default bus."""
    return frozenset(resource.name for resource in resources if sends_to_event_bridge(_configuration(resource)))


def load_notifications(resources: Iterable[ResolvedResource], targets: Targets) -> tuple[NotificationSpec, ...]:
    """The notifications to functions, queues and topics; raises `TemplateError`."""
    return tuple(each for resource in resources for each in _of_bucket(resource, targets))


def _configuration(resource: ResolvedResource) -> Mapping[str, Any]:
    found: Mapping[str, Any] = resource.properties.get("NotificationConfiguration", {})
    return found if resource.type == BUCKET else {}


def _of_bucket(resource: ResolvedResource, targets: Targets) -> Iterator[NotificationSpec]:
    configuration = _configuration(resource)
    place = f"Resources.{resource.logical_id}.Properties.NotificationConfiguration"
    refuse_others(configuration, {*_KINDS, "EventBridgeConfiguration"}, place)
    for name, (property_, kind) in _KINDS.items():
        for number, facts in enumerate(configuration.get(name, [])):
            where = f"{place}.{name}[{number}]"
            refuse_others(facts, {property_, "Event", "Filter"}, where)
            prefix, suffix = _filter(facts, f"{where}.Filter")
            yield NotificationSpec(
                bucket=resource.name,
                id=f"{resource.logical_id}-{kind}-{number}",
                events=(_event(str(facts.get("Event")), f"{where}.Event"),),
                target=targets.named(str(facts.get(property_)), f"{where}.{property_}", {kind}),
                prefix=prefix,
                suffix=suffix,
            )


def _event(name: str, where: str) -> str:
    pattern = name.removeprefix("s3:")
    if not any(fnmatchcase(known, pattern) for known in OBJECT_EVENTS):
        raise TemplateError(f"{where}: the local S3 does not send {name}.")
    return pattern


def _filter(facts: Mapping[str, Any], where: str) -> tuple[str, str]:
    rules = facts.get("Filter", {}).get("S3Key", {}).get("Rules", [])
    found = {str(rule.get("Name")).lower(): str(rule.get("Value")) for rule in rules}
    refuse_others(found, {"prefix", "suffix"}, where)
    return found.get("prefix", ""), found.get("suffix", "")
