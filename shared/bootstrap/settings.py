"""Settings that every function has."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
from botocore.session import Session
from msgspec import Meta

from shared.adapters.aws import client
from shared.domain.prices import LIST_PRICES, PriceTable
from shared.web.logs import LogLevel

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Seconds = Annotated[float, Meta(gt=0, le=30)]


class FunctionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of every function, read from the environment by `shared.domain.settings.load`.

    A store gets `connect_timeout_s` and `read_timeout_s` for one attempt; what a request can do without, as the
    limiter's, has less. Without a namespace no metrics are written. Lambda itself says how much memory the function
    has. `prices` are those that the cost of requests is reckoned by, where they are not the list's.
    """

    service: str = msgspec.field(name="POWERTOOLS_SERVICE_NAME")
    metrics_namespace: Annotated[str, Meta(max_length=255)] = ""
    memory_mb: Annotated[int, Meta(ge=0, le=10_240)] = msgspec.field(default=0, name="AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    prices: PriceTable = LIST_PRICES
    connect_timeout_s: Seconds = 1.0
    read_timeout_s: Seconds = 3.0
    limiter_connect_timeout_s: Seconds = 0.3
    limiter_read_timeout_s: Seconds = 0.5
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")


class Timeouts(Protocol):
    """The timeouts of a function's settings."""

    @property
    def connect_timeout_s(self) -> float:
        """For a connection to a store."""

    @property
    def read_timeout_s(self) -> float:
        """For a store's answer."""

    @property
    def limiter_connect_timeout_s(self) -> float:
        """For a connection to what a request can do without."""

    @property
    def limiter_read_timeout_s(self) -> float:
        """For the answer of what a request can do without."""


def quick_dynamodb(settings: Timeouts, session: Session) -> "DynamoDBClient":
    """For calls that a request waits for and can do without: little time, and no second attempt."""
    return client(
        "dynamodb",
        session=session,
        connect_timeout=settings.limiter_connect_timeout_s,
        read_timeout=settings.limiter_read_timeout_s,
        retries=0,
    )


def patient_dynamodb(settings: Timeouts, session: Session) -> "DynamoDBClient":
    """For calls that nothing can stand in for: a second attempt."""
    return client(
        "dynamodb",
        session=session,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries=1,
    )


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of DynamoDB that the parts of a function share, and with them their connections."""

    dynamodb: "DynamoDBClient"
    quick: "DynamoDBClient"

    @classmethod
    def of(cls, settings: Timeouts, session: Session) -> "Clients":
        """Both of them."""
        return cls(patient_dynamodb(settings, session), quick_dynamodb(settings, session))

    @classmethod
    def patient(cls, settings: Timeouts, session: Session) -> "Clients":
        """One that is patient with everything, for work that nobody waits for."""
        dynamodb = patient_dynamodb(settings, session)
        return cls(dynamodb, dynamodb)


def architecture() -> str:
    """The name that Lambda has for the processor of this machine."""
    return "arm64" if os.uname().machine in {"aarch64", "arm64"} else "x86_64"
