"""What the use cases need from the outside; `shared.adapters` implements it, `tests.fakes` does so in memory."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shared.domain.dead_letters import DeadLetter
from shared.domain.endpoint.config import EndpointConfig, EndpointState, StoredEndpoint
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.errors import FieldError, RateLimited, SluiceError
from shared.domain.features import EntityKey, FeatureRecord
from shared.domain.idempotency import IdempotencyScope, StoredAnswer
from shared.domain.jobs import Claim, Job, JobFilter, JobPage, JobProblem, ObjectRef, Outcome, Ticket
from shared.domain.jwt_claims import TokenIdentity
from shared.domain.model import ModelVersion, PackageDescription
from shared.domain.pipeline import Pipeline
from shared.domain.plans import Plan
from shared.domain.principal import Principal
from shared.domain.tenants import Standing, Tenant
from shared.domain.uploads import NewUpload, ObjectHead

if TYPE_CHECKING:  # NumPy is heavy, and the authorizer and the catalogue read this module without it
    from datetime import date

    from shared.domain.audit import Anchor, Appended, Head, Segment
    from shared.domain.endpoint.traffic_counts import TrafficKey
    from shared.domain.tensors import Tensors
    from shared.domain.usage import Usage, UsageKey, UsageRow


@dataclass(slots=True)  # not frozen: made for every attempt, and that takes three times as long
class InferenceContext:
    """What travels with a prediction to the backend.

    `deadline_ms` is the time left when the call is made, `traceparent` the trace in W3C's form. Of `priority`, 1 to
    255, a lower number is served first; 0 leaves it to the backend.
    """

    request_id: str
    tenant: str
    deadline_ms: int
    traceparent: str | None = None
    priority: int = 0

    def within(self, deadline_ms: int) -> "InferenceContext":
        """The same with another deadline."""
        return InferenceContext(self.request_id, self.tenant, deadline_ms, self.traceparent, self.priority)


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


class PipelineReader(Protocol):
    """Reads the packages that have a pipeline in place of a graph, before they are published."""

    def read(self, folder: Path) -> Pipeline | None:
        """The pipeline of a package, None for one that is none; InvalidPackage says what is wrong."""

    def complete(self, folder: Path, steps: Mapping[str, ModelVersion], whole: Path) -> PackageDescription:
        """Hold the pipeline in `folder` against its steps, by name, and write the whole package to `whole`.

        The manifest there has the steps' digests, and the outer signature if it was left out. InvalidPackage.
        """


class Backend(Protocol):
    """Runs a version somewhere: takes and gives outer tensors that the signature allows."""

    def infer(self, version: ModelVersion, inputs: "Tensors", context: InferenceContext) -> "Tensors":
        """Run the model; raises InvalidRequest for faulty content (an image that is not one) and BackendError."""


class AsyncBackend(Protocol):
    """A backend that takes a prediction on and answers later."""

    def hand_in(
        self, version: ModelVersion, inputs: "Tensors", context: InferenceContext, reference: str
    ) -> Mapping[str, str]:
        """Begin; what `fetch` needs to find the answer. Raises BackendError, PayloadTooLarge.

        `reference` (at most 64 of A-Z, a-z, 0-9 and `-`) comes back in what the backend tells of it.
        """

    def fetch(
        self, version: ModelVersion, ticket: Mapping[str, str], rows: int | None
    ) -> "Tensors | SluiceError | None":
        """The outer outputs, None if there is no answer yet, or the error that came of the prediction.

        Raises BackendError where that cannot be told now. `rows` is None for a version without an axis of instances.
        """


class JobStore(Protocol):
    """Keeps jobs. Every change of a job is one conditional write; raises BackendError."""

    def add(self, job: Job) -> None:
        """Store a new job; Conflict if there is one of this id."""

    def get(self, tenant: str, job_id: str) -> Job:
        """A job of this tenant; JobNotFound, also for another tenant's and for one that has expired."""

    def find(self, job_id: str) -> Job | None:
        """A job by its id alone, for our own workers; None if there is no such one or it has expired."""

    def list(self, tenant: str, which: JobFilter, *, limit: int, after: str | None = None) -> JobPage:
        """At most `limit` jobs of a tenant, the newest first, that are older than the id `after`."""

    def claim(self, job_id: str, owner: str, now: float, lease_s: float) -> Claim:
        """Take a queued job, or a running one whose lease is over, and count the attempt."""

    def renew(self, job_id: str, owner: str, lease_until: float, rows_done: int) -> bool:
        """Hold a job longer, and note its progress; False if it is no longer the owner's (cancelled, or taken)."""

    def hand_over(self, job_id: str, owner: str, ticket: Mapping[str, str], ran: Outcome, due_at: float) -> bool:
        """Leave a job to an asynchronous backend; version, variant, backend and rows are those of `ran`."""

    def requeue(
        self, job_id: str, owner: str | None, problem: JobProblem | None, due_at: float, *, ticket: Ticket | None = None
    ) -> bool:
        """Put a running job back among the queued ones, if it is `owner`'s, or waits with just this ticket.

        With neither: one that waits with any, or whose lease is over.
        """

    def finish(
        self, job_id: str, outcome: Outcome, at: float, *, owner: str | None = None, ticket: Ticket | None = None
    ) -> bool:
        """Write what came of a job; False if it has ended already.

        Also if it is not `owner`'s, or does not wait with just this ticket; None: whoever holds it, whatever it has.
        """

    def restart(self, tenant: str, job_id: str, now: float) -> Job:
        """Queue a failed or cancelled job anew, with no attempts and no problem; JobNotFound, Conflict."""

    def overdue(self, now: float) -> Iterator[Sequence[Job]]:
        """Pages of jobs that have not ended and whose `due_at` has passed, the longest overdue first.

        Each is read when it is asked for, and may be empty.
        """

    def postpone(self, job: Job, due_at: float) -> bool:
        """Look at an unfinished job later; False if it has changed since it was read: another sweep was first."""


class JobQueue(Protocol):
    """Where jobs wait for a worker."""

    def send(self, tenant: str, job_id: str, *, delay_s: float = 0.0) -> None:
        """Ask for a job to be run; the tenants take turns. `delay_s` is 900 at most. Raises BackendError."""

    def waiting(self) -> int:
        """About how many messages wait to be received."""


class DeadLetters(Protocol):
    """Where jobs go that could not be done."""

    def send(self, job: Job, problem: JobProblem) -> None:
        """Put a job there, with the reason; raises BackendError."""


class DeadLetterQueue(Protocol):
    """What could not be done, for those who look after it; raises BackendError."""

    def receive(self, limit: int) -> Sequence[DeadLetter]:
        """Some letters, at most `limit`, that nobody else is shown for a while; none where there are none."""

    def remove(self, letter: DeadLetter) -> None:
        """Remove a letter for good."""

    def release(self, letter: DeadLetter) -> None:
        """Let others see a letter again."""


class JobObjects(Protocol):
    """Bodies and results of jobs that are too large for the job's item."""

    def put_body(self, tenant: str, job_id: str, body: bytes, media_type: str) -> ObjectRef:
        """Store a request's body; raises BackendError."""

    def put_result(self, tenant: str, job_id: str, owner: str, body: bytes, media_type: str) -> ObjectRef:
        """Store a result under a name of this owner's own: two workers never write one object."""

    def read(self, ref: ObjectRef, max_bytes: int) -> bytes:
        """The content; SourceNotFound, PayloadTooLarge, BackendError."""

    def url(self, ref: ObjectRef, seconds: int, *, media_type: str, file_name: str) -> str:
        """An address that anybody can download the object from, for that long."""


class ObjectStore(Protocol):
    """Objects that callers uploaded or named."""

    def head(self, ref: ObjectRef) -> ObjectHead:
        """What is known of an object, of its newest version if `ref` names none; SourceNotFound, BackendError."""


class UploadAddresses(Protocol):
    """Makes addresses that content can be uploaded to."""

    def put_url(self, ref: ObjectRef, new: NewUpload, seconds: int) -> tuple[str, Mapping[str, str]]:
        """An address that takes a PUT of exactly this content, once, for that long; and the headers to send."""


class Backends(Protocol):
    """The backends of this environment, made when they are first needed."""

    def get(self, name: str, config: EndpointConfig) -> Backend:
        """`function`, `container` or one of `config.backends`; BackendUnavailable where there is no such one."""


class BackendKinds(Protocol):
    """The kinds of backends that endpoints can choose beside the stack's own."""

    def problems(self, kind: str, options: Mapping[str, Any]) -> Sequence[FieldError]:
        """What is wrong with a choice, an unknown kind included; pointers begin there (`/kind`, `/options/…`)."""


class AnswerStore(Protocol):
    """Keeps answers for equal requests, for a while."""

    def get(self, key: str) -> KeptAnswer | None:
        """The answer kept under a key, however old; raises BackendError."""

    def put(self, key: str, answer: KeptAnswer, keep_s: float) -> bool:
        """Keep an answer for that many seconds; False if it is too large. Raises BackendError."""

    def lease(self, key: str, seconds: float) -> bool:
        """Whether the caller is the one to make this answer (anew): for that long nobody else is told so."""

    def release(self, key: str) -> None:
        """Give a lease back before its time, since nothing came of it; raises BackendError."""


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
    """Keeps the configurations of endpoints, and the ones before them."""

    def get(self, endpoint: str) -> StoredEndpoint | None:
        """What is stored for an endpoint, or None: then the defaults hold."""

    def put(self, stored: StoredEndpoint) -> None:
        """Store the next revision, and keep it in the history: both or neither.

        PreconditionFailed unless revision `stored.revision - 1` is what is there (0: nothing).
        """

    def list(self) -> Sequence[StoredEndpoint]:
        """Everything that is in force, by endpoint."""

    def history(self, endpoint: str, *, limit: int = 20, before: int | None = None) -> Sequence[StoredEndpoint]:
        """The last `limit` revisions below `before`, the newest first, the one in force among them."""

    def revision(self, endpoint: str, revision: int) -> StoredEndpoint:
        """One of the revisions that are kept; RevisionNotFound."""


class EndpointReader(Protocol):
    """Reads what the environments share of an endpoint, in one call."""

    def read(self, endpoint: str) -> EndpointState:
        """The configuration and the open circuits; raises BackendError."""


class GuardStore(Protocol):
    """What protects backends across environments; an endpoint's circuits are read with its configuration."""

    def open(self, endpoint: str, circuit: str, until: float) -> None:
        """Tell the others that a circuit is open until then (seconds since 1970); never shortens what is stored."""

    def close(self, endpoint: str, circuit: str) -> None:
        """Tell the others that a circuit is closed again."""

    def acquire(self, endpoint: str, pool: str, slots: int, expires_at: float, now: float) -> "Lease | None":
        """One of `slots` places in a pool, free again at `expires_at` at the latest; None if all are taken."""

    def release(self, lease: "Lease") -> None:
        """Give a place back; nothing happens if it has expired and is another's."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A place in the pool of an endpoint, taken until `expires_at` (seconds since 1970)."""

    endpoint: str
    pool: str
    slot: int
    expires_at: float


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


class FeatureReader(Protocol):
    """Fetches features for requests."""

    def read(
        self, tenant: str, keys: Collection[EntityKey], names: Collection[str], deadline_s: float
    ) -> Mapping[EntityKey, FeatureRecord]:
        """What is stored under at most `MAX_KEYS` keys, of which `names` are wanted; what is not there is left out.

        It has `deadline_s` seconds. Raises FeaturesUnavailable; ValueError for too many keys.
        """


class FeatureStore(FeatureReader, Protocol):
    """Keeps the features of entities, by tenant; a tenant never sees another's."""

    def get(self, tenant: str, key: EntityKey) -> FeatureRecord | None:
        """What is stored under a key, as it was last written; raises BackendError."""

    def put(self, tenant: str, records: Collection[FeatureRecord]) -> Collection[EntityKey]:
        """Store records, each in place of what is there, and of several with one key the last.

        The keys of those that were not stored, since the store is busy; raises BackendError where none was.
        """

    def delete(self, tenant: str, key: EntityKey) -> FeatureRecord | None:
        """Remove what is stored under a key, and give it back; raises BackendError."""


class UsageStore(Protocol):
    """Knows what tenants used."""

    def of_tenant(self, tenant: str, since: "date", until: "date") -> "Sequence[UsageRow]":
        """The rows of the UTC days from `since` to `until`, both included: by day, each day's sum before its models."""


class AuditLedger(Protocol):
    """Where batches of the log are written to, each once."""

    def head(self, shard: str) -> "Head | None":
        """The head of a shard as it is now; None for one without segments."""

    def append(
        self,
        segment: "Segment",
        before: "Head",
        usage: "Mapping[UsageKey, Usage]",
        traffic: "Mapping[TrafficKey, Mapping[str, int]]",
    ) -> "Appended":
        """Add a segment after `before`, and the usage and the traffic of its batch (counters by their names).

        All of it or, unless the answer is WRITTEN, nothing.
        BackendUnavailable while the store is throttled or away: then it is not known whether it was written.
        """


class TrafficStore(Protocol):
    """Knows what the traffic of endpoints showed."""

    def of_endpoint(self, endpoint: str, since: "date", until: "date") -> "Sequence[Mapping[str, int]]":
        """The counters of the UTC days from `since` to `until`, both included, in parts that are to be added up."""


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
