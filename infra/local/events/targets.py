"""Targets of events in a template: ARNs of functions, queues and topics of the stack."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from infra.local.events.specs import Target, TargetKind
from infra.local.intrinsics import TemplateError
from infra.local.stack import ACCOUNT_ID, REGION
from infra.local.stack_scope import ResolvedResource

_PLACE = f"{REGION}:{ACCOUNT_ID}"


@dataclass(frozen=True, slots=True)
class Targets:
    """What events can go to, by ARN."""

    by_arn: Mapping[str, Target]

    @classmethod
    def of(cls, resources: Iterable[ResolvedResource], function_arns: Mapping[str, str]) -> Self:
        """Those of a stack; `function_arns` gives the logical id for each ARN of a function."""
        found = [Target("function", logical_id, arn) for arn, logical_id in function_arns.items()]
        for resource in resources:
            if resource.type == "AWS::SQS::Queue":
                found.append(Target("queue", resource.name, f"arn:aws:sqs:{_PLACE}:{resource.name}"))
            elif resource.type == "AWS::SNS::Topic":
                found.append(Target("topic", resource.name, f"arn:aws:sns:{_PLACE}:{resource.name}"))
        return cls({target.arn: target for target in found})

    def named(self, arn: str, where: str, kinds: Collection[TargetKind]) -> Target:
        """The target with this ARN; a version or an alias means the function itself. Raises `TemplateError`."""
        plain = ":".join(arn.split(":")[:7]) if ":function:" in arn else arn
        found = self.by_arn.get(plain)
        if found is None or found.kind not in kinds:
            raise TemplateError(f"{where}: {arn} is no {' or '.join(sorted(kinds))} of this stack.")
        return found

    def target(self, facts: Mapping[str, Any], where: str) -> Target:
        """The function or queue that a target of a rule or of a schedule describes. Raises `TemplateError`."""
        found = self.named(str(facts.get("Arn")), f"{where}.Arn", {"function", "queue"})
        dead = facts.get("DeadLetterConfig", {}).get("Arn")
        queue = None if dead is None else self.named(str(dead), f"{where}.DeadLetterConfig.Arn", {"queue"})
        return replace(
            found,
            dead_letter_queue=queue.name if queue else None,
            group_id=facts.get("SqsParameters", {}).get("MessageGroupId"),
        )

    @staticmethod
    def arn_of_rule(name: str) -> str:
        """The ARN of a rule on the default bus."""
        return f"arn:aws:events:{_PLACE}:rule/{name}"

    @staticmethod
    def arn_of_schedule(name: str) -> str:
        """The ARN of a schedule in the default group."""
        return f"arn:aws:scheduler:{_PLACE}:schedule/default/{name}"


def refuse_others(properties: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raises `TemplateError` for properties that the local runtime would leave undone."""
    if others := sorted(set(properties) - set(known)):
        raise TemplateError(f"{where}: the local runtime does not support {', '.join(others)} here.")
