"""The permissions that the translated template gives each function."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from infra.local.intrinsics import evaluate
from infra.local.sam_transform import transform
from infra.local.stack_scope import StackScope
from infra.local.supervisor import PARAMETERS

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


@dataclass(frozen=True, slots=True)
class Grant:
    """One action on one resource pattern."""

    action: str
    resource: str

    def covers(self, resource: str) -> bool:
        """Whether the pattern matches an ARN; IAM's `*` matches any characters, and `[` none but itself."""
        return fnmatchcase(resource, self.resource.replace("[", "[[]"))


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


def _inline(role: Mapping[str, Any]) -> list[Grant]:
    made = []
    for policy in role.get("Policies", ()):
        for statement in _listed(policy["PolicyDocument"]["Statement"]):
            assert statement["Effect"] == "Allow", statement
            made += [
                Grant(action, str(resource))
                for action in _listed(statement["Action"])
                for resource in _listed(statement["Resource"])
                if action not in RUNTIME_ACTIONS
            ]
    return made


def _managed(role: Mapping[str, Any]) -> list[Grant]:
    """AWS's own policies as one grant each, but for those of the runtime: none of the others is least privilege."""
    names = [str(arn).rpartition("/")[2] for arn in role.get("ManagedPolicyArns", ())]
    return [Grant(f"policy {name}", "*") for name in names if name not in RUNTIME_POLICIES]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
