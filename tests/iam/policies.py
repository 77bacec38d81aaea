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

# A SageMaker endpoint that is not the stack's own, and a stack that may call it.
THEIRS = "theirs"
PARAMETERS = {
    **OF_THE_LOCAL_STACK,
    "BackendEndpointArns": f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}:endpoint/{THEIRS}",
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
            # Lambda itself sends there what failed, with the function's role.
            if dead_letters := evaluate(resource["Properties"].get("DeadLetterConfig", {}), scope, logical_id):
                found[logical_id] -= {Grant("sqs:SendMessage", str(dead_letters["TargetArn"]))}
    return found


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
