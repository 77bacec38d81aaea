"""The objects and notices of asynchronous invocations, at the local S3 and SNS.

Source of the notices: "Check prediction results" of the SageMaker developer guide
(async-inference-check-predictions); the form of `responseBody` is not stated there (base64, and its encoding named).
"""

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import REGION

_log = logging.getLogger(__name__)

# SageMaker takes inputs of 1 GB; they are held in memory here.
MAX_INPUT_BYTES: Final = 256 * 1024 * 1024
# Longer answers are not put into notices.
_MAX_INCLUDED_BYTES: Final = 128 * 1024


class InputMissing(Exception):
    """The input cannot be read."""


class AsyncResults:
    """S3 and SNS at `aws_url`; clients are made when they are first needed."""

    def __init__(self, aws_url: str, *, max_input_bytes: int = MAX_INPUT_BYTES) -> None:
        self._aws_url = aws_url
        self._max_input_bytes = max_input_bytes

    async def read(self, location: str) -> bytes:
        """The object at an `s3://` address; InputMissing."""
        return await asyncio.to_thread(self._read, location)

    async def write(self, location: str, body: bytes, content_type: str) -> None:
        """Store an object."""
        bucket, key = place(location)
        await asyncio.to_thread(
            self._s3.put_object, Bucket=bucket, Key=key, Body=body, ContentType=content_type or "binary/octet-stream"
        )

    async def publish(self, topic: str, notice: Mapping[str, Any]) -> None:
        """Send a notice; one that cannot be sent is lost, and logged."""
        try:
            await asyncio.to_thread(self._sns.publish, TopicArn=topic, Message=json.dumps(notice))
        except (BotoCoreError, ClientError) as error:
            _log.warning("a notice to %s is lost: %s", topic, error)

    def _read(self, location: str) -> bytes:
        bucket, key = place(location)
        try:
            found = self._s3.get_object(Bucket=bucket, Key=key)
            if found["ContentLength"] > self._max_input_bytes:
                raise InputMissing(f"{location} has more than {self._max_input_bytes} bytes.")
            with closing(found["Body"]) as stream:
                body: bytes = stream.read()
                return body
        except (BotoCoreError, ClientError) as error:
            raise InputMissing(f"Unable to download the input from {location}: {error}") from error

    @cached_property
    def _s3(self) -> Any:
        return local_client(isolated_session(), "s3", self._aws_url)

    @cached_property
    def _sns(self) -> Any:
        return local_client(isolated_session(), "sns", self._aws_url)


def place(location: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` address."""
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return bucket, key


def notice(
    *,
    inference_id: str,
    received_at: datetime,
    requested: Mapping[str, str],
    responded: Mapping[str, str],
    failure: str | None,
    included: bytes | None,
) -> dict[str, Any]:
    """The notice of an invocation that has ended; `included` is the answer, where the topic asks for it."""
    message: dict[str, Any] = {
        "awsRegion": REGION,
        "eventTime": _stamp(datetime.now(UTC)),
        "receivedTime": _stamp(received_at),
        "invocationStatus": "Completed" if failure is None else "Failed",
        "requestParameters": dict(requested),
        "inferenceId": inference_id,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if failure is not None:
        message["failureReason"] = failure
    if responded:
        message["responseParameters"] = dict(responded)
    if included is not None and len(included) <= _MAX_INCLUDED_BYTES:
        message["responseBody"] = {"content": b64encode(included).decode(), "encoding": "BASE64"}
    return message


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
