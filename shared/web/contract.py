"""What routes say of themselves in the OpenAPI document.

Routes name schemas of `shared.schemas.api` by reference instead of as FastAPI response models: the document is put
together once, by `infra.openapi`, and no answer pays for a second validation.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from shared.codecs.content.media import CSV, JSON, JSON_LINES, MULTIPART
from shared.domain import errors
from shared.domain.errors import SluiceError
from shared.web.problems import MEDIA_TYPE, STATUS

Responses = dict[int | str, dict[str, Any]]
SECURITY_SCHEME = "bearer"
SECURED: dict[str, Any] = {"security": [{SECURITY_SCHEME: []}]}
_TEXTS: Mapping[str, dict[str, Any]] = {
    CSV: {"type": "string", "description": "A row for each instance, with a header row or without."},
    JSON_LINES: {"type": "string", "description": "An instance on each line."},
    MULTIPART: {
        "type": "object",
        "description": "Parts named as inputs, or `file`; each is one instance's value, as JSON or as a file.",
        "minProperties": 1,
    },
}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
HEADERS: Mapping[str, dict[str, Any]] = {
    "RequestId": {"description": "The caller's, if it sent a well-formed one.", "schema": {"type": "string"}},
    "CostUsd": {
        "description": "What the request cost in US dollars, an estimate. Every answer has it, problems included.",
        "schema": {"type": "string", "pattern": r"^[0-9]+\.[0-9]{9}$"},
    },
    "PricesDate": {
        "description": "The date of the prices that the cost is reckoned by.",
        "schema": {"type": "string", "format": "date"},
    },
    "RateLimit": {
        "description": "How many more requests pass now for the key and the tenant (`r`), and when more do (`t`, s).",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds after which the same request may fare better.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Fallback": {
        "description": "What answered in place of the variant that should have: another one, `cached` or `static`.",
        "schema": {"type": "string"},
    },
    "CacheStatus": {
        "description": "Whether the answer is a kept one (RFC 9211); only of endpoints that keep answers.",
        "schema": {"type": "string"},
    },
    "Age": {
        "description": "Seconds since a kept answer was made.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Location": {"description": "Where the job is found.", "schema": {"type": "string"}},
    "PreferenceApplied": {
        "description": "`respond-async` if the request asked for that in `Prefer`, and became a job.",
        "schema": {"type": "string"},
    },
}
"""Headers that answers refer to; `infra.openapi` puts them into the document's components."""
_EVERY = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
# Problems have these, too; told once for each route, and not for each of its problems: the document is large enough.
_OK = {
    **_EVERY,
    "X-Sluice-Cost-Usd": {"$ref": "#/components/headers/CostUsd"},
    "X-Sluice-Prices-Date": {"$ref": "#/components/headers/PricesDate"},
}
OF_PREDICTIONS: Mapping[str, dict[str, str]] = {
    "X-Sluice-Fallback": {"$ref": "#/components/headers/Fallback"},
    "Cache-Status": {"$ref": "#/components/headers/CacheStatus"},
    "Age": {"$ref": "#/components/headers/Age"},
}
"""Headers that a prediction may have beside those of every answer."""
OF_JOBS: Mapping[str, dict[str, str]] = {
    "Location": {"$ref": "#/components/headers/Location"},
    "Preference-Applied": {"$ref": "#/components/headers/PreferenceApplied"},
}
"""Headers of an answer 202: the prediction became a job."""
_RETRY = {**_EVERY, "Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_LIMITED = {**_RETRY, "RateLimit": {"$ref": "#/components/headers/RateLimit"}}
_OF_STATUS = {409: _RETRY, 429: _LIMITED, 503: _RETRY}


# What the door may say of any request, and of one with an Idempotency-Key.
ADMISSION: tuple[type[SluiceError], ...] = (
    errors.Unauthenticated,
    errors.CredentialExpired,
    errors.InsufficientScope,
    errors.PayloadTooLarge,
    errors.RateLimited,
    errors.QuotaExceeded,
    errors.BackendError,
    errors.BackendUnavailable,
    errors.LimiterUnavailable,
    errors.BackendTimeout,
)
ONCE: tuple[type[SluiceError], ...] = (
    errors.InvalidIdempotencyKey,
    errors.IdempotencyInFlight,
    errors.IdempotencyMismatch,
    errors.IdempotencyUnavailable,
)
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "description": "A repeated request with the same key gets the answer of the first one.",
}

ROUTING: tuple[dict[str, Any], ...] = (
    {
        "name": "X-Sluice-Deadline-Ms",
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": "Milliseconds in which an answer is of use; the endpoint's own timeout holds as well.",
    },
    {
        "name": "Cache-Control",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "`no-cache` has the answer made anew, `no-store` has it neither taken from the cache nor kept.",
    },
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "`respond-async` takes a job (202) where no answer has time enough for the prediction.",
    },
)
"""Headers of predictions that say how they are to be answered."""


def reference(schema: str) -> dict[str, str]:
    """A reference to a schema of `shared.schemas.api`."""
    return {"$ref": f"#/components/schemas/{schema}"}


def answers(description: str, schema: dict[str, Any], *problems: type[SluiceError]) -> Responses:
    """The answers of a route: 200 with a document, and its errors grouped by status with their codes.

    Every route may also answer 500.
    """
    responses: Responses = {200: document(description, schema)}
    codes: defaultdict[int, list[str]] = defaultdict(list)
    possible: dict[type[SluiceError], None] = dict.fromkeys((*problems, SluiceError))
    for error in possible:
        codes[STATUS[error].value].append(error.code)
    for status in sorted(codes):
        responses[status] = {
            "description": "Problem: " + ", ".join(f"`{code}`" for code in codes[status]),
            "headers": _OF_STATUS.get(status, _EVERY),
            "content": {MEDIA_TYPE: {"schema": reference("Problem")}},
        }
    return responses


def of_prediction(responses: Responses) -> Responses:
    """The answers of a prediction: with the headers that tell where it came from, and 202 for a job."""
    own = {**responses[200], "headers": {**responses[200]["headers"], **OF_PREDICTIONS}}
    job = document("The prediction is answered later.", reference("JobDocument"))
    return {**responses, 200: own, 202: {**job, "headers": {**job["headers"], **OF_JOBS}}}


def document(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An answer that is a JSON document."""
    return {
        "description": description,
        "headers": _OK,
        "content": {"application/json": {"schema": schema}},
    }


def media_types(kinds: Iterable[str], schema: dict[str, Any]) -> dict[str, Any]:
    """The `content` of a body that may have any of these types; `schema` describes it as JSON."""
    return {kind: {"schema": schema if kind == JSON else _TEXTS.get(kind, _BINARY)} for kind in kinds}
