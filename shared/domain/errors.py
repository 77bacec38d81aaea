"""Every error that a caller can meet, each with a stable `code`.

`shared.web.problems` maps the codes to HTTP statuses; a test proves that table complete. The message is for the caller:
it names the field, the limit and what to do, and never holds a traceback or a secret.

    SluiceError
    ├── InvalidRequest            the caller's fault
    │   ├── NotJson · TooDeep · UnknownField · MissingField · WrongDtype · WrongShape · OutOfRange
    │   ├── NotFinite · EmptyBatch · BatchTooLarge · PayloadTooLarge · AnswerTooLarge
    │   ├── UnsupportedMediaType · NotAcceptable
    │   └── BadImage · ImageTooLarge · TextTooLong
    │   ├── InvalidIdempotencyKey · IdempotencyMismatch · DeadlineMissed · AsyncRequired
    │   ├── FeatureMissing · PreconditionRequired · TooManyErrors
    ├── Unauthenticated           nobody vouches for the caller: CredentialExpired
    ├── Refused                   InsufficientScope · VersionNotAllowed
    ├── NotFound                  ModelNotFound · VersionNotFound · KeyNotFound · TenantNotFound · PlanNotFound
    │   └── RevisionNotFound · JobNotFound · UploadNotFound · SourceNotFound · WebhookNotFound
    ├── Conflict                  it is there already: IdempotencyInFlight · PreconditionFailed
    │   └── JobFinished · NoResult
    ├── TooManyRequests           RateLimited · QuotaExceeded
    ├── InvalidPackage · VersionConflict · DigestMismatch
    └── BackendError              BackendUnavailable · BackendTimeout · BackendRejected · JobCrashed · JobExpired
        └── BackendUnavailable    LimiterUnavailable · IdempotencyUnavailable · FeaturesUnavailable
            └──                   CircuitOpen · Overloaded
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

_MAX_NAME = 256


def pointer(base: str, *parts: object) -> str:
    """The JSON pointer (RFC 6901) that leads from `base` through `parts`, names escaped.

    A name of more than 256 characters, which only a caller can have made up, is cut: answers stay small.
    """
    return "/".join([base, *(_escape(str(part)) for part in parts)])


def _escape(name: str) -> str:
    if len(name) > _MAX_NAME:
        name = f"{name[:_MAX_NAME]}…"
    return name.replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True, slots=True)
class FieldError:
    """One place that is wrong: `pointer` is a JSON pointer (RFC 6901) into the request body."""

    pointer: str
    detail: str


class SluiceError(Exception):
    """Root of the tree; `fields` lists the places that are wrong, at most a handful.

    `retry_after_s` is in how many seconds the same request may fare better, None if that cannot be told.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retry_after_s: float | None = None

    def __init__(self, detail: str, *, fields: Sequence[FieldError] = (), retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    @classmethod
    def at(cls, pointer: str, detail: str) -> "SluiceError":
        """The error for one place in the request body."""
        return cls(f"{pointer}: {detail}" if pointer else detail, fields=[FieldError(pointer, detail)])


class InvalidRequest(SluiceError):
    """The request cannot be served as it is; sending it again unchanged will not help."""

    code = "invalid_request"
    title = "Invalid request"


class NotJson(InvalidRequest):
    """The body is not a JSON document, or not one in UTF-8."""

    code = "not_json"
    title = "Not JSON"


class TooDeep(InvalidRequest):
    """Arrays and objects are nested deeper than the limit."""

    code = "too_deep"
    title = "Nested too deep"


class UnknownField(InvalidRequest):
    """A field, tensor or feature that the model or the request format does not have."""

    code = "unknown_field"
    title = "Unknown field"


class MissingField(InvalidRequest):
    """A field, tensor or feature that is needed is not there."""

    code = "missing_field"
    title = "Missing field"


class WrongDtype(InvalidRequest):
    """A value is of another type than the signature says."""

    code = "wrong_dtype"
    title = "Wrong type"


class WrongShape(InvalidRequest):
    """A tensor has another shape than the signature says, or is ragged."""

    code = "wrong_shape"
    title = "Wrong shape"


class OutOfRange(InvalidRequest):
    """A value does not fit its dtype or the range that the manifest declares."""

    code = "out_of_range"
    title = "Value out of range"


class NotFinite(InvalidRequest):
    """A value is NaN or infinite, or too large for the input's floating point type."""

    code = "not_finite"
    title = "Not a finite number"


class EmptyBatch(InvalidRequest):
    """There is no instance to predict."""

    code = "empty_batch"
    title = "Empty batch"


class BatchTooLarge(InvalidRequest):
    """More instances than the model's limit."""

    code = "batch_too_large"
    title = "Batch too large"


class PayloadTooLarge(InvalidRequest):
    """The body has more bytes than the limit."""

    code = "payload_too_large"
    title = "Payload too large"


class AnswerTooLarge(InvalidRequest):
    """The answer would have more bytes than can be returned; fewer instances make it smaller."""

    code = "answer_too_large"
    title = "Answer too large"


class UnsupportedMediaType(InvalidRequest):
    """The `Content-Type` is not one that this route reads."""

    code = "unsupported_media_type"
    title = "Unsupported media type"


class NotAcceptable(InvalidRequest):
    """No type in `Accept` is one that this route writes."""

    code = "not_acceptable"
    title = "Not acceptable"


class BadImage(InvalidRequest):
    """The bytes are not a whole PNG or JPEG image."""

    code = "bad_image"
    title = "Not an image"


class ImageTooLarge(InvalidRequest):
    """The image has more pixels than the limit; told from its header, before it is decompressed."""

    code = "image_too_large"
    title = "Image too large"


class TextTooLong(InvalidRequest):
    """A string is longer than the limit."""

    code = "text_too_long"
    title = "Text too long"


class DeadlineMissed(InvalidRequest):
    """The prediction did not fit into the time that the request itself gave it."""

    code = "deadline_missed"
    title = "Not done in the time that the request gave"


class AsyncRequired(InvalidRequest):
    """The prediction cannot finish in the time of a synchronous answer, and the request did not ask for a job."""

    code = "async_required"
    title = "Too long for a synchronous answer"


class FeatureMissing(InvalidRequest):
    """A feature that the model needs is not stored for this entity, or too old, and has no default."""

    code = "feature_missing"
    title = "Feature missing"


class TooManyErrors(InvalidRequest):
    """More rows of a batch were wrong than it was declared to bear."""

    code = "too_many_errors"
    title = "Too many wrong rows"


class PreconditionRequired(InvalidRequest):
    """The change does not say which state it is meant for: send `If-Match`, or `If-None-Match: *`."""

    code = "precondition_required"
    title = "Precondition required"


class InvalidIdempotencyKey(InvalidRequest):
    """The `Idempotency-Key` has other than 1 to 255 visible ASCII characters."""

    code = "invalid_idempotency_key"
    title = "Invalid idempotency key"


class IdempotencyMismatch(InvalidRequest):
    """The `Idempotency-Key` was used before with another payload."""

    code = "idempotency_mismatch"
    title = "Idempotency key used for another request"


class Unauthenticated(SluiceError):
    """The request comes without a caller. Behind the gateway that cannot be: a route was left open by mistake."""

    code = "unauthenticated"
    title = "Credential missing"


class CredentialExpired(Unauthenticated):
    """The credential was good when the gateway last asked, and has expired since."""

    code = "credential_expired"
    title = "Credential expired"


class Refused(SluiceError):
    """The caller is known and may not do this."""

    code = "refused"
    title = "Refused"


class InsufficientScope(Refused):
    """The credential lacks the scope that the route asks for."""

    code = "insufficient_scope"
    title = "Scope missing"


class VersionNotAllowed(Refused):
    """The endpoint's configuration does not let requests choose this version."""

    code = "version_not_allowed"
    title = "Version not open to requests"


class NotFound(SluiceError):
    """There is no such thing, or it is not the caller's."""

    code = "not_found"
    title = "Not found"


class ModelNotFound(NotFound):
    """No model of this name is published."""

    code = "model_not_found"
    title = "Unknown model"


class VersionNotFound(NotFound):
    """The model has no such version."""

    code = "version_not_found"
    title = "Unknown version"


class KeyNotFound(NotFound):
    """There is no such API key."""

    code = "key_not_found"
    title = "Unknown key"


class TenantNotFound(NotFound):
    """There is no such tenant."""

    code = "tenant_not_found"
    title = "Unknown tenant"


class PlanNotFound(NotFound):
    """There is no such plan."""

    code = "plan_not_found"
    title = "Unknown plan"


class RevisionNotFound(NotFound):
    """The endpoint has no such revision, or it is too old to be kept."""

    code = "revision_not_found"
    title = "Unknown revision"


class JobNotFound(NotFound):
    """There is no such job, or it is another tenant's."""

    code = "job_not_found"
    title = "Unknown job"


class UploadNotFound(NotFound):
    """There is no such upload, or its content has not arrived, or it is another tenant's."""

    code = "upload_not_found"
    title = "Unknown upload"


class SourceNotFound(NotFound):
    """There is no such object, or the tenant may not read it."""

    code = "source_not_found"
    title = "Unknown object"


class WebhookNotFound(NotFound):
    """There is no such webhook or delivery, or it is another tenant's."""

    code = "webhook_not_found"
    title = "Unknown webhook"


class Conflict(SluiceError):
    """What is asked for collides with what is there."""

    code = "conflict"
    title = "Conflict"


class IdempotencyInFlight(Conflict):
    """A request with this `Idempotency-Key` is being answered."""

    code = "idempotency_in_flight"
    title = "The same request is in flight"


class PreconditionFailed(Conflict):
    """What was to be changed has been changed by somebody else since it was read."""

    code = "precondition_failed"
    title = "Changed meanwhile"


class JobFinished(Conflict):
    """The job has ended, so nothing about it can be changed any more."""

    code = "job_finished"
    title = "Job has ended"


class NoResult(Conflict):
    """The job has no result: it has not ended yet, or it failed, or it was cancelled."""

    code = "no_result"
    title = "No result"


class TooManyRequests(SluiceError):
    """The caller has had its share; `retry_after_s` is when it has some again."""

    code = "too_many_requests"
    title = "Too many requests"
    retry_after_s = 1.0


class RateLimited(TooManyRequests):
    """More requests a second than the key's or the tenant's plan allows."""

    code = "rate_limited"
    title = "Rate limit reached"


class QuotaExceeded(TooManyRequests):
    """More requests in a day or a month than the tenant's plan allows."""

    code = "quota_exceeded"
    title = "Quota used up"


class InvalidPackage(SluiceError):
    """A model package that cannot be published or loaded: the message says which part of it."""

    code = "invalid_package"
    title = "Invalid model package"


class VersionConflict(SluiceError):
    """The version is published already, with other bytes. Versions are immutable: publish the next one."""

    code = "version_conflict"
    title = "Version exists with other content"


class DigestMismatch(InvalidPackage):
    """A stored package does not have the bytes that its registry entry promises."""

    code = "digest_mismatch"
    title = "Package damaged"


class BackendError(SluiceError):
    """The backend that runs the model failed; the request itself may be fine.

    `retryable` says that no backend took the call on, so that it may be made again: refused, throttled, not reached.
    Adapters set it, where they know better than the class. False: it may have run, or would fail again.
    `blames_backend` says that it speaks against the health of the backend, so that circuits count it. False: what was
    sent may be the cause.
    """

    code = "backend_error"
    title = "Backend failed"
    retryable: bool = False
    blames_backend: bool = True

    def __init__(
        self,
        detail: str,
        *,
        fields: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(detail, fields=fields, retry_after_s=retry_after_s)
        if retryable is not None:
            self.retryable = retryable


class BackendUnavailable(BackendError):
    """The backend cannot take the request now: not there, not ready, overloaded or throttled."""

    code = "backend_unavailable"
    title = "Backend unavailable"
    retryable = True


class LimiterUnavailable(BackendUnavailable):
    """The rate limiter's store fails, and the caller's plan says that nothing passes unlimited."""

    code = "limiter_unavailable"
    title = "Rate limiter unavailable"
    retry_after_s = 1.0


class IdempotencyUnavailable(BackendUnavailable):
    """The store of idempotency records fails, and the request asked to run exactly once."""

    code = "idempotency_unavailable"
    title = "Idempotency store unavailable"
    retry_after_s: float | None = 1.0


class FeaturesUnavailable(BackendUnavailable):
    """The feature store fails, and the endpoint does not go on with defaults."""

    code = "features_unavailable"
    title = "Feature store unavailable"


class CircuitOpen(BackendUnavailable):
    """The backend failed too often a moment ago, and is left alone for a while."""

    code = "circuit_open"
    title = "Backend given a pause"
    retry_after_s = 1.0


class Overloaded(BackendUnavailable):
    """As many calls of this backend are under way as may be, or as this priority may make."""

    code = "overloaded"
    title = "Too many calls of this backend"
    retry_after_s = 1.0


class BackendTimeout(BackendError):
    """The backend did not answer in time."""

    code = "backend_timeout"
    title = "Backend timed out"


class JobCrashed(BackendError):
    """The worker ended in the middle of the job as often as it may."""

    code = "job_crashed"
    title = "Job crashed"


class JobExpired(BackendError):
    """The job's time was over before it could be done."""

    code = "job_expired"
    title = "Job expired"


class BackendRejected(BackendError):
    """The backend refused a request that the signature allows: its own message is kept."""

    code = "backend_rejected"
    title = "Backend rejected the request"
