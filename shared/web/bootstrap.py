"""What the composition roots of the functions behind the gateway have in common."""

import os
from typing import TYPE_CHECKING, Annotated

import msgspec
from botocore.session import Session
from msgspec import Meta

from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_limits import DynamoDBLimits
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.cost import RequestCosts
from shared.domain.prices import LIST_PRICES, PriceTable
from shared.usecases.admit import Admit
from shared.web.logs import LogLevel
from shared.web.metrics import RequestMetrics
from shared.web.middleware import Observed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Seconds = Annotated[float, Meta(gt=0, le=30)]


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of every function behind the gateway.

    A store gets `connect_timeout_s` and `read_timeout_s` for one attempt; the limiter's, which every request waits for,
    has less. Without a namespace no metrics are written. Lambda itself says how much memory the function has.
    `prices` are those that the cost of requests is reckoned by, where they are not the list's.
    """

    service: str = msgspec.field(name="POWERTOOLS_SERVICE_NAME")
    limits_table: str
    metrics_namespace: Annotated[str, Meta(max_length=255)] = ""
    memory_mb: Annotated[int, Meta(ge=0, le=10_240)] = msgspec.field(default=0, name="AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    prices: PriceTable = LIST_PRICES
    connect_timeout_s: Seconds = 1.0
    read_timeout_s: Seconds = 3.0
    limiter_connect_timeout_s: Seconds = 0.3
    limiter_read_timeout_s: Seconds = 0.5
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")


class WriteSettings(HttpSettings, frozen=True, kw_only=True):
    """Settings of a function that takes an `Idempotency-Key`; an answer is kept for `idempotency_hours`."""

    idempotency_table: str
    data_bucket: str
    idempotency_hours: Annotated[int, Meta(ge=1, le=168)] = 24
    idempotency_read_timeout_s: Seconds = 1.0


def quick_dynamodb(settings: HttpSettings, session: Session) -> "DynamoDBClient":
    """For calls that a request waits for and can do without: little time, and no second attempt."""
    return client(
        "dynamodb",
        session=session,
        connect_timeout=settings.limiter_connect_timeout_s,
        read_timeout=settings.limiter_read_timeout_s,
        retries=0,
    )


def admit(settings: HttpSettings, dynamodb: "DynamoDBClient") -> Admit:
    """Quotas and rate limits on the stack's table."""
    return Admit(DynamoDBLimits(dynamodb, settings.limits_table))


def idempotency(settings: WriteSettings, session: Session) -> PowertoolsIdempotency:
    """Records of idempotency on the stack's table, large answers in its bucket."""
    dynamodb = client(
        "dynamodb",
        session=session,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.idempotency_read_timeout_s,
        retries=1,
    )
    return PowertoolsIdempotency(
        dynamodb,
        settings.idempotency_table,
        lambda: client("s3", session=session, connect_timeout=settings.connect_timeout_s),
        settings.data_bucket,
        settings.idempotency_hours,
    )


def observed(settings: HttpSettings, calls: AwsCalls) -> Observed:
    """What the function's lines and answers tell beside the requests; their cost where Lambda runs the function."""
    return Observed(
        RequestMetrics(settings.metrics_namespace),
        start_calls=calls.start,
        calls=calls.counts,
        items=calls.items,
        costs=RequestCosts(settings.prices, settings.memory_mb, architecture()) if settings.memory_mb else None,
    )


def architecture() -> str:
    """The name that Lambda has for the processor of this machine."""
    return "arm64" if os.uname().machine in {"aarch64", "arm64"} else "x86_64"
