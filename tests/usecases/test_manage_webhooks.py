"""What tenants do with their webhooks."""

from dataclasses import dataclass, field, replace

import pytest

from shared.domain.errors import BackendUnavailable, Conflict, OutOfRange, TextTooLong, WebhookNotFound
from shared.domain.webhook_signature import secret_of
from shared.domain.webhooks import (
    EVENT_TYPES,
    MAX_WEBHOOKS,
    OVERLAP_S,
    TEST_EVENT,
    SigningSecrets,
    Webhook,
    WebhookChange,
)
from shared.usecases.manage_webhooks import ManageWebhooks
from tests.memory_webhooks import InMemoryDeliveries, InMemoryQueue, InMemoryWebhooks

NOW = 1_900_000_000.0
URL = "https://example.com/hook"


@dataclass
class World:
    webhooks: InMemoryWebhooks = field(default_factory=InMemoryWebhooks)
    deliveries: InMemoryDeliveries = field(default_factory=InMemoryDeliveries)
    queue: InMemoryQueue = field(default_factory=InMemoryQueue)

    @property
    def manage(self) -> ManageWebhooks:
        return ManageWebhooks(self.webhooks, self.deliveries, self.queue, now=lambda: NOW)


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_webhook_is_told_of_everything_and_shows_its_secret(world: World) -> None:
    made = world.manage.create("acme", URL)
    assert made.webhook == world.manage.get("acme", made.webhook.webhook_id)
    assert (made.webhook.events, made.webhook.enabled, made.webhook.url) == (EVENT_TYPES, True, URL)
    assert made.text.startswith("whsec_")
    assert made.text not in repr(made)
    assert world.webhooks.signing("acme", made.webhook.webhook_id)[1] == SigningSecrets(secret_of(made.text))
    some = world.manage.create("acme", URL, ["batch.failed", "job.failed", "batch.failed"], "mine")
    assert (some.webhook.events, some.webhook.description) == (("job.failed", "batch.failed"), "mine")
    assert {each.webhook_id for each in world.manage.list("acme")} == {made.webhook.webhook_id, some.webhook.webhook_id}
    assert list(world.manage.list("other")) == []


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.0.0.1/", "https://localhost/", "nonsense", ""])
def test_an_address_that_may_not_be_one_is_refused_when_it_is_given(world: World, url: str) -> None:
    with pytest.raises(OutOfRange) as refused:
        world.manage.create("acme", url)
    assert refused.value.fields[0].pointer == "/url"
    made = world.manage.create("acme", URL).webhook
    with pytest.raises(OutOfRange):
        world.manage.change("acme", made.webhook_id, WebhookChange(url=url))
    assert world.manage.get("acme", made.webhook_id) == made


def test_bounds(world: World) -> None:
    made = world.manage.create("acme", URL).webhook
    for change in (WebhookChange(events=()), WebhookChange(events=("job.started",))):
        with pytest.raises(OutOfRange):
            world.manage.change("acme", made.webhook_id, change)
    with pytest.raises(TextTooLong):
        world.manage.create("acme", URL, description="x" * 201)
    for overlap_s in (-1, 7 * 86_400 + 1):
        with pytest.raises(OutOfRange):
            world.manage.rotate("acme", made.webhook_id, overlap_s)
    for limit in (0, 101):
        with pytest.raises(OutOfRange):
            world.manage.log("acme", made.webhook_id, limit=limit)


def test_a_tenant_has_ten_at_most(world: World) -> None:
    for _ in range(MAX_WEBHOOKS):
        world.manage.create("acme", URL)
    with pytest.raises(Conflict, match="10 webhooks"):
        world.manage.create("acme", URL)
    assert world.manage.create("other", URL)
    world.manage.remove("acme", world.manage.list("acme")[0].webhook_id)
    assert world.manage.create("acme", URL)


def test_two_requests_for_the_last_place_do_not_make_eleven(world: World) -> None:
    for _ in range(MAX_WEBHOOKS - 1):
        world.manage.create("acme", URL)

    class Overlapping(InMemoryWebhooks):
        """Another request adds one just before this one does."""

        def add(self, webhook: Webhook, secret: bytes) -> None:
            world.webhooks.add(replace(webhook, webhook_id="wh_" + "0" * 24), secret)
            world.webhooks.add(webhook, secret)

    overlapping = Overlapping()
    overlapping._stored = world.webhooks._stored
    with pytest.raises(Conflict):
        ManageWebhooks(overlapping, world.deliveries, world.queue).create("acme", URL)
    assert len(world.manage.list("acme")) == MAX_WEBHOOKS


def test_a_rotation_shows_the_new_secret_and_keeps_the_old_for_a_while(world: World) -> None:
    made = world.manage.create("acme", URL)
    rotated = world.manage.rotate("acme", made.webhook.webhook_id)
    assert rotated.text != made.text
    assert rotated.webhook.previous_until == NOW + OVERLAP_S
    secrets = world.webhooks.signing("acme", made.webhook.webhook_id)[1]
    assert secrets.at(NOW + OVERLAP_S - 1) == (secret_of(rotated.text), secret_of(made.text))
    assert secrets.at(NOW + OVERLAP_S) == (secret_of(rotated.text),)


def test_a_leaked_secret_ends_at_once(world: World) -> None:
    made = world.manage.create("acme", URL)
    rotated = world.manage.rotate("acme", made.webhook.webhook_id, overlap_s=0)
    assert world.webhooks.signing("acme", made.webhook.webhook_id)[1].at(NOW) == (secret_of(rotated.text),)


def test_a_test_takes_the_way_of_all_events(world: World) -> None:
    made = world.manage.create("acme", URL).webhook
    test = world.manage.test("acme", made.webhook_id)
    assert (test.event, test.state, test.job_id) == (TEST_EVENT, "pending", None)
    assert world.queue.sent == [("acme", made.webhook_id, test.delivery_id)]
    assert world.manage.delivery("acme", made.webhook_id, test.delivery_id) == test
    assert list(world.manage.log("acme", made.webhook_id).deliveries) == [test]


def test_an_event_can_be_sent_again(world: World) -> None:
    made = world.manage.create("acme", URL).webhook
    test = world.manage.test("acme", made.webhook_id)
    claimed = world.deliveries.claim(made.webhook_id, test.delivery_id, "a", NOW, NOW + 60).delivery
    assert claimed is not None
    world.deliveries.settle(replace(claimed, state="failed", next_at=None, reason="http_500"))
    again = world.manage.redeliver("acme", made.webhook_id, test.delivery_id)
    assert (again.state, again.tries, again.next_at, again.reason) == ("pending", 0, NOW, None)
    assert again.delivery_id == test.delivery_id
    assert len(again.attempts) == 1
    assert len(world.queue.sent) == 2
    world.manage.change("acme", made.webhook_id, WebhookChange(enabled=False))
    with pytest.raises(Conflict, match="off"):
        world.manage.redeliver("acme", made.webhook_id, test.delivery_id)


def test_what_is_anothers_does_not_exist(world: World) -> None:
    made = world.manage.create("acme", URL).webhook
    test = world.manage.test("acme", made.webhook_id)
    own = world.manage.create("other", URL).webhook
    manage, webhook_id, delivery_id = world.manage, made.webhook_id, test.delivery_id
    calls = [
        lambda: manage.get("other", webhook_id),
        lambda: manage.change("other", webhook_id, WebhookChange(enabled=False)),
        lambda: manage.remove("other", webhook_id),
        lambda: manage.rotate("other", webhook_id),
        lambda: manage.test("other", webhook_id),
        lambda: manage.log("other", webhook_id),
        lambda: manage.delivery("other", webhook_id, delivery_id),
        lambda: manage.delivery("other", own.webhook_id, delivery_id),
        lambda: manage.redeliver("other", webhook_id, delivery_id),
        lambda: manage.redeliver("other", own.webhook_id, delivery_id),
        lambda: manage.delivery("acme", webhook_id, "msg_" + "0" * 32),
    ]
    for call in calls:
        with pytest.raises(WebhookNotFound):
            call()  # type: ignore[no-untyped-call]
    assert manage.get("acme", webhook_id) == made
    assert len(world.queue.sent) == 1


def test_a_test_whose_message_is_not_sent_says_so(world: World) -> None:
    made = world.manage.create("acme", URL).webhook
    world.queue.fails = 1
    with pytest.raises(BackendUnavailable):
        world.manage.test("acme", made.webhook_id)
