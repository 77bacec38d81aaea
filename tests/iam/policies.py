"""The permissions that the translated template gives each function."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from infra.local.intrinsics import evaluate
from infra.local.sam_transform import transform
from infra.local.stack import ACCOUNT_ID, REGION
from infra.local.stack_scope import StackScope
from infra.local.supervisor import PARAMETERS as OF_THE_LOCAL_STACK

# A SageMaker endpoint and a bucket that are not the stack's own, and a stack that may use them.
THEIRS = "theirs"
THEIR_BUCKET = "their-inputs"
PARAMETERS = {
    **OF_THE_LOCAL_STACK,
    "BackendEndpointArns": f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}:endpoint/{THEIRS}",
    "InputPrefixes": f"{THEIR_BUCKET}/in/",
}

# What Lambda's runtime, and no code of ours, does with the role. Source: AWS managed policies
# AWSLambdaBasicExecutionRole and AWSXRayDaemonWriteAccess.
RUNTIME_POLICIES = frozenset({"AWSLambdaBasicExecutionRole", "AWSXRayDaemonWriteAccess", "AWSXrayWriteOnlyAccess"})
RUNTIME_ACTIONS = frozenset(
    {
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
    }
)


# What Lambda does with a function's role for its queues and streams, and no code of ours. Source: AWS Lambda Developer
# Guide, "Using Lambda with Amazon SQS", "Using Lambda with Amazon DynamoDB", the sections on the execution role.
_OF_QUEUES = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
_OF_STREAMS = ("dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:DescribeStream", "dynamodb:ListStreams")


# What a condition may be about: the partition keys of items, the prefix of a listing.
_CONDITIONS = frozenset({("ForAllValues:StringLike", "dynamodb:LeadingKeys"), ("StringLike", "s3:prefix")})


@dataclass(frozen=True, slots=True)
class Grant:
    """One action on one resource pattern; `keys` are patterns for keys or prefixes, where a condition has them."""

    action: str
    resource: str
    keys: tuple[str, ...] = ()

    def covers(self, resource: str, key: str = "") -> bool:
        """Whether the patterns match an ARN and a key or prefix."""
        return _matches(self.resource, resource) and (not self.keys or any(_matches(each, key) for each in self.keys))


@cache
def grants(template: Path) -> Mapping[str, frozenset[Grant]]:
    """What each function of the template may do beyond running, by its logical id."""
    translated = transform(template, PARAMETERS, None)
    scope = StackScope(template, "tests", PARAMETERS, lambda path, values: transform(path, values, None))
    resources = translated["Resources"]
    found = {}
    for logical_id, resource in resources.items():
        if resource["Type"] == "AWS::Lambda::Function":
            role = resource["Properties"]["Role"]["Fn::GetAtt"][0]
            properties = evaluate(resources[role]["Properties"], scope, f"Resources.{role}")
            found[logical_id] = frozenset(_inline(properties)) | frozenset(_managed(properties))
    return found


@cache
def used_by_lambda(template: Path) -> Mapping[str, frozenset[Grant]]:
    """What Lambda itself needs of each function's role: to read its queues and streams, and to put away what failed."""
    translated = transform(template, PARAMETERS, None)
    scope = StackScope(template, "tests", PARAMETERS, lambda path, values: transform(path, values, None))
    needed: dict[str, set[Grant]] = {}
    for logical_id, resource in translated["Resources"].items():
        properties = resource["Properties"]
        if resource["Type"] == "AWS::Lambda::Function":
            dead_letters = evaluate(properties.get("DeadLetterConfig", {}), scope, logical_id)
            needed.setdefault(logical_id, set()).update(
                Grant("sqs:SendMessage", str(target)) for target in dead_letters.values()
            )
        if resource["Type"] == "AWS::Lambda::EventSourceMapping":
            of_function = needed.setdefault(properties["FunctionName"]["Ref"], set())
            source = str(evaluate(properties["EventSourceArn"], scope, logical_id))
            of_function.update(
                Grant(action, source) for action in (_OF_STREAMS if "/stream/" in source else _OF_QUEUES)
            )
            failed = evaluate(properties.get("DestinationConfig", {}), scope, logical_id)
            of_function.update(Grant("sqs:SendMessage", str(found["Destination"])) for found in failed.values())
    return {logical_id: frozenset(found) for logical_id, found in needed.items()}


def _inline(role: Mapping[str, Any]) -> list[Grant]:
    made = []
    for policy in role.get("Policies", ()):
        for statement in _listed(policy["PolicyDocument"]["Statement"]):
            assert statement["Effect"] == "Allow", statement
            keys = _keys(statement.get("Condition", {}))
            made += [
                Grant(action, str(resource), keys)
                for action in _listed(statement["Action"])
                for resource in _listed(statement["Resource"])
                if action not in RUNTIME_ACTIONS
            ]
    return made


def _keys(condition: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The patterns of a statement's only condition; () where it has none."""
    parts = [(operator, key, values) for operator, pairs in condition.items() for key, values in pairs.items()]
    assert {(operator, key) for operator, key, _ in parts} <= _CONDITIONS, condition
    assert len(parts) <= 1, condition
    return tuple(str(pattern) for _, _, values in parts for pattern in _listed(values))


def _matches(pattern: str, text: str) -> bool:
    """As IAM does it: `*` matches any characters, and `[` none but itself."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _managed(role: Mapping[str, Any]) -> list[Grant]:
    """AWS's own policies as one grant each, but for those of the runtime: none of the others is least privilege."""
    names = [str(arn).rpartition("/")[2] for arn in role.get("ManagedPolicyArns", ())]
    return [Grant(f"policy {name}", "*") for name in names if name not in RUNTIME_POLICIES]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
