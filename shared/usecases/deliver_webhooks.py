"""Tell webhooks of what ended: an event becomes deliveries, a delivery is sent until it arrives or a day is over.

Each delivery is written before its message is sent. Who is stopped between the two is given the event again, finds the
delivery there and sends the message then; a message too many finds nothing left to do.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from random import random
from secrets import token_hex
from time import time
from typing import Final

from shared.domain.errors import WebhookNotFound
from shared.domain.webhook_events import job_payload
from shared.domain.webhook_ports import (
    DeliveryDeadLetters,
    DeliveryQueue,
    DeliveryStore,
    Posted,
    WebhookPost,
    WebhookStore,
)
from shared.domain.webhook_signature import headers
from shared.domain.webhooks import (
    CLAIM_S,
    KEPT_S,
    TEST_EVENT,
    Attempt,
    Delivery,
    FinishedJob,
    Webhook,
    attempts_of,
    delivery_id_of,
    pause_s,
)

USER_AGENT: Final = "sluice-webhooks/1"
_LEAST_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class TellWebhooks:
    """Makes the deliveries of a finished job; `now` gives seconds since 1970."""

    webhooks: WebhookStore
    deliveries: DeliveryStore
    queue: DeliveryQueue
    now: Callable[[], float] = time

    def __call__(self, job: FinishedJob, known: MutableMapping[str, Sequence[Webhook]]) -> int:
        """How many webhooks want to know; told of the same job again, it makes nothing twice.

        `known` has the webhooks of tenants that were read for jobs before, and gets those of this one. Raises
        BackendError; the job is to be told of again then.
        """
        if job.tenant not in known:
            known[job.tenant] = self.webhooks.of_tenant(job.tenant)
        wanting = [each for each in known[job.tenant] if each.enabled and job.event in each.events]
        for webhook in wanting:
            self._deliver(job, webhook)
        return len(wanting)

    def _deliver(self, job: FinishedJob, webhook: Webhook) -> None:
        now = self.now()
        stored = self.deliveries.add(
            Delivery(
                delivery_id=delivery_id_of(job),
                webhook_id=webhook.webhook_id,
                tenant=job.tenant,
                event=job.event,
                payload=job_payload(job),
                created_at=now,
                expires_at=int(now) + KEPT_S,
                job_id=job.job_id,
                next_at=now,
            )
        )
        if stored.state == "pending" and not stored.tries:
            self.queue.send(stored.tenant, stored.webhook_id, stored.delivery_id)


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a message; `again_s` is in how many seconds it is to come again, None if it is done with.

    `delivery` is how the delivery stands, None where nothing was sent.
    """

    again_s: float | None = None
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class SendDelivery:
    """Sends deliveries, one attempt at a time. `spread` gives 0 to 1, for the jitter of the schedule."""

    webhooks: WebhookStore
    deliveries: DeliveryStore
    dead_letters: DeliveryDeadLetters
    post: WebhookPost
    now: Callable[[], float] = time
    spread: Callable[[], float] = random

    def __call__(self, tenant: str, webhook_id: str, delivery_id: str, *, redriven: bool = False) -> Handled:
        """Do what a message asks for: at most one attempt of a delivery that is due.

        `redriven`: the message comes out of the dead letters, so a delivery that was given up begins anew. Raises
        BackendError; the message is to come again then.
        """
        try:
            # Before the claim: a store that is away costs no attempt.
            known = self.webhooks.signing(tenant, webhook_id)
        except WebhookNotFound:
            known = None
        now = self.now()
        claim = self.deliveries.claim(webhook_id, delivery_id, token_hex(8), now, now + CLAIM_S)
        given_up = claim.outcome == "ended" and claim.delivery is not None and claim.delivery.state != "delivered"
        if redriven and given_up and claim.delivery is not None and self.deliveries.restart(claim.delivery, now):
            claim = self.deliveries.claim(webhook_id, delivery_id, token_hex(8), now, now + CLAIM_S)
        if claim.delivery is None or claim.outcome == "ended":
            return Handled()
        if claim.outcome == "early":
            return Handled(again_s=max(_LEAST_WAIT_S, (claim.delivery.next_at or now) - now))
        delivery = claim.delivery
        if known is None or delivery.tenant != tenant:
            return self._dropped(delivery, "webhook_deleted")
        webhook, signing = known
        if not webhook.enabled and delivery.event != TEST_EVENT:
            return self._dropped(delivery, "webhook_disabled")
        sent_at = self.now()
        signed = headers(signing.at(sent_at), delivery.delivery_id, int(sent_at), delivery.payload)
        sent = {"Content-Type": "application/json", "User-Agent": USER_AGENT, **signed}
        posted = self.post(webhook.url, sent, delivery.payload, tenant=webhook.tenant)
        return self._after(delivery, webhook, posted)

    def _after(self, delivery: Delivery, webhook: Webhook, posted: Posted) -> Handled:
        """Note what came of an attempt, and what is next."""
        now = self.now()
        redirected = posted.status is not None and 300 <= posted.status < 400
        error = "redirect" if redirected else posted.error
        logged = _logged(delivery, Attempt(delivery.attempts[-1].at, posted.status, error, posted.ms, posted.said))
        if posted.status is not None and 200 <= posted.status < 300:
            return self._settled(replace(logged, state="delivered", next_at=None))
        reason = error or f"http_{posted.status}"
        if posted.status == 410:
            self.webhooks.gone(webhook)
            return self._settled(replace(logged, state="failed", next_at=None, reason="gone"))
        if delivery.tries < attempts_of(delivery.event):
            again_s = pause_s(delivery.tries, self.spread(), posted.retry_after_s)
            return self._settled(replace(logged, next_at=now + again_s), again_s)
        if delivery.event == TEST_EVENT:
            return self._settled(replace(logged, state="failed", next_at=None, reason=reason))
        dead = replace(logged, state="dead", next_at=None, reason=reason)
        # First the letter: who is stopped in between leaves it twice rather than not at all.
        self.dead_letters.send(dead, reason, posted.said)
        return self._settled(dead)

    def _dropped(self, delivery: Delivery, reason: str) -> Handled:
        attempt = Attempt(delivery.attempts[-1].at, error=reason)
        return self._settled(replace(_logged(delivery, attempt), state="failed", next_at=None, reason=reason))

    def _settled(self, delivery: Delivery, again_s: float | None = None) -> Handled:
        # Whoever took it over, or began it anew, has a message of their own.
        return Handled(again_s if self.deliveries.settle(delivery) else None, delivery)


def _logged(delivery: Delivery, attempt: Attempt) -> Delivery:
    """The delivery with what came of its last attempt, which the claim noted as interrupted."""
    return replace(delivery, attempts=(*delivery.attempts[:-1], attempt))
