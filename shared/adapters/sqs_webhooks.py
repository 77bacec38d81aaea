"""The queues of webhook deliveries in SQS: a message says which delivery is to be sent.

`{"tenant": …, "webhook_id": …, "delivery_id": …}`, with the tenant as message group, which makes the queue a fair one.
Source: Amazon SQS Developer Guide, "Fair queues".
"""

import json
from math import ceil
from typing import Final

from shared.adapters.aws import aws_errors
from shared.adapters.sqs_queue import SqsQueue, letter_attributes
from shared.domain.webhooks import Delivery

_WHAT: Final = "The queue of webhooks"
_DEAD: Final = "The queue of webhooks that could not be sent"
# A message may be hidden until 12 hours after it was received; the sender has had it for a minute at most.
# Source: SQS API Reference, "ChangeMessageVisibility".
_MAX_VISIBILITY_S: Final = 43_200 - 120


class SqsDeliveries(SqsQueue):
    """Implements `shared.domain.webhook_ports.DeliveryQueue`."""

    def send(self, tenant: str, webhook_id: str, delivery_id: str) -> None:
        """One SendMessage."""
        with aws_errors(_WHAT):
            self._client.send_message(
                QueueUrl=self._url, MessageBody=_body(tenant, webhook_id, delivery_id), MessageGroupId=tenant
            )

    def hide(self, receipt: str, seconds: float) -> None:
        """One ChangeMessageVisibility: a message that was received comes again after so long. Raises BackendError."""
        with aws_errors(_WHAT):
            self._client.change_message_visibility(
                QueueUrl=self._url,
                ReceiptHandle=receipt,
                VisibilityTimeout=min(_MAX_VISIBILITY_S, max(0, ceil(seconds))),
            )


class SqsDeadDeliveries(SqsQueue):
    """Implements `shared.domain.webhook_ports.DeliveryDeadLetters`: a delivery's message, with the reason beside it."""

    def send(self, delivery: Delivery, reason: str, detail: str) -> None:
        """One SendMessage."""
        with aws_errors(_DEAD):
            self._client.send_message(
                QueueUrl=self._url,
                MessageBody=_body(delivery.tenant, delivery.webhook_id, delivery.delivery_id),
                MessageGroupId=delivery.tenant,
                MessageAttributes=letter_attributes(reason, detail, delivery.tries),
            )


def _body(tenant: str, webhook_id: str, delivery_id: str) -> str:
    return json.dumps({"tenant": tenant, "webhook_id": webhook_id, "delivery_id": delivery_id})
