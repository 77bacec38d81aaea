"""What the sender of webhooks does: jobs that ended are told of, and deliveries sent, put off and given up."""

import os
from collections.abc import Mapping
from typing import Any

from functions.webhook_sender import bootstrap
from infra.local.aws_client import isolated_session, local_client
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_webhooks import DynamoDBWebhooks
from shared.adapters.webhook_seal import WebhookSeal
from shared.domain.webhook_signature import new_secret
from shared.domain.webhooks import EVENT_TYPES, Webhook, new_webhook_id
from tests.adapters.samples import unique
from tests.functions.test_webhook_sender import finished, stream_record
from tests.iam.jobs import CONTEXT, messages
from tests.receivers import Answer, Receiver, receiving

GONE: Answer = (410, {}, b"")
AWAY: Answer = (503, {}, b"")


def drive_webhook_sender(environment: Mapping[str, str]) -> None:
    """Tell one webhook of jobs, which is away, then there, and in the end gone."""
    with receiving() as receiver:
        _drive({**environment, "SLUICE_WEBHOOK_ALLOW_LOOPBACK": "true"}, receiver)


def _drive(environment: Mapping[str, str], receiver: Receiver) -> None:
    handler = bootstrap.build(environment)
    dynamodb, secrets = (
        local_client(isolated_session(), service, os.environ["AWS_ENDPOINT_URL"])
        for service in ("dynamodb", "secretsmanager")
    )
    key = secrets.get_secret_value(SecretId=environment["SLUICE_WEBHOOK_KEY_ARN"])["SecretString"].encode()
    webhooks = DynamoDBWebhooks(dynamodb, environment["SLUICE_WEBHOOKS_TABLE"], WebhookSeal(lambda: key))
    deliveries = DynamoDBDeliveries(dynamodb, environment["SLUICE_DELIVERIES_TABLE"])
    tenant, webhook_id = unique("t"), new_webhook_id(0.0)
    webhooks.add(Webhook(webhook_id, tenant, receiver.url, EVENT_TYPES, 0.0), new_secret())

    def told() -> str:
        assert handler({"Records": [stream_record(finished(tenant), 1)]}, CONTEXT) == {"batchItemFailures": []}
        (newest, *_) = deliveries.list(webhook_id, limit=1).deliveries
        return newest.delivery_id

    def send(delivery_id: str) -> tuple[int, str]:
        event = messages({"tenant": tenant, "webhook_id": webhook_id, "delivery_id": delivery_id})
        again: dict[str, Any] = handler(event, CONTEXT)
        found = deliveries.get(webhook_id, delivery_id)
        assert found is not None
        return len(again["batchItemFailures"]), found.state

    assert send(told()) == (0, "delivered")
    receiver.answers[:] = [AWAY]
    dying = told()
    assert send(dying) == (1, "pending")
    _last_try(dynamodb, environment["SLUICE_DELIVERIES_TABLE"], webhook_id, dying)
    assert send(dying) == (0, "dead")
    receiver.answers[:] = [GONE]
    assert send(told()) == (0, "failed")
    assert webhooks.get(tenant, webhook_id).disabled_reason == "gone"


def _last_try(dynamodb: Any, table: str, webhook_id: str, delivery_id: str) -> None:
    dynamodb.update_item(
        TableName=table,
        Key={"webhook_id": {"S": webhook_id}, "delivery_id": {"S": delivery_id}},
        UpdateExpression="SET tries = :many, next_at = :past",
        ExpressionAttributeValues={":many": {"N": "99"}, ":past": {"N": "1"}},
    )
