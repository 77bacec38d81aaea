"""What the composition roots of the functions behind the gateway have in common."""

from typing import TYPE_CHECKING, Annotated, Protocol

from botocore.session import Session
from msgspec import Meta

from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_limits import DynamoDBLimits
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.bootstrap.settings import FunctionSettings, Seconds, architecture, quick_dynamodb
from shared.domain.cost import RequestCosts
from shared.usecases.admit import Admit
from shared.usecases.authorize import Authorize
from shared.web.callers import Callers
from shared.web.metrics import RequestMetrics
from shared.web.middleware import Observed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = [
    "HttpSettings",
    "WriteSettings",
    "admit",
    "architecture",
    "callers",
    "idempotency",
    "observed",
    "quick_dynamodb",
]


class HttpSettings(FunctionSettings, frozen=True, kw_only=True):
    """Settings of every function behind the gateway."""

    limits_table: str


class Limited(Protocol):
    """Settings with the limiter's table."""

    @property
    def limits_table(self) -> str:
        """Its name."""


class Signed(Protocol):
    """Settings with the tables that bind AWS identities to tenants."""

    @property
    def keys_table(self) -> str:
        """The bindings' table."""

    @property
    def tenants_table(self) -> str:
        """The tenants' table."""

    @property
    def usage_table(self) -> str:
        """The table of what tenants have used of their budgets."""


class Idempotent(Protocol):
    """Settings with the records of idempotency."""

    @property
    def idempotency_table(self) -> str:
        """The name of their table."""

    @property
    def data_bucket(self) -> str:
        """The bucket of answers that are too large for it."""

    @property
    def idempotency_hours(self) -> int:
        """How long an answer is kept."""

    @property
    def connect_timeout_s(self) -> float:
        """For a connection to the store."""

    @property
    def idempotency_read_timeout_s(self) -> float:
        """For the store's answer."""


class WriteSettings(HttpSettings, frozen=True, kw_only=True):
    """Settings of a function that takes an `Idempotency-Key`; an answer is kept for `idempotency_hours`."""

    idempotency_table: str
    data_bucket: str
    idempotency_hours: Annotated[int, Meta(ge=1, le=168)] = 24
    idempotency_read_timeout_s: Seconds = 1.0


def admit(settings: Limited, dynamodb: "DynamoDBClient") -> Admit:
    """Quotas and rate limits on the stack's table."""
    return Admit(DynamoDBLimits(dynamodb, settings.limits_table))


def callers(settings: Signed, dynamodb: "DynamoDBClient") -> Callers:
    """Callers that the authorizer vouches for, and those that signed their requests (SigV4)."""
    authorize = Authorize(
        DynamoDBKeys(dynamodb, settings.keys_table),
        DynamoDBTenants(dynamodb, settings.tenants_table, settings.usage_table),
        pepper=None,  # API keys are the authorizer's: here only signed requests are looked up
    )
    return Callers(lambda arn: authorize.by_role(arn).principal)


def idempotency(settings: Idempotent, session: Session) -> PowertoolsIdempotency:
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


def observed(settings: FunctionSettings, calls: AwsCalls) -> Observed:
    """What the function's lines and answers tell beside the requests; their cost where Lambda runs the function."""
    return Observed(
        RequestMetrics(settings.metrics_namespace),
        start_calls=calls.start,
        calls=calls.counts,
        items=calls.items,
        costs=RequestCosts(settings.prices, settings.memory_mb, architecture()) if settings.memory_mb else None,
    )
