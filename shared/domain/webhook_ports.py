"""What the use cases of webhooks need from the outside; `shared.adapters` implements it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from shared.domain.webhooks import Delivery, DeliveryPage, SigningSecrets, Webhook, WebhookChange


class WebhookStore(Protocol):
    """Keeps webhooks and their secrets, by tenant. Every method raises BackendError."""

    def add(self, webhook: Webhook, secret: bytes) -> None:
        """Store a new webhook."""

    def get(self, tenant: str, webhook_id: str) -> Webhook:
        """A webhook of this tenant; WebhookNotFound, for another tenant's too."""

    def signing(self, tenant: str, webhook_id: str) -> tuple[Webhook, SigningSecrets]:
        """A webhook with what its requests are signed with; WebhookNotFound."""

    def of_tenant(self, tenant: str) -> Sequence[Webhook]:
        """All webhooks of a tenant as they are now, the oldest first."""

    def change(self, tenant: str, webhook_id: str, change: WebhookChange) -> Webhook:
        """Change what is not None; the webhook as it is then. WebhookNotFound."""

    def rotate(self, webhook: Webhook, secret: bytes, now: float, until: float) -> Webhook:
        """Put a secret in place of the current one, which signs too until then. If that is now, it is forgotten.

        WebhookNotFound; Conflict if it was rotated since `webhook` was read.
        """

    def gone(self, webhook: Webhook) -> bool:
        """Switch off a webhook whose receiver is gone; False if it has another address by now, or is no more."""

    def remove(self, tenant: str, webhook_id: str) -> Webhook:
        """Delete a webhook with its secrets, and give it back; WebhookNotFound."""


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """What became of the wish to send: only who `claimed` may.

    `early`: it is due at `delivery.next_at`, or somebody holds it until then. `ended`: nothing is left to do.
    `absent`: there is no such delivery.
    """

    outcome: Literal["claimed", "early", "ended", "absent"]
    delivery: Delivery | None = None


class DeliveryStore(Protocol):
    """Keeps deliveries, by webhook. Every change is one conditional write; raises BackendError."""

    def add(self, delivery: Delivery) -> Delivery:
        """Store a delivery; the one that is there already, if there is one."""

    def get(self, webhook_id: str, delivery_id: str) -> Delivery | None:
        """A delivery; None if there is none, or no longer."""

    def list(self, webhook_id: str, *, limit: int, after: str | None = None) -> DeliveryPage:
        """At most `limit` deliveries, the newest first, that are older than the id `after`."""

    def claim(self, webhook_id: str, delivery_id: str, token: str, now: float, until: float) -> DeliveryClaim:
        """Take a due delivery until then, count the attempt and note it in the log as `interrupted`."""

    def settle(self, sent: Delivery) -> bool:
        """Write what came of an attempt: `state`, `next_at`, `reason` and the last of `attempts`.

        False if the delivery is no longer held by the claim of `sent`, unless it is as that says already.
        """

    def restart(self, delivery: Delivery, now: float) -> bool:
        """Begin another round of attempts now; False if the delivery has changed since it was read."""


class DeliveryQueue(Protocol):
    """Where deliveries wait to be sent."""

    def send(self, tenant: str, webhook_id: str, delivery_id: str) -> None:
        """Ask for a delivery to be sent now; the tenants take turns. Raises BackendError."""


class DeliveryDeadLetters(Protocol):
    """Where deliveries go that could not be made."""

    def send(self, delivery: Delivery, reason: str, detail: str) -> None:
        """Put a delivery there; raises BackendError."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What a receiver answered: a status with what it said, or an `error` code with `said` to explain it."""

    ms: int
    status: int | None = None
    error: str | None = None
    said: str = ""
    retry_after_s: float | None = None


class WebhookPost(Protocol):
    """Sends requests to receivers."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, *, tenant: str) -> Posted:
        """One POST; whatever goes wrong with the receiver is in the answer, nothing is raised.

        `tenant` is whose receiver it is: no tenant's holds up those of others.
        """
