"""What the local runtime knows of a stack: the resolved template as plain values.

`template.load_stack` makes these from `template.yaml`; everything else in this package reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REGION = "us-east-1"
ACCOUNT_ID = "000000000000"


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One `AWS::Lambda::Function`.

    `logical_id` is its name in the template, `name` its name in AWS. `memory_mb` and `timeout_s` are the template's;
    `code_dir` is the folder that `CodeUri` names.
    """

    logical_id: str
    name: str
    handler: str
    code_dir: Path
    memory_mb: int
    timeout_s: float
    environment: Mapping[str, str]

    @property
    def arn(self) -> str:
        """The ARN under which the stack's resources name this function."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{self.name}"


@dataclass(frozen=True, slots=True)
class AuthorizerSpec:
    """A Lambda authorizer of payload format 2.0 with simple responses.

    `identity_sources` are API Gateway's expressions, such as `$request.header.Authorization`; `ttl_s` is how long an
    answer is reused for the same values of all identity sources (0 switches that off).
    """

    name: str
    function: str
    identity_sources: tuple[str, ...]
    ttl_s: int


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One route of an HTTP API: `key` is `"GET /v1/models/{model}"`, `function` the logical id it invokes."""

    method: str
    path: str
    function: str
    authorizer: str | None = None
    timeout_s: float = 30.0

    @property
    def key(self) -> str:
        """The route key that API Gateway puts into the event."""
        return "$default" if self.path == "$default" else f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class HttpApiSpec:
    """One `AWS::ApiGatewayV2::Api` of protocol HTTP, with its only stage."""

    logical_id: str
    api_id: str
    stage: str
    routes: tuple[RouteSpec, ...]
    authorizers: Mapping[str, AuthorizerSpec]


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """A resource that is created through the AWS API (table, bucket, endpoint …), its properties resolved."""

    logical_id: str
    type: str
    name: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The whole stack; mappings are keyed by logical id. `outputs` are resolved."""

    name: str
    functions: Mapping[str, FunctionSpec]
    http_apis: Mapping[str, HttpApiSpec]
    resources: Mapping[str, ResourceSpec]
    outputs: Mapping[str, str] = field(default_factory=dict)

    def of_type(self, type_: str) -> tuple[ResourceSpec, ...]:
        """The resources of one CloudFormation type."""
        return tuple(resource for resource in self.resources.values() if resource.type == type_)
