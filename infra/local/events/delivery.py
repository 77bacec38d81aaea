"""Hands events over to functions, queues and topics.

What the function makes of an event, retries and its own dead-letter queue included, is `LambdaService`'s. Only an event
that cannot be handed over goes to the dead-letter queue of the target, as EventBridge and its Scheduler do it.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.events.specs import Target
from infra.local.lambda_service.errors import LambdaApiError, TooManyRequestsError
from infra.local.lambda_service.service import LambdaService

_log = logging.getLogger(__name__)

_THROTTLED_S: Final = 0.2


class Deliveries:
    """To the functions of a `LambdaService`, and to the queues and topics at `aws_url`."""

    def __init__(self, functions: LambdaService, aws_url: str) -> None:
        self.functions = functions
        self._aws_url = aws_url
        self._queue_urls: dict[str, str] = {}

    async def deliver(self, target: Target, text: str, *, source_arn: str = "") -> None:
        """Hand `text` (JSON, for a function) over, once there is room for it.

        What cannot be handed over goes to the target's dead-letter queue or, without one, is lost with a warning.
        `source_arn` is the rule's or the schedule's.
        """
        try:
            await self.hand_over(target, text)
        except (BotoCoreError, ClientError, LambdaApiError) as error:
            code = getattr(error, "code", None) or type(error).__name__
            await self._give_up(target, text, source_arn, str(code), str(error))

    async def hand_over(self, target: Target, text: str) -> None:
        """Hand `text` over; raises what the target refuses with (LambdaApiError, BotoCoreError, ClientError)."""
        if target.kind == "queue":
            await asyncio.to_thread(self._send, target.name, text, {}, target.group_id)
        elif target.kind == "topic":
            await asyncio.to_thread(self._sns.publish, TopicArn=target.arn, Message=text)
        else:
            await self._invoke(target.name, text.encode())

    async def _invoke(self, function: str, payload: bytes) -> None:
        while True:
            try:
                await self.functions.invoke(function, payload, invocation_type="Event")
            except TooManyRequestsError:
                await asyncio.sleep(_THROTTLED_S)
            else:
                return

    async def _give_up(self, target: Target, text: str, source_arn: str, code: str, message: str) -> None:
        _log.warning("an event cannot be handed over to %s: %s", target.arn, message)
        if target.dead_letter_queue is None:
            return
        attributes = {
            "RULE_ARN": source_arn,
            "TARGET_ARN": target.arn,
            "ERROR_CODE": code,
            "ERROR_MESSAGE": message[:1024],
            "RETRY_ATTEMPTS": "0",
        }
        try:
            await asyncio.to_thread(self._send, target.dead_letter_queue, text, attributes, None)
        except (BotoCoreError, ClientError) as error:
            _log.warning("the event for %s is lost: %s", target.arn, error)

    def _send(self, queue: str, text: str, attributes: Mapping[str, str], group_id: str | None) -> None:
        if queue not in self._queue_urls:
            self._queue_urls[queue] = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        values = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items() if value}
        group = {"MessageGroupId": group_id} if group_id else {}
        self._sqs.send_message(QueueUrl=self._queue_urls[queue], MessageBody=text, MessageAttributes=values, **group)

    @cached_property
    def _sqs(self) -> Any:
        return local_client(isolated_session(), "sqs", self._aws_url)

    @cached_property
    def _sns(self) -> Any:
        return local_client(isolated_session(), "sns", self._aws_url)
