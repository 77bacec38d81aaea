"""Rules, schedules, bucket notifications and subscriptions of a template; what is not supported is refused by name."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from infra.local.event_pattern import compile_event_pattern
from infra.local.events.expressions import Expression, ExpressionError, parse_expression
from infra.local.events.notifications import event_bridge_buckets, load_notifications
from infra.local.events.shapes import OBJECT_CREATED, OBJECT_DELETED
from infra.local.events.specs import EventsSpec, RuleSpec, RuleTarget, ScheduleSpec, SubscriptionSpec, TargetKind
from infra.local.events.targets import Targets, refuse_others
from infra.local.intrinsics import TemplateError
from infra.local.stack_scope import ResolvedResource

RULE: Final = "AWS::Events::Rule"
SCHEDULE: Final = "AWS::Scheduler::Schedule"
SUBSCRIPTION: Final = "AWS::SNS::Subscription"
_MAX_TARGETS: Final = 5
_S3_DETAIL_TYPES: Final = frozenset({OBJECT_CREATED, OBJECT_DELETED})


def load_events(resources: Iterable[ResolvedResource], function_arns: Mapping[str, str]) -> EventsSpec:
    """What `resources` say of events; `function_arns` gives the logical id for each ARN. Raises `TemplateError`."""
    resources = tuple(resources)
    targets = Targets.of(resources, function_arns)

    def all_of(type_: str, load: Callable[[ResolvedResource, Targets], Any]) -> tuple[Any, ...]:
        return tuple(found for each in resources if each.type == type_ and (found := load(each, targets)) is not None)

    return EventsSpec(
        rules=all_of(RULE, _rule),
        schedules=all_of(SCHEDULE, _schedule),
        notifications=load_notifications(resources, targets),
        subscriptions=all_of(SUBSCRIPTION, _subscription),
        event_bridge_buckets=event_bridge_buckets(resources),
    )


def _rule(resource: ResolvedResource, targets: Targets) -> RuleSpec:
    where, properties = f"Resources.{resource.logical_id}.Properties", resource.properties
    known = {"Description", "EventBusName", "EventPattern", "Name", "RoleArn", "ScheduleExpression", "State", "Targets"}
    refuse_others(properties, known | {"Tags"}, where)
    bus = str(properties.get("EventBusName", "default"))
    if bus.rpartition("/")[2] != "default":
        raise TemplateError(f"{where}.EventBusName: the local runtime has the default event bus only, not {bus}.")
    pattern, expression = properties.get("EventPattern"), properties.get("ScheduleExpression")
    if pattern is None and expression is None:
        raise TemplateError(f"{where}: a rule needs an EventPattern or a ScheduleExpression.")
    wanted = properties.get("Targets", [])
    if len(wanted) > _MAX_TARGETS:
        raise TemplateError(f"{where}.Targets: a rule has {_MAX_TARGETS} targets at most, this one {len(wanted)}.")
    return RuleSpec(
        logical_id=resource.logical_id,
        name=resource.name,
        arn=targets.arn_of_rule(resource.name),
        enabled=properties.get("State", "ENABLED") != "DISABLED",
        targets=tuple(_rule_target(each, targets, f"{where}.Targets[{n}]") for n, each in enumerate(wanted)),
        pattern=None if pattern is None else _pattern(pattern, f"{where}.EventPattern"),
        schedule=None if expression is None else _expression(str(expression), f"{where}.ScheduleExpression"),
    )


def _pattern(pattern: Any, where: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(pattern) if isinstance(pattern, str) else pattern
        compile_event_pattern(found)
    except ValueError as error:  # EventPatternError is one
        raise TemplateError(f"{where}: {error}.") from error
    sources = {each for each in found.get("source", []) if isinstance(each, str)}
    if missing := sorted(each for each in sources if each.startswith("aws.") and each != "aws.s3"):
        raise TemplateError(f"{where}.source: nothing here sends events of {', '.join(missing)}.")
    detail_types = {each for each in found.get("detail-type", []) if isinstance(each, str)}
    if sources == {"aws.s3"} and (missing := sorted(detail_types - _S3_DETAIL_TYPES)):
        raise TemplateError(f"{where}.detail-type: the local S3 does not send {', '.join(missing)}.")
    return found


def _rule_target(facts: Mapping[str, Any], targets: Targets, where: str) -> RuleTarget:
    """`RoleArn` and `RetryPolicy` have no effect: nothing has to be permitted here, and handing over does not fail."""
    known = {"Arn", "DeadLetterConfig", "Id", "Input", "InputPath", "RetryPolicy", "RoleArn", "SqsParameters"}
    refuse_others(facts, known, where)
    if "Input" in facts and "InputPath" in facts:
        raise TemplateError(f"{where}: Input and InputPath exclude one another.")
    return RuleTarget(
        target=targets.target(facts, where),
        input=_json_text(facts.get("Input"), f"{where}.Input"),
        input_path=_path(facts.get("InputPath"), f"{where}.InputPath"),
    )


def _path(path: Any, where: str) -> tuple[str, ...] | None:
    if path is None:
        return None
    root, *names = str(path).split(".")
    if root != "$" or not all(name.replace("-", "").replace("_", "").isalnum() for name in names):
        raise TemplateError(f"{where}: the local runtime knows paths of names only, such as $.detail, not {path}.")
    return tuple(names)


def _schedule(resource: ResolvedResource, targets: Targets) -> ScheduleSpec:
    """A flexible time window has no effect: its begin is one of the times that AWS may choose."""
    where, properties = f"Resources.{resource.logical_id}.Properties", resource.properties
    known = {"ActionAfterCompletion", "Description", "EndDate", "FlexibleTimeWindow", "GroupName", "KmsKeyArn", "Name"}
    known |= {"ScheduleExpression", "ScheduleExpressionTimezone", "StartDate", "State", "Target"}
    refuse_others(properties, known, where)
    if properties.get("GroupName", "default") != "default":
        raise TemplateError(f"{where}.GroupName: the local runtime has the default group of schedules only.")
    target = properties.get("Target")
    if not isinstance(target, Mapping):
        raise TemplateError(f"{where}.Target: a schedule needs one.")
    refuse_others(
        target, {"Arn", "DeadLetterConfig", "Input", "RetryPolicy", "RoleArn", "SqsParameters"}, f"{where}.Target"
    )
    try:
        schedule = parse_expression(
            str(properties.get("ScheduleExpression")),
            zone=properties.get("ScheduleExpressionTimezone"),
            start=properties.get("StartDate"),
            end=properties.get("EndDate"),
            once=True,
        )
    except ExpressionError as error:
        raise TemplateError(f"{where}.ScheduleExpression: {error}.") from error
    found = targets.target(target, f"{where}.Target")
    text = target.get("Input")
    return ScheduleSpec(
        logical_id=resource.logical_id,
        name=resource.name,
        arn=targets.arn_of_schedule(resource.name),
        enabled=properties.get("State", "ENABLED") == "ENABLED",
        schedule=schedule,
        target=found,
        # A queue takes any text, a function only JSON.
        input=_json_text(text, f"{where}.Target.Input") if found.kind == "function" else text,
    )


def _subscription(resource: ResolvedResource, targets: Targets) -> SubscriptionSpec | None:
    """None for what needs nothing of the supervisor: moto serves queues, and no mail is sent from here.

    Redrive and delivery policies have no effect: handing a message over does not fail here.
    """
    where, properties = f"Resources.{resource.logical_id}.Properties", resource.properties
    known = {"DeliveryPolicy", "Endpoint", "FilterPolicy", "FilterPolicyScope", "Protocol", "RawMessageDelivery"}
    refuse_others(properties, known | {"RedrivePolicy", "Region", "TopicArn"}, where)
    protocol = properties.get("Protocol")
    if protocol in {"email", "email-json"}:
        return None
    if protocol not in {"lambda", "sqs"}:
        raise TemplateError(f"{where}.Protocol: the local runtime delivers to functions and queues, not by {protocol}.")
    kind: TargetKind = "function" if protocol == "lambda" else "queue"
    target = targets.named(str(properties.get("Endpoint")), f"{where}.Endpoint", {kind})
    topic = targets.named(str(properties.get("TopicArn")), f"{where}.TopicArn", {"topic"})
    return SubscriptionSpec(resource.ref, topic.arn, target) if kind == "function" else None


def _expression(text: str, where: str) -> Expression:
    try:
        return parse_expression(text)
    except ExpressionError as error:
        raise TemplateError(f"{where}: {error}.") from error


def _json_text(text: Any, where: str) -> str | None:
    if text is None:
        return None
    try:
        json.loads(text)
    except (TypeError, ValueError) as error:
        raise TemplateError(f"{where}: JSON is needed here: {error}.") from error
    return str(text)
