"""Log subscriptions of a template: which functions' lines go to which function."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from infra.local.intrinsics import TemplateError
from infra.local.log_delivery.pattern import PatternError, compile_pattern
from infra.local.stack import FunctionSpec, LogSubscriptionSpec
from infra.local.stack_scope import ResolvedResource

TYPE: Final = "AWS::Logs::SubscriptionFilter"
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
MAX_PER_LOG_GROUP: Final = 2


def load_log_subscriptions(
    resources: Iterable[ResolvedResource], functions: Mapping[str, FunctionSpec]
) -> tuple[LogSubscriptionSpec, ...]:
    """The subscriptions among `resources`; `functions` are keyed by logical id.

    Raises `TemplateError` for what CloudWatch Logs refuses, and for what the local runtime would leave undone: other
    destinations than functions of the stack, log groups that no function writes to, unknown filter patterns.
    """
    specs = tuple(_subscription(resource, functions) for resource in resources if resource.type == TYPE)
    for group, count in Counter(spec.log_group for spec in specs).items():
        if count > MAX_PER_LOG_GROUP:
            raise TemplateError(f"The log group {group} has {count} subscriptions; {MAX_PER_LOG_GROUP} are allowed.")
    return specs


def _subscription(resource: ResolvedResource, functions: Mapping[str, FunctionSpec]) -> LogSubscriptionSpec:
    where = f"Resources.{resource.logical_id}.Properties"
    properties = resource.properties
    if "RoleArn" in properties:  # CloudWatch Logs: "destinationArn for vendor lambda cannot be used with roleArn"
        raise TemplateError(f"{where}.RoleArn: a function as the destination is called without a role.")
    group, pattern = _text(properties, "LogGroupName", where), _text(properties, "FilterPattern", where)
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise TemplateError(f"{where}.FilterPattern: the local runtime cannot use {pattern!r}: {error}.") from error
    destination = _destination(_text(properties, "DestinationArn", where), functions, where)
    sources = tuple(name for name, function in functions.items() if function.log_group_name == group)
    if not sources:
        raise TemplateError(f"{where}.LogGroupName: no function of this stack writes to {group}.")
    if destination in sources:
        # So does CloudWatch Logs: its lines about each delivery would be the next delivery.
        raise TemplateError(f"{where}: {destination} cannot be subscribed to the log group that it writes to itself.")
    return LogSubscriptionSpec(resource.name, group, pattern, sources, destination)


def _destination(arn: str, functions: Mapping[str, FunctionSpec], where: str) -> str:
    """The logical id behind the ARN of a function; a version or an alias means the function itself here."""
    unqualified = ":".join(arn.split(":")[:7])
    for logical_id, function in functions.items():
        if function.arn == unqualified:
            return logical_id
    raise TemplateError(f"{where}.DestinationArn: {arn} is no function of this stack.")


def _text(properties: Mapping[str, Any], name: str, where: str) -> str:
    value = properties.get(name)
    if not isinstance(value, str):
        raise TemplateError(f"{where}.{name}: text is needed here, not {value!r}.")
    return value
