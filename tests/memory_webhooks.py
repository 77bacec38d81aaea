"""Stores and queues of webhooks in memory, and a receiver without a network."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.domain.errors import BackendUnavailable, Conflict, WebhookNotFound
from shared.domain.webhook_ports import DeliveryClaim, Posted
from shared.domain.webhooks import (
    CLOCK_SKEW_S,
    MAX_LOGGED,
    Attempt,
    Delivery,
    DeliveryPage,
    SigningSecrets,
    Webhook,
    WebhookChange,
)


class InMemoryWebhooks:
    """`WebhookStore`; while `away`, it cannot be reached."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, str], tuple[Webhook, SigningSecrets]] = {}
        self.away = False

    def add(self, webhook: Webhook, secret: bytes) -> None:
        if (webhook.tenant, webhook.webhook_id) in self._stored:
            raise Conflict("taken")
        self._stored[webhook.tenant, webhook.webhook_id] = (webhook, SigningSecrets(secret))

    def get(self, tenant: str, webhook_id: str) -> Webhook:
        return self.signing(tenant, webhook_id)[0]

    def signing(self, tenant: str, webhook_id: str) -> tuple[Webhook, SigningSecrets]:
        if self.away:
            raise BackendUnavailable("The store of webhooks cannot be reached.")
        if (tenant, webhook_id) not in self._stored:
            raise WebhookNotFound("There is no such webhook.")
        return self._stored[tenant, webhook_id]

    def of_tenant(self, tenant: str) -> Sequence[Webhook]:
        if self.away:
            raise BackendUnavailable("The store of webhooks cannot be reached.")
        return [webhook for (owner, _), (webhook, _) in sorted(self._stored.items()) if owner == tenant]

    def change(self, tenant: str, webhook_id: str, change: WebhookChange) -> Webhook:
        webhook, secrets = self.signing(tenant, webhook_id)
        given = {"url": change.url, "events": change.events, "description": change.description}
        changed = replace(webhook, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        if change.enabled is not None:
            changed = replace(changed, disabled_reason=None if change.enabled else "paused")
        self._stored[tenant, webhook_id] = (changed, secrets)
        return changed

    def rotate(self, webhook: Webhook, secret: bytes, now: float, until: float) -> Webhook:
        found, secrets = self.signing(webhook.tenant, webhook.webhook_id)
        if found.rotated_at != webhook.rotated_at:
            raise Conflict("rotated")
        rotated = replace(found, rotated_at=now, previous_until=until)
        made = SigningSecrets(secret, secrets.current, until) if until > now else SigningSecrets(secret)
        self._stored[webhook.tenant, webhook.webhook_id] = (rotated, made)
        return rotated

    def gone(self, webhook: Webhook) -> bool:
        key = (webhook.tenant, webhook.webhook_id)
        if key not in self._stored or self._stored[key][0].url != webhook.url or not self._stored[key][0].enabled:
            return False
        found, secrets = self._stored[key]
        self._stored[key] = (replace(found, disabled_reason="gone"), secrets)
        return True

    def remove(self, tenant: str, webhook_id: str) -> Webhook:
        self.get(tenant, webhook_id)
        return self._stored.pop((tenant, webhook_id))[0]


class InMemoryDeliveries:
    """`DeliveryStore`."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, str], Delivery] = {}
        self._lock = threading.Lock()

    def add(self, delivery: Delivery) -> Delivery:
        with self._lock:
            return self._stored.setdefault((delivery.webhook_id, delivery.delivery_id), delivery)

    def get(self, webhook_id: str, delivery_id: str) -> Delivery | None:
        return self._stored.get((webhook_id, delivery_id))

    def list(self, webhook_id: str, *, limit: int, after: str | None = None) -> DeliveryPage:
        ids = sorted((each for owner, each in self._stored if owner == webhook_id), reverse=True)
        left = [each for each in ids if after is None or each < after]
        part = [self._stored[webhook_id, each] for each in left[:limit]]
        return DeliveryPage(part, part[-1].delivery_id if len(left) >= limit and part else None)

    def claim(self, webhook_id: str, delivery_id: str, token: str, now: float, until: float) -> DeliveryClaim:
        with self._lock:
            found = self._stored.get((webhook_id, delivery_id))
            if found is None:
                return DeliveryClaim("absent")
            if found.state != "pending" or found.next_at is None:
                return DeliveryClaim("ended", found)
            if found.next_at > now + CLOCK_SKEW_S:
                return DeliveryClaim("early", found)
            attempts = (*found.attempts, Attempt(now, error="interrupted"))
            claimed = replace(found, tries=found.tries + 1, next_at=until, claim=token, attempts=attempts)
            self._stored[webhook_id, delivery_id] = claimed
            return DeliveryClaim("claimed", claimed)

    def settle(self, sent: Delivery) -> bool:
        with self._lock:
            found = self._stored.get((sent.webhook_id, sent.delivery_id))
            if found is None or found.state != "pending" or found.claim != sent.claim:
                return found == replace(sent, claim=None)
            self._stored[sent.webhook_id, sent.delivery_id] = replace(sent, claim=None)
            return True

    def restart(self, delivery: Delivery, now: float) -> bool:
        with self._lock:
            key = (delivery.webhook_id, delivery.delivery_id)
            found = self._stored.get(key)
            if found is None or (found.state, found.tries) != (delivery.state, delivery.tries):
                return False
            kept = delivery.attempts[-(MAX_LOGGED // 2) :]
            self._stored[key] = replace(
                found, state="pending", tries=0, next_at=now, attempts=kept, reason=None, claim=None
            )
            return True


@dataclass
class InMemoryQueue:
    """`DeliveryQueue`; `fails` has that many sends fail."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)
    fails: int = 0

    def send(self, tenant: str, webhook_id: str, delivery_id: str) -> None:
        if self.fails:
            self.fails -= 1
            raise BackendUnavailable("The queue of webhooks cannot be reached.")
        self.sent.append((tenant, webhook_id, delivery_id))


@dataclass
class InMemoryDeadLetters:
    """`DeliveryDeadLetters`."""

    sent: list[tuple[Delivery, str, str]] = field(default_factory=list)

    def send(self, delivery: Delivery, reason: str, detail: str) -> None:
        self.sent.append((delivery, reason, detail))


@dataclass
class FakeReceiver:
    """`WebhookPost`: `answers` in turn, the last one from then on."""

    answers: list[Posted] = field(default_factory=lambda: [Posted(5, 204)])
    got: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, *, tenant: str) -> Posted:
        self.tenants.append(tenant)
        self.got.append((url, headers, body))
        return self.answers[min(len(self.got), len(self.answers)) - 1]
