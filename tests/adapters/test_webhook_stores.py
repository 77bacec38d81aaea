"""The contracts of `WebhookStore` and `DeliveryStore`, on the fakes and on DynamoDB; secrets at rest; the queues."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_webhooks import DynamoDBWebhooks
from shared.adapters.sqs_webhooks import SqsDeadDeliveries, SqsDeliveries
from shared.adapters.webhook_seal import WebhookSeal
from shared.domain.errors import BackendError, Conflict, WebhookNotFound
from shared.domain.webhook_ports import DeliveryStore, WebhookStore
from shared.domain.webhooks import (
    EVENT_TYPES,
    Attempt,
    Delivery,
    SigningSecrets,
    Webhook,
    WebhookChange,
    new_delivery_id,
    new_webhook_id,
)
from tests.adapters.samples import Lossy, unique
from tests.conftest import LocalAws
from tests.memory_webhooks import InMemoryDeliveries, InMemoryWebhooks

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NOW = 1_900_000_000.0
KEY = b"k" * 64
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture(params=["fake", "dynamodb"])
def webhooks(request: pytest.FixtureRequest) -> WebhookStore:
    if request.param == "fake":
        return InMemoryWebhooks()
    aws: LocalAws = request.getfixturevalue("local_aws")
    table = aws.stack.resources["WebhooksTable"].name
    return DynamoDBWebhooks(request.getfixturevalue("dynamodb"), table, WebhookSeal(lambda: KEY))


@pytest.fixture(params=["fake", "dynamodb"])
def deliveries(request: pytest.FixtureRequest) -> DeliveryStore:
    if request.param == "fake":
        return InMemoryDeliveries()
    aws: LocalAws = request.getfixturevalue("local_aws")
    table = aws.stack.resources["DeliveriesTable"].name
    return DynamoDBDeliveries(request.getfixturevalue("dynamodb"), table, now=lambda: NOW)


def webhook(tenant: str, at: float = NOW, **more: Any) -> Webhook:
    return Webhook(new_webhook_id(at), tenant, "https://example.com/hook", EVENT_TYPES, at, **more)


def delivery(webhook_id: str, at: float = NOW, **more: Any) -> Delivery:
    made = {
        "delivery_id": new_delivery_id(at),
        "webhook_id": webhook_id,
        "tenant": "acme",
        "event": "job.succeeded",
        "payload": '{"type":"ü"}'.encode(),
        "created_at": at,
        "expires_at": int(at) + 100,
        "next_at": at,
    }
    return Delivery(**{**made, **more})


def test_webhooks_belong_to_their_tenant(webhooks: WebhookStore) -> None:
    tenant, other = unique("t"), unique("t")
    first, second = webhook(tenant, NOW, description="one"), webhook(tenant, NOW + 1, disabled_reason="paused")
    for each in (second, first):
        webhooks.add(each, OLD)
    assert list(webhooks.of_tenant(tenant)) == [first, second]
    assert list(webhooks.of_tenant(other)) == []
    assert webhooks.get(tenant, first.webhook_id) == first
    with pytest.raises(Conflict):
        webhooks.add(first, OLD)
    calls: list[Callable[[], Any]] = [
        lambda: webhooks.get(other, first.webhook_id),
        lambda: webhooks.signing(other, first.webhook_id),
        lambda: webhooks.change(other, first.webhook_id, WebhookChange(enabled=False)),
        lambda: webhooks.change(other, first.webhook_id, WebhookChange(enabled=True)),
        lambda: webhooks.rotate(replace(first, tenant=other), NEW, NOW, NOW),
        lambda: webhooks.remove(other, first.webhook_id),
    ]
    for call in calls:
        with pytest.raises(WebhookNotFound):
            call()
    assert webhooks.remove(tenant, first.webhook_id) == first
    with pytest.raises(WebhookNotFound):
        webhooks.get(tenant, first.webhook_id)
    assert list(webhooks.of_tenant(other)) == []


@pytest.mark.parametrize(
    "webhook_id", ["", "wh_", "wh_" + "0" * 23, "wh_" + "G" * 24, "x" * 5000, "wh_" + "0" * 24 + "\n"]
)
def test_what_is_no_id_is_not_found(webhooks: WebhookStore, webhook_id: str) -> None:
    for call in (webhooks.get, webhooks.signing, webhooks.remove):
        with pytest.raises(WebhookNotFound):
            call("acme", webhook_id)


def test_what_is_not_named_stays(webhooks: WebhookStore) -> None:
    made = webhook(unique("t"), description="mine")
    webhooks.add(made, OLD)
    ids = (made.tenant, made.webhook_id)
    assert webhooks.change(*ids, WebhookChange()) == made
    moved = webhooks.change(*ids, WebhookChange(url="https://example.org/", events=("job.failed",)))
    assert moved == replace(made, url="https://example.org/", events=("job.failed",))
    paused = webhooks.change(*ids, WebhookChange(description="", enabled=False))
    assert (paused.enabled, paused.disabled_reason, paused.description) == (False, "paused", "")
    assert webhooks.change(*ids, WebhookChange(enabled=True, description="on")).enabled
    assert webhooks.change(*ids, WebhookChange(enabled=True)).enabled
    assert webhooks.signing(*ids)[1] == SigningSecrets(OLD)


def test_a_rotation_keeps_the_secret_before(webhooks: WebhookStore) -> None:
    made = webhook(unique("t"))
    webhooks.add(made, OLD)
    rotated = webhooks.rotate(made, NEW, NOW + 1.5, NOW + 100.25)
    assert (rotated.rotated_at, rotated.previous_until) == (NOW + 1.5, NOW + 100.25)
    found, secrets = webhooks.signing(made.tenant, made.webhook_id)
    assert found == rotated
    assert secrets == SigningSecrets(NEW, OLD, NOW + 100.25)
    # Somebody who read the webhook before would push the secret out that was just shown.
    with pytest.raises(Conflict):
        webhooks.rotate(made, b"x" * 32, NOW + 2, NOW + 3)
    webhooks.rotate(rotated, b"x" * 32, NOW + 2, NOW + 3)
    assert webhooks.signing(made.tenant, made.webhook_id)[1] == SigningSecrets(b"x" * 32, NEW, NOW + 3)
    # One that leaked is not kept, and one that cannot be opened any more does not stand in the way.
    webhooks.rotate(webhooks.get(made.tenant, made.webhook_id), OLD, NOW + 4, NOW + 4)
    assert webhooks.signing(made.tenant, made.webhook_id)[1] == SigningSecrets(OLD)


def test_a_receiver_that_is_gone_is_switched_off_where_it_was(webhooks: WebhookStore) -> None:
    made = webhook(unique("t"))
    assert not webhooks.gone(made)
    webhooks.add(made, OLD)
    assert not webhooks.gone(replace(made, url="https://example.com/before"))
    assert webhooks.gone(made)
    assert not webhooks.gone(made)
    assert webhooks.get(made.tenant, made.webhook_id).disabled_reason == "gone"
    assert webhooks.change(made.tenant, made.webhook_id, WebhookChange(enabled=True)).enabled


def test_a_delivery_is_stored_once(deliveries: DeliveryStore) -> None:
    made = delivery(new_webhook_id(NOW), job_id="0" * 32)
    assert deliveries.get(made.webhook_id, made.delivery_id) is None
    assert deliveries.add(made) == made
    assert deliveries.add(replace(made, payload=b"other", tenant="other")) == made
    assert deliveries.get(made.webhook_id, made.delivery_id) == made
    assert deliveries.get(new_webhook_id(NOW), made.delivery_id) is None


def test_one_claim_holds_until_it_is_over(deliveries: DeliveryStore) -> None:
    made = deliveries.add(delivery(new_webhook_id(NOW)))
    ids = (made.webhook_id, made.delivery_id)
    assert deliveries.claim(*ids, "a", NOW - 10, NOW).outcome == "early"
    first = deliveries.claim(*ids, "a", NOW, NOW + 60)
    assert first.outcome == "claimed"
    assert first.delivery == replace(
        made, tries=1, next_at=NOW + 60, claim="a", attempts=(Attempt(NOW, error="interrupted"),)
    )
    again = deliveries.claim(*ids, "b", NOW + 30, NOW + 90)
    assert (again.outcome, again.delivery) == ("early", first.delivery)
    # The first one is taken for dead: its attempt counts, and what it says afterwards does not.
    second = deliveries.claim(*ids, "b", NOW + 61, NOW + 121)
    assert second.outcome == "claimed"
    assert second.delivery is not None
    assert second.delivery.tries == 2
    assert first.delivery is not None
    assert not deliveries.settle(replace(first.delivery, state="delivered", next_at=None))
    done = replace(
        second.delivery,
        state="delivered",
        next_at=None,
        attempts=(*second.delivery.attempts[:-1], Attempt(NOW + 61, 204, None, 7)),
    )
    assert deliveries.settle(done)
    assert deliveries.get(*ids) == replace(done, claim=None)
    assert deliveries.settle(done)  # it is so already
    assert not deliveries.settle(replace(done, state="failed"))
    assert deliveries.claim(*ids, "c", NOW + 500, NOW + 560).outcome == "ended"
    assert deliveries.claim(made.webhook_id, new_delivery_id(NOW), "c", NOW, NOW).outcome == "absent"
    assert deliveries.claim(made.webhook_id, "nonsense", "c", NOW, NOW).outcome == "absent"


def test_a_second_attempt_of_the_client_is_the_same_call(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    """Else a delivery whose message is gone would wait for ever, and a secret that nobody saw would sign."""
    lossy: Any = Lossy(dynamodb)
    deliveries = DynamoDBDeliveries(lossy, local_aws.stack.resources["DeliveriesTable"].name, now=lambda: NOW)
    made = delivery(new_webhook_id(NOW))
    assert deliveries.add(made) == made
    claim = deliveries.claim(made.webhook_id, made.delivery_id, "one", NOW + 0.1, NOW + 60.7)
    assert claim.outcome == "claimed"
    assert claim.delivery is not None
    assert claim.delivery.tries == 1
    assert deliveries.claim(made.webhook_id, made.delivery_id, "two", NOW + 1, NOW + 61).outcome == "early"
    failed = replace(claim.delivery, attempts=(Attempt(NOW + 0.1, 500, None, 7, "no"),), next_at=NOW + 5.3)
    assert deliveries.settle(failed)
    assert not deliveries.settle(replace(failed, next_at=NOW + 9))  # of another
    again = deliveries.claim(made.webhook_id, made.delivery_id, "three", NOW + 6, NOW + 66).delivery
    assert again is not None
    assert not deliveries.settle(failed)
    dead = replace(again, state="dead", next_at=None, reason="http_500")
    assert deliveries.settle(dead)
    assert deliveries.restart(dead, NOW + 9.9)
    anew = deliveries.get(made.webhook_id, made.delivery_id)
    assert anew is not None
    assert (anew.state, anew.tries, anew.next_at) == ("pending", 0, NOW + 9.9)
    assert not deliveries.restart(dead, NOW + 20)

    webhooks = DynamoDBWebhooks(lossy, local_aws.stack.resources["WebhooksTable"].name, WebhookSeal(lambda: KEY))
    hook = webhook(unique("t"))
    webhooks.add(hook, OLD)
    rotated = webhooks.rotate(hook, NEW, NOW + 1.5, NOW + 100)
    assert rotated.rotated_at == NOW + 1.5
    assert webhooks.signing(hook.tenant, hook.webhook_id)[1] == SigningSecrets(NEW, OLD, NOW + 100)
    for call in (lambda: webhooks.add(hook, OLD), lambda: webhooks.rotate(hook, NEW, NOW + 1.5, NOW + 100)):
        with pytest.raises(Conflict):
            call()


def test_another_round_begins_with_the_end_of_the_log(deliveries: DeliveryStore) -> None:
    log = tuple(Attempt(NOW + at, 500, None, at, f"no {at}") for at in range(15))
    made = deliveries.add(
        delivery(new_webhook_id(NOW), state="dead", tries=10, attempts=log, reason="http_500", next_at=None)
    )
    ids = (made.webhook_id, made.delivery_id)
    assert not deliveries.restart(replace(made, tries=9), NOW + 5)
    assert not deliveries.restart(replace(made, state="failed"), NOW + 5)
    assert deliveries.restart(made, NOW + 5)
    assert deliveries.get(*ids) == replace(
        made, state="pending", tries=0, attempts=log[-10:], reason=None, next_at=NOW + 5
    )
    claim = deliveries.claim(*ids, "a", NOW + 5, NOW + 65).delivery
    assert claim is not None
    later = replace(claim, next_at=NOW + 99, attempts=(*claim.attempts[:-1], Attempt(NOW + 5, 302, "redirect", 3)))
    assert deliveries.settle(later)
    assert deliveries.get(*ids) == replace(later, claim=None)
    held = deliveries.claim(*ids, "b", NOW + 99, NOW + 150).delivery
    assert held is not None
    # Begun anew while somebody is sending: what they say no longer counts.
    assert deliveries.restart(held, NOW + 100)
    assert not deliveries.settle(replace(held, state="delivered", next_at=None))


def test_the_newest_come_first_page_by_page(deliveries: DeliveryStore) -> None:
    owner = new_webhook_id(NOW)
    made = [deliveries.add(delivery(owner, NOW + at)) for at in range(5)]
    deliveries.add(delivery(new_webhook_id(NOW), NOW + 9))
    found: list[Delivery] = []
    cursor = None
    for _ in range(4):
        page = deliveries.list(owner, limit=2, after=cursor)
        found += page.deliveries
        cursor = page.cursor
        if cursor is None:
            break
    assert found == made[::-1]
    assert cursor is None


def test_what_has_expired_is_not_shown(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    store = DynamoDBDeliveries(dynamodb, local_aws.stack.resources["DeliveriesTable"].name, now=lambda: NOW)
    made = store.add(delivery(new_webhook_id(NOW), expires_at=int(NOW)))
    assert store.get(made.webhook_id, made.delivery_id) is None
    assert list(store.list(made.webhook_id, limit=10).deliveries) == []


def test_secrets_lie_sealed_in_the_table(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> None:
    table = local_aws.stack.resources["WebhooksTable"].name
    store = DynamoDBWebhooks(dynamodb, table, WebhookSeal(lambda: KEY))
    made, other = webhook(unique("t")), webhook(unique("t"))
    store.add(made, OLD)
    store.rotate(made, NEW, NOW, NOW + 1)
    key: Any = {"tenant": {"S": made.tenant}, "webhook_id": {"S": made.webhook_id}}
    item = dynamodb.get_item(TableName=table, Key=key)["Item"]
    assert OLD not in repr(item).encode()
    for name, secret in (("secret", NEW), ("previous", OLD)):
        assert secret not in bytes(item[name]["B"])
    # Moved to another webhook or tenant, or read with another key, it does not open.
    dynamodb.put_item(
        TableName=table, Item={**item, "tenant": {"S": other.tenant}, "webhook_id": {"S": other.webhook_id}}
    )
    dynamodb.put_item(TableName=table, Item={**item, "tenant": {"S": other.tenant}})
    with pytest.raises(BackendError, match="another key"):
        store.signing(other.tenant, other.webhook_id)
    with pytest.raises(BackendError, match="another key"):
        store.signing(other.tenant, made.webhook_id)
    with pytest.raises(BackendError, match="another key"):
        DynamoDBWebhooks(dynamodb, table, WebhookSeal(lambda: b"other")).signing(made.tenant, made.webhook_id)


def test_messages_name_the_delivery_and_dead_ones_the_reason(local_aws: LocalAws, aws_session: Session) -> None:
    sqs = client("sqs", session=aws_session, endpoint_url=local_aws.url)
    url = sqs.create_queue(QueueName=unique("webhooks"))["QueueUrl"]
    queue, dead = SqsDeliveries(lambda: sqs, url), SqsDeadDeliveries(lambda: sqs, url)
    queue.send("acme", "wh_1", "msg_1")
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)["Messages"]
    assert json.loads(message["Body"]) == {"tenant": "acme", "webhook_id": "wh_1", "delivery_id": "msg_1"}
    queue.hide(message["ReceiptHandle"], 0)
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)["Messages"]
    queue.hide(message["ReceiptHandle"], 10**9)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    dead.send(delivery("wh_2", tries=10), "http_500", "n\x00o" + "é" * 2000)
    (letter,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MessageAttributeNames=["All"])["Messages"]
    told = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert (told["Reason"], told["Attempts"]) == ("http_500", "10")
    assert told["Detail"].startswith("n\ufffdoé")
    assert len(told["Detail"].encode()) <= 1024
    assert json.loads(letter["Body"])["webhook_id"] == "wh_2"
