"""Documents of webhooks and their deliveries."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.json_schema import SkipJsonSchema

from shared.domain.webhook_events import moment
from shared.domain.webhooks import (
    EVENT_TYPES,
    MAX_DESCRIPTION,
    MAX_OVERLAP_S,
    MAX_URL,
    OVERLAP_S,
    Attempt,
    Delivery,
    Webhook,
    WebhookChange,
)

Event = Literal["job.succeeded", "job.failed", "job.cancelled", "batch.succeeded", "batch.failed", "batch.cancelled"]
Events = Annotated[
    tuple[Event, ...],
    Field(min_length=1, max_length=len(EVENT_TYPES), description="What it is told of", examples=[["job.succeeded"]]),
]
Address = Annotated[
    str,
    StringConstraints(max_length=MAX_URL),
    Field(description="HTTPS address of a public server", examples=["https://example.com/hooks/sluice"]),
]
Description = Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebhookRequest(_Document):
    """A new webhook; without `events` it is told of all of them."""

    url: Address
    events: Events = EVENT_TYPES
    description: Description = ""


def _any_part(schema: dict[str, Any]) -> None:
    """Say of a document's schema that each member may be left out, and not all of them."""
    schema["minProperties"] = 1
    for member in schema["properties"].values():
        member.pop("default", None)


class WebhookChangeRequest(_Document):
    """What of a webhook is to change: at least one member. One that is off is told of nothing."""

    model_config = ConfigDict(json_schema_extra=_any_part)

    url: Address | SkipJsonSchema[None] = None
    events: Events | SkipJsonSchema[None] = None
    description: Description | SkipJsonSchema[None] = None
    enabled: bool | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("name at least one of url, events, description and enabled")
        return self

    def to_change(self) -> WebhookChange:
        """The domain value."""
        return WebhookChange(self.url, self.events, self.description, self.enabled)


class SecretRotationRequest(_Document):
    """For how many seconds the old secret signs beside the new one; 0 is for one that leaked."""

    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S)] = OVERLAP_S


class WebhookDocument(_Document):
    """A webhook without its secret."""

    webhook_id: str
    url: str
    events: Events
    description: str
    enabled: bool
    disabled_reason: Annotated[
        Literal["paused", "gone"] | None,
        Field(description="Why it is off: `paused` by its tenant, or `gone`, since it answered 410"),
    ]
    created_at: Timestamp
    rotated_at: Annotated[Timestamp | None, Field(description="When its secret was last rotated")]
    previous_until: Annotated[Timestamp | None, Field(description="Until when the secret before signs, too")]

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """The document of a domain value."""
        return cls(**_facts(webhook))


class WebhookWithSecret(WebhookDocument):
    """A webhook with the secret that it just got, which is shown this once."""

    secret: Annotated[str, Field(description="`whsec_` and base64; verify requests with it")]

    @classmethod
    def showing(cls, webhook: Webhook, secret: str) -> Self:
        """The document of a domain value, with the secret's text."""
        return cls(**_facts(webhook), secret=secret)


class WebhookList(_Document):
    """The webhooks of a tenant, the oldest first."""

    webhooks: tuple[WebhookDocument, ...]


class AttemptDocument(_Document):
    """One request to the receiver."""

    at: Timestamp
    status: Annotated[int | None, Field(description="Status of the answer; null if there was none")]
    error: Annotated[str | None, Field(description="Why there was none, such as `timeout`; `redirect` for a 3xx")]
    duration_ms: int | None
    detail: Annotated[str, Field(description="The beginning of what the receiver said, or of what went wrong")]

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """The document of a domain value."""
        return cls(
            at=moment(attempt.at),
            status=attempt.status,
            error=attempt.error,
            duration_ms=attempt.ms,
            detail=attempt.said,
        )


class DeliveryDocument(_Document):
    """An event for a webhook, and what was done to deliver it."""

    delivery_id: Annotated[str, Field(description="The `webhook-id` of its requests")]
    webhook_id: str
    event: str
    job_id: str | None
    state: Annotated[
        Literal["pending", "delivered", "failed", "dead"],
        Field(description="`failed`: given up early, see `reason`; `dead`: given up after the last attempt"),
    ]
    reason: Annotated[str | None, Field(description="Why it was given up, such as `gone`, `http_500` or `timeout`")]
    attempts: tuple[AttemptDocument, ...]
    next_attempt_at: Timestamp | None
    created_at: Timestamp
    payload: Annotated[dict[str, Any], Field(description="The body that is sent")]

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """The document of a domain value."""
        return cls(
            delivery_id=delivery.delivery_id,
            webhook_id=delivery.webhook_id,
            event=delivery.event,
            job_id=delivery.job_id,
            state=delivery.state,
            reason=delivery.reason,
            attempts=tuple(AttemptDocument.of(attempt) for attempt in delivery.attempts),
            next_attempt_at=_optional(delivery.next_at),
            created_at=moment(delivery.created_at),
            payload=json.loads(delivery.payload),
        )


class DeliveryList(_Document):
    """Deliveries of a webhook, the newest first."""

    deliveries: tuple[DeliveryDocument, ...]
    next: Annotated[str | None, Field(description="Given as `cursor`, it leads to older ones; null at the end.")]


def _optional(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


def _facts(webhook: Webhook) -> dict[str, Any]:
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "events": webhook.events,
        "description": webhook.description,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "created_at": moment(webhook.created_at),
        "rotated_at": _optional(webhook.rotated_at),
        "previous_until": _optional(webhook.previous_until),
    }
