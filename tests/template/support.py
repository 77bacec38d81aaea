"""The project's templates, resolved as CloudFormation would for given parameters."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from infra.local.sam_transform import transform
from infra.local.stack_scope import ResolvedResource, StackScope

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
NESTED = sorted(path for path in (ROOT / "infra").glob("*.yaml"))
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/sluice:1.0"
ZONE = "Z0123456789ABC"

# Tables and buckets that outlive the stack, and the tables that end with it.
KEPT_TABLES = frozenset(
    {
        "KeysTable",
        "ModelsTable",
        "TenantsTable",
        "EndpointsTable",
        "FeaturesTable",
        "TrafficTable",
        "UsageTable",
        "AuditTable",
        "WebhooksTable",
    }
)
BUCKETS = frozenset({"ModelBucket", "DataBucket", "AuditBucket"})
KEPT = KEPT_TABLES | BUCKETS
ENDING_TABLES = frozenset(
    {"LimitsTable", "IdempotencyTable", "GuardsTable", "AnswersTable", "JobsTable", "DeliveriesTable"}
)
# What seals or hashes what is in tables that are kept.
SECRETS = frozenset({"KeyPepper", "WebhookKey"})

COMBINATIONS: Mapping[str, Mapping[str, str]] = {
    "defaults": {},
    "container": {"ContainerImage": IMAGE},
    "scaled container": {"ContainerImage": IMAGE, "ContainerMinInstances": "2", "ContainerMaxInstances": "6"},
    "container with a queue": {"ContainerImage": IMAGE, "ContainerAsyncMaxInstances": "3"},
    "endpoints of others": {
        "BackendEndpointArns": "arn:aws:sagemaker:us-east-1:000000000000:endpoint/theirs,"
        "arn:aws:sagemaker:us-east-1:000000000000:inference-component/part"
    },
    "inputs in other buckets": {"InputPrefixes": "theirs/in/,others/data/year/", "JobTimeout": "300"},
    "two variants, captured": {
        "ContainerImage": IMAGE,
        "ContainerChallengerImage": f"{IMAGE.partition(':')[0]}@sha256:{'a' * 64}",
        "ContainerCapturePercentage": "10",
        "ContainerAmiVersion": "al2-ami-sagemaker-inference-gpu-3-1",
    },
    "domain": {"DomainName": "models.example.com", "DomainHostedZoneId": ZONE},
    "domain with certificate": {
        "DomainName": "models.example.com",
        "DomainCertificateArn": "arn:aws:acm:us-east-1:000000000000:certificate/0-a",
    },
    "notices by mail": {"AlarmEmail": "ops@example.com"},
    "a topic that is there": {"AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:ops"},
    "reserved": {
        "PredictReservedConcurrency": "50",
        "ApiReservedConcurrency": "10",
        "AuthorizerReservedConcurrency": "0",
        "BucketLogBucket": "access-logs",
    },
    "provisioned": {"PredictProvisionedConcurrency": "2", "Architecture": "arm64"},
    "without SnapStart": {"PredictSnapStart": "false", "DeploymentType": "AllAtOnce", "LogLevel": "WARNING"},
}


@cache
def source(path: Path = TEMPLATE) -> dict[str, Any]:
    """A template as it is written, its functions in their long form."""
    parsed: dict[str, Any] = yaml_parse(path.read_text(encoding="utf-8"))
    return parsed


@cache
def _transformed(path: Path, given: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return transform(path, dict(given), None)


def translated(parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The parent template after the SAM transform, nothing resolved."""
    return _transformed(TEMPLATE, tuple(sorted((parameters or {}).items())))


def resolved(parameters: Mapping[str, str] | None = None) -> dict[str, ResolvedResource]:
    """Every resource whose condition holds, by logical id, the properties of all of them evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.local.stack_scope.NO_EFFECT", {})
        scope = StackScope(
            TEMPLATE,
            "sluice",
            parameters or {},
            lambda path, given: _transformed(path, tuple(sorted(given.items()))),
        )
        scope.outputs()
        return {resource.logical_id: resource for resource in scope.resources()}


def of_type(resources: Mapping[str, ResolvedResource], type_: str) -> dict[str, ResolvedResource]:
    """Those of one CloudFormation type."""
    return {logical_id: resource for logical_id, resource in resources.items() if resource.type == type_}


def statements(role: ResolvedResource) -> Iterator[Mapping[str, Any]]:
    """The statements of a role's own policies."""
    for policy in role.properties.get("Policies", []):
        yield from policy["PolicyDocument"]["Statement"]


def listed(value: Any) -> list[Any]:
    """A list of one, where policies may leave out the brackets."""
    return value if isinstance(value, list) else [value]


def references(value: Any) -> Iterator[str]:
    """The logical ids (and parameters) that an expression names."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield item.partition(".")[0] if isinstance(item, str) else item[0]
            elif key == "Fn::Sub":
                text = item if isinstance(item, str) else item[0]
                yield from (name.partition(".")[0] for name in re.findall(r"\$\{([^!}][^}]*)\}", text))
                yield from references(item if isinstance(item, list) else [])
            else:
                yield from references(item)
