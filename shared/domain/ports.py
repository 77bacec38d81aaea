"""What the use cases need from the outside; `shared.adapters` implements it, `tests.fakes` does so in memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.domain.endpoint_settings import EndpointSettings
from shared.domain.errors import RateLimited
from shared.domain.idempotency import IdempotencyScope, StoredAnswer
from shared.domain.jwt_claims import TokenIdentity
from shared.domain.model import ModelVersion, PackageDescription
from shared.domain.plans import Plan
from shared.domain.principal import Principal
from shared.domain.tenants import Standing, Tenant

if TYPE_CHECKING:  # NumPy is heavy, and the authorizer and the catalogue read this module without it
    from datetime import date

    from shared.domain.audit import Anchor, Appended, Head, Segment
    from shared.domain.tensors import Tensors
    from shared.domain.usage import Usage, UsageKey, UsageRow


@dataclass(frozen=True, slots=True)
class InferenceContext:
    """What travels with a prediction to the backend.

    `deadline_ms` is the time left when the call is made, `traceparent` the trace in W3C's form.
    """

    request_id: str
    tenant: str
    deadline_ms: int
    traceparent: str | None = None


class ModelRegistry(Protocol):
    """Knows the published versions."""

    def latest(self, model: str) -> ModelVersion:
        """The highest version; ModelNotFound if there is none."""

    def get(self, model: str, version: int) -> ModelVersion:
        """One version; ModelNotFound or VersionNotFound."""

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """All versions, the highest first; ModelNotFound if there is none."""

    def models(self) -> Sequence[ModelVersion]:
        """The highest version of every model, by name."""

    def add(self, version: ModelVersion) -> bool:
        """Add a version; False if it was there with the same digest, VersionConflict if with another."""


class PackageStore(Protocol):
    """Holds the files of packages."""

    def upload(self, version: ModelVersion, folder: Path) -> None:
        """Store the files of `version`, read from `folder`."""

    def download(self, version: ModelVersion, folder: Path) -> None:
        """Write the files of `version` below `folder`; DigestMismatch if a byte differs."""


class PackageReader(Protocol):
    """Reads a package folder before it is published."""

    def describe(self, folder: Path) -> PackageDescription:
        """Load the package and check its manifest against its graph; InvalidPackage says what is wrong."""


class Backend(Protocol):
    """Runs a version somewhere: takes and gives outer tensors that the signature allows."""

    def infer(self, version: ModelVersion, inputs: "Tensors", context: InferenceContext) -> "Tensors":
        """Run the model; raises InvalidRequest for faulty content (an image that is not one) and BackendError."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored credential: an API key, or an IAM principal that signs its requests (`key_id` is `iam#<ARN>`).

    `secret_hash` is the keyed hash of the key's secret part in hexadecimal, empty for IAM principals. `name` is a
    label. Times are in seconds since 1970. `replaced_by` is the id of the key that a rotation made in its place.
    """

    key_id: str
    secret_hash: str
    tenant: str
    scopes: frozenset[str]
    name: str = ""
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None
    replaced_by: str | None = None


class KeyStore(Protocol):
    """Knows the API keys. Whoever reads one checks its expiry and revocation."""

    def get(self, key_id: str) -> ApiKey | None:
        """The key, or None if there is no such key."""

    def add(self, key: ApiKey) -> None:
        """Store a new key; Conflict if the id is taken, ValueError if it cannot be one."""

    def of_tenant(self, tenant: str) -> Sequence[ApiKey]:
        """All keys of a tenant, by id: the expired and revoked ones too, as long as they are stored."""

    def revoke(self, key_id: str, at: int) -> ApiKey:
        """End a key for good and return it; the first revocation's time stays. KeyNotFound."""

    def replace(self, old_key_id: str, new: ApiKey, old_expires_at: int) -> None:
        """Store `new` and let the old key end at `old_expires_at`, both or neither.

        KeyNotFound if the tenant of `new` has no such old key. Conflict if the new id is taken, or if the old key is
        revoked, replaced already or ends before `old_expires_at`: a rotation prolongs nothing.
        """

    def bind(self, key: ApiKey) -> None:
        """Store the binding of an IAM principal, in place of the one that is there; ValueError for any other key."""


class TenantStore(Protocol):
    """Knows the tenants, the plans, and what tenants have used."""

    def get(self, name: str) -> Tenant | None:
        """The tenant, or None if there is no such tenant."""

    def add(self, tenant: Tenant) -> None:
        """Store a new tenant; Conflict if there is one of this name."""

    def update(self, tenant: Tenant, before: Tenant | None = None) -> bool:
        """Replace a stored tenant; False where that is not `before`, TenantNotFound where there is none."""

    def list(self) -> Sequence[Tenant]:
        """All tenants, by name."""

    def plan(self, name: str) -> Plan | None:
        """The stored plan, or None if there is no such plan."""

    def put_plan(self, plan: Plan) -> None:
        """Store a plan, in place of the one of this name if there is one."""

    def plans(self) -> Sequence[Plan]:
        """All stored plans, by name."""

    def standing(self, tenant: str, day: str, month: str) -> Standing:
        """The tenant and its requests in two periods (`shared.domain.tenants.day_of`, `month_of`)."""


class TokenVerifier(Protocol):
    """Knows which bearer tokens hold."""

    def verify(self, token: str) -> TokenIdentity:
        """Who the token speaks for; TokenRefused if it does not hold, BackendError if that cannot be told now."""


class EndpointStore(Protocol):
    """Knows what is set for endpoints."""

    def get(self, endpoint: str) -> EndpointSettings | None:
        """What is stored for an endpoint, or None: then the defaults hold."""

    def put(self, settings: EndpointSettings) -> None:
        """Store `settings` if version `settings.version - 1` is what is there (0: nothing), else raise Conflict."""

    def list(self) -> Sequence[EndpointSettings]:
        """Everything that is stored, by endpoint."""


class IdempotencyStore(Protocol):
    """Runs the requests with one `Idempotency-Key` once, and keeps their answer."""

    def run(
        self,
        scope: IdempotencyScope,
        key: str,
        payload_digest: bytes,
        remaining_ms: int,
        produce: Callable[[], StoredAnswer],
        *,
        seal_with: bytes | None = None,
    ) -> tuple[StoredAnswer, bool]:
        """The one answer to `key` in `scope`, and whether it is a replay; `produce` makes it if there is none.

        `payload_digest` is the SHA-256 of the request, `remaining_ms` the time after which the key is free if nothing
        is stored by then; with the secret `seal_with` the answer is stored encrypted. Answers of 400 or more, and what
        `produce` raises, pass through and free the key. Raises InvalidIdempotencyKey, IdempotencyInFlight,
        IdempotencyMismatch and IdempotencyUnavailable.
        """


class UsageStore(Protocol):
    """Knows what tenants used."""

    def of_tenant(self, tenant: str, since: "date", until: "date") -> "Sequence[UsageRow]":
        """The rows of the UTC days from `since` to `until`, both included: by day, each day's sum before its models."""


class AuditLedger(Protocol):
    """Where batches of the log are written to, each once."""

    def head(self, shard: str) -> "Head | None":
        """The head of a shard as it is now; None for one without segments."""

    def append(self, segment: "Segment", before: "Head", usage: "Mapping[UsageKey, Usage]") -> "Appended":
        """Add a segment after `before` and the usage of its batch: all of it or, unless the answer is WRITTEN, nothing.

        BackendUnavailable while the store is throttled or away: then it is not known whether it was written.
        """


class AuditTrail(Protocol):
    """The audit chain for those who read it."""

    def shards(self) -> Sequence[str]:
        """The shards that have segments."""

    def head(self, shard: str) -> "Head | None":
        """The head of a shard as it is now; None for one without."""

    def segments(self, shard: str, after: int = 0) -> "Iterable[Segment]":
        """The segments of a shard with a higher number than `after`, in order, as they are stored."""

    def newest(self, shard: str) -> "Iterable[Segment]":
        """The segments of a shard, the newest first."""


class AnchorStore(Protocol):
    """Keeps heads of the audit chain where they cannot be changed."""

    def shards(self) -> Sequence[str]:
        """The shards that have an anchor."""

    def latest(self, shard: str, after: int) -> tuple[int, float] | None:
        """The last anchored segment above `after`, and when it was anchored (seconds since 1970); None if none is."""

    def add(self, anchor: "Anchor") -> bool:
        """Write an anchor; False if that segment has one with another hash, which stays as it is."""

    def of_shard(self, shard: str) -> "Iterable[Anchor]":
        """All anchors of a shard, each as it was first written."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """How a caller stands against one limit: `quota` requests at once, refilled in `window_s` seconds.

    `remaining` is how many pass now, `reset_s` in how many seconds one more does.
    """

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """A request that may pass; `degraded` if nobody could count it, because the limiter's store failed."""

    policies: tuple[PolicyState, ...]
    degraded: bool = False


class LimitReached(RateLimited):
    """The limiter refuses: `allowance` is how the caller stands, for the headers of the answer."""

    def __init__(self, detail: str, *, retry_after_s: float, allowance: Allowance) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.allowance = allowance


class RateLimiter(Protocol):
    """Counts requests against what their caller may do."""

    def take(self, principal: Principal) -> Allowance:
        """Count one request; raises LimitReached for one too many, and BackendError if the count cannot be kept."""
