"""What the local runtime knows of a stack: the resolved template as plain values.

`template.load_stack` makes these from `template.yaml`; everything else in this package reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.event_sources.specs import EventSourceSpec
from infra.local.events.specs import EventsSpec

REGION = "us-east-1"
ACCOUNT_ID = "000000000000"
# What the stream of every table is called; AWS takes the time at which it was switched on.
STREAM_LABEL = "2026-01-01T00:00:00.000"


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One `AWS::Lambda::Function`.

    `logical_id` is its name in the template, `name` its name in AWS. `memory_mb` and `timeout_s` are the template's;
    `code_dir` is the folder that `CodeUri` names. `log_group` is None where the template leaves it to Lambda. An
    asynchronous invocation that fails is tried again `event_retries` times, then it goes to the queues (their names).
    """

    logical_id: str
    name: str
    handler: str
    code_dir: Path
    memory_mb: int
    timeout_s: float
    environment: Mapping[str, str]
    log_group: str | None = None
    event_retries: int = 2
    dead_letter_queue: str | None = None
    on_failure_queue: str | None = None

    @property
    def log_group_name(self) -> str:
        """The log group that its lines belong to."""
        return self.log_group or f"/aws/lambda/{self.name}"

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
    """One route of an HTTP API: `key` is `"GET /v1/models/{model}"`, `function` the logical id it invokes.

    `iam` has requests signed with AWS credentials; there is no `authorizer` then.
    """

    method: str
    path: str
    function: str
    authorizer: str | None = None
    timeout_s: float = 30.0
    iam: bool = False

    @property
    def key(self) -> str:
        """The route key that API Gateway puts into the event."""
        return "$default" if self.path == "$default" else f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class CorsSpec:
    """The CORS configuration of an HTTP API; origins are exact ones, `*`, `https://*` or `http://*`."""

    allow_origins: tuple[str, ...]
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age_s: int | None = None
    allow_credentials: bool = False


@dataclass(frozen=True, slots=True)
class ThrottleSpec:
    """A token bucket: `rate` requests a second, `burst` at once.

    The defaults are those of an account: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html.
    """

    rate: float = 10_000.0
    burst: int = 5_000


@dataclass(frozen=True, slots=True)
class HttpApiSpec:
    """One `AWS::ApiGatewayV2::Api` of protocol HTTP, with its only stage.

    `throttle` is that of all routes together, `route_throttles` those of routes, by route key, that have their own.
    """

    logical_id: str
    api_id: str
    stage: str
    routes: tuple[RouteSpec, ...]
    authorizers: Mapping[str, AuthorizerSpec]
    cors: CorsSpec | None = None
    throttle: ThrottleSpec = ThrottleSpec()
    route_throttles: Mapping[str, ThrottleSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogSubscriptionSpec:
    """One `AWS::Logs::SubscriptionFilter`: lines of `log_group` that match go to the function `destination`.

    `sources` are the functions that write to the log group, and `destination` is one, too: all logical ids.
    """

    name: str
    log_group: str
    filter_pattern: str
    sources: tuple[str, ...]
    destination: str


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """A resource that is created through the AWS API (table, bucket, endpoint …), its properties resolved.

    `ref` is what `Ref` on it gives to the rest of the template.
    """

    logical_id: str
    type: str
    name: str
    properties: Mapping[str, Any]
    ref: str = ""


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The whole stack; mappings are keyed by logical id. `outputs` are resolved."""

    name: str
    functions: Mapping[str, FunctionSpec]
    http_apis: Mapping[str, HttpApiSpec]
    resources: Mapping[str, ResourceSpec]
    outputs: Mapping[str, str] = field(default_factory=dict)
    log_subscriptions: tuple[LogSubscriptionSpec, ...] = ()
    events: EventsSpec = field(default_factory=EventsSpec)
    event_sources: tuple[EventSourceSpec, ...] = ()

    def of_type(self, type_: str) -> tuple[ResourceSpec, ...]:
        """The resources of one CloudFormation type."""
        return tuple(resource for resource in self.resources.values() if resource.type == type_)
