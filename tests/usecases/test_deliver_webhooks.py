"""Telling webhooks of what ended, and sending until it arrives."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from shared.domain.errors import BackendUnavailable
from shared.domain.webhook_ports import Posted
from shared.domain.webhook_signature import verified
from shared.domain.webhooks import (
    CLAIM_S,
    EVENT_TYPES,
    JOB_EVENTS,
    SCHEDULE_S,
    TEST_EVENT,
    Delivery,
    FinishedJob,
    Webhook,
    WebhookChange,
    delivery_id_of,
    new_webhook_id,
)
from shared.usecases.deliver_webhooks import Handled, SendDelivery, TellWebhooks
from tests.memory_webhooks import (
    FakeReceiver,
    InMemoryDeadLetters,
    InMemoryDeliveries,
    InMemoryQueue,
    InMemoryWebhooks,
)

START = 1_900_000_000.0
SECRET, OLDER = b"s" * 32, b"o" * 32
JOB = FinishedJob("0" * 32, "prediction", "acme", "tumor", "succeeded", START - 5, START - 1)


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    clock: Clock = field(default_factory=Clock)
    webhooks: InMemoryWebhooks = field(default_factory=InMemoryWebhooks)
    deliveries: InMemoryDeliveries = field(default_factory=InMemoryDeliveries)
    queue: InMemoryQueue = field(default_factory=InMemoryQueue)
    dead: InMemoryDeadLetters = field(default_factory=InMemoryDeadLetters)
    receiver: FakeReceiver = field(default_factory=FakeReceiver)

    def webhook(self, tenant: str = "acme", **more: object) -> Webhook:
        made = Webhook(new_webhook_id(self.clock()), tenant, "https://example.com/hook", EVENT_TYPES, START)
        made = replace(made, **more)  # type: ignore[arg-type]
        self.webhooks.add(made, SECRET)
        return made

    def tell(self, job: FinishedJob = JOB) -> int:
        return TellWebhooks(self.webhooks, self.deliveries, self.queue, self.clock)(job, {})

    def send(self, message: tuple[str, str, str], *, redriven: bool = False) -> Handled:
        send = SendDelivery(self.webhooks, self.deliveries, self.dead, self.receiver, self.clock, spread=lambda: 0.5)
        return send(*message, redriven=redriven)

    def delivery(self, message: tuple[str, str, str]) -> Delivery:
        found = self.deliveries.get(*message[1:])
        assert found is not None
        return found

    def told(self, **more: object) -> tuple[str, str, str]:
        """A webhook that is told of the job: its message."""
        self.webhook(**more)  # type: ignore[arg-type]
        assert self.tell() == 1
        return self.queue.sent[-1]


@pytest.fixture
def world() -> World:
    return World()


def test_those_are_told_who_want_to_know(world: World) -> None:
    wanting = [world.webhook(), world.webhook(events=("job.succeeded",))]
    world.webhook(events=("job.failed", "batch.succeeded"))
    world.webhook(disabled_reason="paused")
    world.webhook("other")
    assert world.tell() == 2
    assert sorted(world.queue.sent) == sorted(("acme", each.webhook_id, delivery_id_of(JOB)) for each in wanting)
    for message in world.queue.sent:
        delivery = world.delivery(message)
        assert (delivery.event, delivery.state, delivery.next_at) == ("job.succeeded", "pending", START)
        assert json.loads(delivery.payload)["data"]["job_id"] == JOB.job_id
    assert world.tell(replace(JOB, kind="batch", state="cancelled")) == 1
    assert world.tell(replace(JOB, tenant="nobody")) == 0


def test_webhooks_are_read_once_for_the_jobs_of_a_tenant(world: World) -> None:
    world.webhook()
    tell = TellWebhooks(world.webhooks, world.deliveries, world.queue, world.clock)
    known: dict[str, object] = {}
    assert tell(JOB, known) == 1  # type: ignore[arg-type]
    world.webhooks.away = True
    assert tell(replace(JOB, job_id="1" * 32), known) == 1  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable):
        tell(replace(JOB, tenant="other"), known)  # type: ignore[arg-type]


def test_who_is_stopped_between_record_and_message_sends_the_message_later(world: World) -> None:
    for _ in range(2):
        world.webhook()
    world.queue.fails = 1
    with pytest.raises(BackendUnavailable):
        world.tell()
    assert world.queue.sent == []
    assert world.tell() == 2
    assert len(set(world.queue.sent)) == 2


def test_an_event_that_is_told_twice_arrives_once(world: World) -> None:
    message = world.told()
    assert world.tell() == 1  # before anything was sent: a message more
    assert world.queue.sent == [message, message]
    for each in world.queue.sent:
        assert world.send(each).again_s is None
    assert world.tell() == 1  # long after: the delivery is there, and done with
    assert world.queue.sent == [message, message]
    assert len(world.receiver.got) == 1


def test_a_delivery_is_signed_with_the_secrets_of_now(world: World) -> None:
    message = world.told()
    webhook = world.webhooks.get("acme", message[1])
    world.webhooks.rotate(webhook, b"n" * 32, START, START + 100)
    done = world.send(message)
    assert done.again_s is None
    delivery = world.delivery(message)
    assert (delivery.state, delivery.next_at, delivery.claim) == ("delivered", None, None)
    assert [(attempt.status, attempt.ms) for attempt in delivery.attempts] == [(204, 5)]
    ((url, headers, body),) = world.receiver.got
    assert (url, body) == ("https://example.com/hook", delivery.payload)
    assert world.receiver.tenants == ["acme"]
    assert headers["webhook-id"] == message[2]
    assert headers["Content-Type"] == "application/json"
    for secret in (SECRET, b"n" * 32):
        assert verified(secret, headers, body, START)


def test_after_the_overlap_only_the_new_secret_signs(world: World) -> None:
    message = world.told()
    world.webhooks.rotate(world.webhooks.get("acme", message[1]), b"n" * 32, START, START + 100)
    world.clock.now += 100
    world.send(message)
    _, headers, body = world.receiver.got[0]
    assert not verified(SECRET, headers, body, world.clock())
    assert verified(b"n" * 32, headers, body, world.clock())


FAILURES = [
    (Posted(7, 500, said="oops"), "http_500"),
    (Posted(7, 404), "http_404"),
    (Posted(7, 302), "redirect"),
    (Posted(7, error="timeout"), "timeout"),
    (Posted(7, error="forbidden_address"), "forbidden_address"),
]


@pytest.mark.parametrize(("answer", "reason"), FAILURES, ids=[reason for _, reason in FAILURES])
def test_a_day_of_attempts_and_then_the_dead_letters(world: World, answer: Posted, reason: str) -> None:
    message = world.told()
    world.receiver.answers = [answer]
    for pause in SCHEDULE_S:
        assert world.send(message).again_s == pause
        assert world.delivery(message).next_at == world.clock() + pause
        assert world.dead.sent == []
        world.clock.now += pause
    assert world.send(message).again_s is None
    assert world.clock.now == START + 86_400
    delivery = world.delivery(message)
    assert (delivery.state, delivery.reason, delivery.tries, delivery.next_at) == ("dead", reason, 10, None)
    assert len(world.receiver.got) == len(delivery.attempts) == 10
    assert {headers["webhook-id"] for _, headers, _ in world.receiver.got} == {message[2]}
    assert len({headers["webhook-timestamp"] for _, headers, _ in world.receiver.got}) == 10
    ((letter, why, detail),) = world.dead.sent
    assert (letter.delivery_id, letter.tries, why, detail) == (message[2], 10, reason, answer.said)
    assert world.send(message).again_s is None
    assert len(world.receiver.got) == 10


def test_a_receiver_that_recovers_gets_it(world: World) -> None:
    message = world.told()
    world.receiver.answers = [Posted(1, 503, retry_after_s=90.0), Posted(1, error="connect_failed"), Posted(1, 200)]
    assert world.send(message).again_s == 90.0
    # What comes too early, a duplicate say, waits for its time and sends nothing.
    assert world.send(message).again_s == 90.0
    world.clock.now += 90
    assert world.send(message).again_s == SCHEDULE_S[1]
    world.clock.now += SCHEDULE_S[1]
    assert world.send(message).again_s is None
    delivery = world.delivery(message)
    assert delivery.state == "delivered"
    assert [(each.status, each.error) for each in delivery.attempts] == [
        (503, None),
        (None, "connect_failed"),
        (200, None),
    ]
    assert world.dead.sent == []


def test_a_receiver_that_is_gone_is_left_alone(world: World) -> None:
    message = world.told()
    other = replace(JOB, job_id="1" * 32)
    world.tell(other)
    world.receiver.answers = [Posted(1, 410)]
    assert world.send(message).again_s is None
    assert (world.delivery(message).state, world.delivery(message).reason) == ("failed", "gone")
    assert world.webhooks.get("acme", message[1]).disabled_reason == "gone"
    assert world.send(world.queue.sent[1]).again_s is None
    assert world.delivery(world.queue.sent[1]).reason == "webhook_disabled"
    assert world.tell(replace(JOB, job_id="2" * 32)) == 0
    assert len(world.receiver.got) == 1
    assert world.dead.sent == []


def test_a_webhook_that_was_deleted_or_switched_off_gets_nothing(world: World) -> None:
    messages = [world.told()]
    world.clock.now += 1
    world.webhook()
    world.tell()
    messages.append(world.queue.sent[-1])
    world.webhooks.remove("acme", messages[0][1])
    world.webhooks.change("acme", messages[1][1], WebhookChange(enabled=False))
    assert [world.send(message).again_s for message in messages] == [None, None]
    assert [world.delivery(message).reason for message in messages] == ["webhook_deleted", "webhook_disabled"]
    assert {world.delivery(message).state for message in messages} == {"failed"}
    assert world.receiver.got == []


def test_a_message_of_another_tenant_sends_nothing(world: World) -> None:
    _, webhook_id, delivery_id = world.told()
    assert world.send(("other", webhook_id, delivery_id)).again_s is None
    assert world.receiver.got == []


def test_a_test_is_tried_once_and_leaves_no_dead_letter(world: World) -> None:
    webhook = world.webhook(disabled_reason="paused")
    made = Delivery(
        "msg_" + "0" * 32, webhook.webhook_id, "acme", TEST_EVENT, b"{}", START, int(START) + 9, next_at=START
    )
    world.deliveries.add(made)
    world.receiver.answers = [Posted(3, 500)]
    message = ("acme", webhook.webhook_id, made.delivery_id)
    assert world.send(message).again_s is None
    assert (world.delivery(message).state, world.delivery(message).reason) == ("failed", "http_500")
    assert world.dead.sent == []


def test_a_sender_that_dies_costs_one_attempt(world: World) -> None:
    message = world.told()

    class Killed(BaseException):
        pass

    def dies(url: str, headers: Mapping[str, str], body: bytes, *, tenant: str) -> Posted:
        raise Killed

    send = SendDelivery(world.webhooks, world.deliveries, world.dead, dies, world.clock)
    with pytest.raises(Killed):
        send(*message)
    assert world.send(message).again_s == CLAIM_S
    world.clock.now += CLAIM_S
    assert world.send(message).again_s is None
    delivery = world.delivery(message)
    assert [(each.status, each.error) for each in delivery.attempts] == [(None, "interrupted"), (204, None)]
    assert (delivery.state, delivery.tries) == ("delivered", 2)


def test_of_two_senders_one_sends(world: World) -> None:
    """The second one comes while the first one is sending."""
    message = world.told()
    inner: list[Handled] = []

    def meanwhile(url: str, headers: Mapping[str, str], body: bytes, *, tenant: str) -> Posted:
        inner.append(world.send(message))
        return Posted(1, 200)

    send = SendDelivery(world.webhooks, world.deliveries, world.dead, meanwhile, world.clock)
    assert send(*message).again_s is None
    assert [done.again_s for done in inner] == [CLAIM_S]
    assert world.receiver.got == []
    world.clock.now += CLAIM_S
    assert world.send(message).again_s is None
    assert world.receiver.got == []


def test_a_sender_that_was_overtaken_says_nothing(world: World) -> None:
    message = world.told()

    def slow(url: str, headers: Mapping[str, str], body: bytes, *, tenant: str) -> Posted:
        world.clock.now += CLAIM_S
        assert world.send(message).again_s is None
        return Posted(1, 500)

    send = SendDelivery(world.webhooks, world.deliveries, world.dead, slow, world.clock)
    assert send(*message).again_s is None
    assert world.delivery(message).state == "delivered"


def test_a_store_that_is_away_costs_no_attempt(world: World) -> None:
    message = world.told()
    world.webhooks.away = True
    with pytest.raises(BackendUnavailable):
        world.send(message)
    world.webhooks.away = False
    assert world.send(message).again_s is None
    assert world.delivery(message).tries == 1


def test_dead_letters_can_be_driven_back(world: World) -> None:
    message = world.told()
    world.receiver.answers = [Posted(1, 500)]
    for pause in (*SCHEDULE_S, 0.0):
        world.send(message)
        world.clock.now += pause
    assert world.delivery(message).state == "dead"
    world.receiver.answers = [Posted(1, 200)]
    assert world.send(message, redriven=True).again_s is None
    assert world.delivery(message).state == "delivered"
    assert world.send(message, redriven=True).again_s is None
    assert len(world.receiver.got) == 11


def test_the_letter_is_written_before_the_delivery_is_given_up(world: World) -> None:
    message = world.told(events=JOB_EVENTS)
    world.receiver.answers = [Posted(1, 500)]
    for pause in SCHEDULE_S:
        world.send(message)
        world.clock.now += pause

    class Stopped(InMemoryDeadLetters):
        def send(self, delivery: Delivery, reason: str, detail: str) -> None:
            raise BackendUnavailable("The queue cannot be reached.")

    send = SendDelivery(world.webhooks, world.deliveries, Stopped(), world.receiver, world.clock)
    with pytest.raises(BackendUnavailable):
        send(*message)
    assert world.delivery(message).state == "pending"
    world.clock.now += CLAIM_S
    assert world.send(message).again_s is None
    assert world.delivery(message).state == "dead"
    assert len(world.dead.sent) == 1
