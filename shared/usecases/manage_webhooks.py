"""What tenants do with their webhooks: make, change, rotate, test and delete them, and look at what was sent."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from time import time

from shared.domain.errors import Conflict, OutOfRange, TextTooLong, WebhookNotFound, pointer
from shared.domain.webhook_address import ForbiddenAddress, target_of
from shared.domain.webhook_events import probe_payload
from shared.domain.webhook_ports import DeliveryQueue, DeliveryStore, WebhookStore
from shared.domain.webhook_signature import new_secret, secret_text
from shared.domain.webhooks import (
    EVENT_TYPES,
    KEPT_S,
    MAX_DESCRIPTION,
    MAX_OVERLAP_S,
    MAX_PAGE,
    MAX_WEBHOOKS,
    OVERLAP_S,
    TEST_EVENT,
    Delivery,
    DeliveryPage,
    Webhook,
    WebhookChange,
    new_delivery_id,
    new_webhook_id,
)


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook with the secret that it just got; `text` is shown this once, and stored sealed only."""

    webhook: Webhook
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ManageWebhooks:
    """Webhooks and deliveries of the tenant that asks; another's are not found. `now` gives seconds since 1970.

    `allow_loopback` is for the local runtime alone, see `target_of`. Every method raises BackendError.
    """

    webhooks: WebhookStore
    deliveries: DeliveryStore
    queue: DeliveryQueue
    allow_loopback: bool = False
    now: Callable[[], float] = time

    def create(self, tenant: str, url: str, events: Collection[str] = EVENT_TYPES, description: str = "") -> NewSecret:
        """A new webhook, which is on. Raises OutOfRange, TextTooLong, Conflict if the tenant has as many as it may."""
        self._check(url, events, description)
        self._check_room(tenant, MAX_WEBHOOKS - 1)
        now = self.now()
        webhook = Webhook(new_webhook_id(now), tenant, url, _sorted(events), now, description)
        secret = new_secret()
        self.webhooks.add(webhook, secret)
        try:
            self._check_room(tenant, MAX_WEBHOOKS)  # another request may have made one in between
        except Conflict:
            self.webhooks.remove(tenant, webhook.webhook_id)
            raise
        return NewSecret(webhook, secret_text(secret))

    def list(self, tenant: str) -> Sequence[Webhook]:
        """All webhooks of a tenant, the oldest first."""
        return self.webhooks.of_tenant(tenant)

    def get(self, tenant: str, webhook_id: str) -> Webhook:
        """A webhook; WebhookNotFound."""
        return self.webhooks.get(tenant, webhook_id)

    def change(self, tenant: str, webhook_id: str, change: WebhookChange) -> Webhook:
        """Change a webhook; OutOfRange, TextTooLong, WebhookNotFound."""
        self._check(change.url, change.events, change.description)
        events = None if change.events is None else _sorted(change.events)
        wanted = WebhookChange(change.url, events, change.description, change.enabled)
        return self.webhooks.change(tenant, webhook_id, wanted)

    def remove(self, tenant: str, webhook_id: str) -> Webhook:
        """Delete a webhook; what is under way for it is dropped. WebhookNotFound."""
        return self.webhooks.remove(tenant, webhook_id)

    def rotate(self, tenant: str, webhook_id: str, overlap_s: int = OVERLAP_S) -> NewSecret:
        """A new secret; the old one signs beside it for `overlap_s` seconds.

        Raises WebhookNotFound, OutOfRange, Conflict.
        """
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise OutOfRange.at("/overlap_s", f"must be from 0 to {MAX_OVERLAP_S} (7 days)")
        found = self.webhooks.get(tenant, webhook_id)
        secret, now = new_secret(), self.now()
        return NewSecret(self.webhooks.rotate(found, secret, now, now + overlap_s), secret_text(secret))

    def test(self, tenant: str, webhook_id: str) -> Delivery:
        """Send the event `webhook.test`, once and by the way of all others; WebhookNotFound."""
        webhook, now = self.webhooks.get(tenant, webhook_id), self.now()
        delivery = Delivery(
            delivery_id=new_delivery_id(now),
            webhook_id=webhook_id,
            tenant=tenant,
            event=TEST_EVENT,
            payload=probe_payload(webhook, now),
            created_at=now,
            expires_at=int(now) + KEPT_S,
            next_at=now,
        )
        self.deliveries.add(delivery)
        self.queue.send(tenant, webhook_id, delivery.delivery_id)
        return delivery

    def log(self, tenant: str, webhook_id: str, *, limit: int = 20, after: str | None = None) -> DeliveryPage:
        """What was sent to a webhook, the newest first; WebhookNotFound, OutOfRange."""
        if not 1 <= limit <= MAX_PAGE:
            raise OutOfRange.at("/query/limit", f"must be from 1 to {MAX_PAGE}")
        self.webhooks.get(tenant, webhook_id)
        return self.deliveries.list(webhook_id, limit=limit, after=after)

    def delivery(self, tenant: str, webhook_id: str, delivery_id: str) -> Delivery:
        """One delivery; WebhookNotFound, also for another tenant's."""
        self.webhooks.get(tenant, webhook_id)
        found = self.deliveries.get(webhook_id, delivery_id)
        if found is None or found.tenant != tenant:
            raise WebhookNotFound("The webhook has no such delivery, or it is no longer kept.")
        return found

    def redeliver(self, tenant: str, webhook_id: str, delivery_id: str) -> Delivery:
        """Send an event again, now and by the schedule from its beginning; its id stays, so receivers know it.

        Raises WebhookNotFound, Conflict while the webhook is off, or if the delivery just changed.
        """
        if not self.webhooks.get(tenant, webhook_id).enabled:
            raise Conflict("The webhook is off: switch it on first.")
        found = self.delivery(tenant, webhook_id, delivery_id)
        if not self.deliveries.restart(found, self.now()):
            raise Conflict("The delivery changed in this moment: look at it again.", retry_after_s=1)
        self.queue.send(tenant, webhook_id, delivery_id)
        return self.delivery(tenant, webhook_id, delivery_id)

    def _check_room(self, tenant: str, most: int) -> None:
        if len(self.webhooks.of_tenant(tenant)) > most:
            raise Conflict(f"The tenant has {MAX_WEBHOOKS} webhooks, as many as may be: delete one first.")

    def _check(self, url: str | None, events: Collection[str] | None, description: str | None) -> None:
        if url is not None:
            try:
                target_of(url, allow_loopback=self.allow_loopback)
            except ForbiddenAddress as error:
                raise OutOfRange.at("/url", str(error)) from None
        if events is not None:
            if not events:
                raise OutOfRange.at("/events", "must name at least one event")
            for place, event in enumerate(events):
                if event not in EVENT_TYPES:
                    raise OutOfRange.at(pointer("/events", place), f"must be one of {', '.join(EVENT_TYPES)}")
        if description is not None and len(description) > MAX_DESCRIPTION:
            raise TextTooLong.at("/description", f"must have at most {MAX_DESCRIPTION} characters")


def _sorted(events: Collection[str]) -> tuple[str, ...]:
    return tuple(event for event in EVENT_TYPES if event in events)
