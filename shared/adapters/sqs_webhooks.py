"""The queues of webhook deliveries in SQS: a message says which delivery is to be sent.

`{"tenant": …, "webhook_id": …, "delivery_id": …}`, with the tenant as message group, which makes the queue a fair one.
Source: Amazon SQS Developer Guide, "Fair queues".
"""

import json
import re
from collections.abc import Callable
from functools import cached_property
from math import ceil
from typing import Any, Final

from shared.adapters.aws import aws_errors
from shared.domain.webhooks import Delivery

_WHAT: Final = "The queue of webhooks"
_DEAD: Final = "The queue of webhooks that could not be sent"
_MAX_DETAIL: Final = 1024
# A message may be hidden until 12 hours after it was received; the sender has had it for a minute at most.
# Source: SQS API Reference, "ChangeMessageVisibility".
_MAX_VISIBILITY_S: Final = 43_200 - 120
# What SQS refuses in texts. Source: SQS API Reference, "SendMessage".
_REFUSED: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Queue:
    """A queue; its client, which takes some 50 ms to make, is made for the first call."""

    def __init__(self, client: Callable[[], Any], queue_url: str) -> None:
        self._make = client
        self._url = queue_url

    @cached_property
    def _client(self) -> Any:
        return self._make()


class SqsDeliveries(_Queue):
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


class SqsDeadDeliveries(_Queue):
    """Implements `shared.domain.webhook_ports.DeliveryDeadLetters`: a delivery's message, with the reason beside it."""

    def send(self, delivery: Delivery, reason: str, detail: str) -> None:
        """One SendMessage, with the attributes `Reason` (a code), `Detail` (1 KB at most) and `Attempts`."""
        texts = {"Reason": reason, "Detail": _attribute(detail)}
        with aws_errors(_DEAD):
            self._client.send_message(
                QueueUrl=self._url,
                MessageBody=_body(delivery.tenant, delivery.webhook_id, delivery.delivery_id),
                MessageGroupId=delivery.tenant,
                MessageAttributes={
                    **{name: {"DataType": "String", "StringValue": text} for name, text in texts.items() if text},
                    "Attempts": {"DataType": "Number", "StringValue": str(delivery.tries)},
                },
            )


def _body(tenant: str, webhook_id: str, delivery_id: str) -> str:
    return json.dumps({"tenant": tenant, "webhook_id": webhook_id, "delivery_id": delivery_id})


def _attribute(text: str) -> str:
    """The text as an attribute may have it: SQS counts bytes."""
    return _REFUSED.sub("\ufffd", text).encode()[:_MAX_DETAIL].decode(errors="ignore")
