"""Composition root of the sender of webhooks."""

from collections.abc import Mapping
from typing import Any

from botocore.session import Session

from functions.webhook_sender.events import Handler, webhook_sender
from functions.webhook_sender.settings import Settings
from shared.adapters.aws import client
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_webhooks import DynamoDBWebhooks
from shared.adapters.secrets_manager import SecretText
from shared.adapters.sqs_webhooks import SqsDeadDeliveries, SqsDeliveries
from shared.adapters.webhook_client import WebhookClient
from shared.adapters.webhook_seal import WebhookSeal
from shared.domain.settings import load
from shared.usecases.deliver_webhooks import SendDelivery, TellWebhooks
from shared.web.logs import configure


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session = Session()
    bounds: dict[str, Any] = {
        "session": session,
        "connect_timeout": settings.connect_timeout_s,
        "read_timeout": settings.read_timeout_s,
        "max_pool": max(10, settings.webhook_threads),
    }
    dynamodb, sqs = client("dynamodb", **bounds), client("sqs", **bounds)
    key = SecretText(lambda: client("secretsmanager", **bounds), settings.webhook_key_arn)
    webhooks = DynamoDBWebhooks(dynamodb, settings.webhooks_table, WebhookSeal(key))
    deliveries = DynamoDBDeliveries(dynamodb, settings.deliveries_table)
    queue = SqsDeliveries(lambda: sqs, settings.webhooks_queue_url)
    post = WebhookClient(allow_loopback=settings.webhook_allow_loopback, timeout_s=settings.webhook_timeout_s)
    dead_letters = SqsDeadDeliveries(lambda: sqs, settings.webhooks_dead_letters_url)
    return webhook_sender(
        TellWebhooks(webhooks, deliveries, queue),
        SendDelivery(webhooks, deliveries, dead_letters, post),
        queue.hide,
        log,
        settings.webhook_threads,
    )
