"""Events as API Gateway sends them, and what a function needs to answer them in a test."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from functions.predict.settings import Settings
from shared.domain.dtypes import DType
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Allowance
from shared.domain.principal import Principal
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.admit import Admit
from shared.web.admission import Door
from shared.web.callers import Callers
from tests.fakes import package_file

EVENTS = Path(__file__).parents[1] / "events"
CALLER = Principal(tenant="acme", key_id="k" * 16, scopes=frozenset({"predict"}), plan="demo")
GATEWAY_ID = "JKJaXmPLvHcESHA="

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 2), features=("a", "b"), layouts=((2, 1),), maximum=1000),),
    outputs=(TensorSpec("y", DType.FP32, (None, 2), classes=("left", "right")),),
    max_batch=4,
)


@dataclass
class LambdaContextStub:
    """What awslambdaric passes beside the event, as far as Mangum and the functions look at it."""

    left_ms: int = 10_000
    function_name: str = "function"
    function_version: str = "$LATEST"
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:function"
    memory_limit_in_mb: int = 512
    aws_request_id: str = "8f5a1e2c-3d4b-4c6f-9a7e-0b1c2d3e4f50"
    log_group_name: str = "/aws/lambda/function"
    log_stream_name: str = "stream"
    identity: Any = None
    client_context: Any = None

    def get_remaining_time_in_millis(self) -> int:
        return self.left_ms


@dataclass(frozen=True)
class Answer:
    """A function's answer, its body decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_base64: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Answer":
        text, is_base64 = answer["body"], answer["isBase64Encoded"]
        body = base64.b64decode(text) if is_base64 else text.encode()
        return cls(answer["statusCode"], answer["headers"], body, is_base64)


@dataclass
class Function:
    """A function's handler."""

    handler: Any
    context: LambdaContextStub = field(default_factory=LambdaContextStub)

    def __call__(
        self,
        method: str,
        path: str,
        *,
        route: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        principal: Principal | None = CALLER,
    ) -> Answer:
        """One request; a `body` that is neither text nor bytes is sent as JSON."""
        return Answer.of(self.handler(event(method, path, route, body, headers, principal), self.context))


def predict_settings(**values: Any) -> Settings:
    """Settings of the predict function; its stores have names, and nothing is behind them."""
    stores = (
        "models",
        "keys",
        "tenants",
        "usage",
        "endpoints",
        "guards",
        "answers",
        "features",
        "jobs",
        "limits",
        "idempotency",
    )
    named = {f"{store}_table": store for store in stores}
    return Settings(**{**_OTHERS, **named, **values})


_OTHERS = {"service": "predict", "model_bucket": "bucket", "data_bucket": "data", "jobs_queue_url": "https://jobs"}


class Unlimited:
    """A `RateLimiter` that lets everything pass."""

    def take(self, principal: Principal) -> Allowance:
        return Allowance(())


def open_door() -> Door:
    """A door that asks for a caller, and for nothing else."""
    return Door(Callers(), Admit(Unlimited()))


def event(
    method: str,
    path: str,
    route: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    principal: Principal | None = CALLER,
) -> dict[str, Any]:
    """An event of payload format 2.0, made from one of `tests/events`."""
    made: dict[str, Any] = json.loads((EVENTS / "predict_health.json").read_text())
    made["routeKey"] = made["requestContext"]["routeKey"] = f"{method} {route or path}"
    made["rawPath"] = made["requestContext"]["http"]["path"] = path
    made["requestContext"]["http"]["method"] = method
    if principal is not None:
        made["requestContext"]["authorizer"] = {"lambda": principal.to_context()}
    if body is not None:
        raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        made["headers"] |= {"content-type": "application/json", "content-length": str(len(raw))}
        made["body"] = base64.b64encode(raw).decode()
        made["isBase64Encoded"] = True
    made["headers"] |= dict(headers or {})
    return made


def published(
    model: str = "pair",
    version: int = 1,
    *,
    signature: Signature = SIGNATURE,
    placement: Placement = Placement.FUNCTION,
    metadata: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """A version for a registry."""
    files = (package_file("model.onnx", f"{model} {version}".encode()),)
    return ModelVersion(
        model=model,
        version=version,
        digest=f"{version:064x}",
        files=files,
        signature=signature,
        placement=placement,
        created_at="2026-11-21T00:00:00+00:00",
        metadata={"description": "Two numbers.", "stage": "production", "example": [1.0, 2.0], **(metadata or {})},
    )
