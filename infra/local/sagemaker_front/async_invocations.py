"""Queues of asynchronous endpoints: what InvokeEndpointAsync takes on, and what becomes of it."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.sagemaker_front.async_results import AsyncResults, InputMissing, notice, place
from infra.local.sagemaker_front.container_call import Answer, call
from infra.local.sagemaker_front.endpoints import AsyncConfig, Endpoint, Endpoints
from infra.local.sagemaker_front.wire import ATTRIBUTES, ServiceError, passed, too_large, unavailable, validation_error

_log = logging.getLogger(__name__)

_PREFIX: Final = "X-Amzn-SageMaker-"
_INFERENCE_ID: Final = f"{_PREFIX}Inference-Id"
MAX_INLINE_BYTES: Final = 128_000
QUEUE_LIMIT: Final = 1_000
# SageMaker's limit for an answer is that of S3; it is held in memory here.
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AsyncInvocation:
    """A request in the queue: `headers` are the container's, one of `body` and `input_location` is there."""

    endpoint: Endpoint
    inference_id: str
    headers: Mapping[str, str]
    body: bytes
    input_location: str | None
    output_location: str
    failure_location: str | None
    ttl_s: int
    timeout_s: int
    received_at: datetime


class AsyncInvocations:
    """Takes invocations while there is room, and runs them, so many at once as each endpoint's instance takes."""

    def __init__(
        self,
        endpoints: Endpoints,
        results: AsyncResults,
        session: aiohttp.ClientSession,
        *,
        queue_limit: int = QUEUE_LIMIT,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._results = results
        self._max_answer_bytes = max_answer_bytes
        self._session = session
        self._endpoints = endpoints.with_queues()
        self._queues: dict[str, asyncio.Queue[AsyncInvocation]] = {
            endpoint.name: asyncio.Queue(queue_limit) for endpoint in self._endpoints
        }
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for endpoint in self._endpoints:
            if endpoint.asynchronous is not None:
                queue = self._queues[endpoint.name]
                self._workers += [
                    asyncio.create_task(self._work(queue, endpoint.asynchronous))
                    for _ in range(endpoint.asynchronous.concurrency)
                ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)

    def submit(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> AsyncInvocation:
        """Queue an invocation with the headers of InvokeEndpointAsync; ServiceError."""
        invocation = _invocation(endpoint, headers, body)
        try:
            self._queues[endpoint.name].put_nowait(invocation)
        except asyncio.QueueFull:
            raise unavailable(f"The queue of {endpoint.name} is full.") from None
        return invocation

    async def _work(self, queue: asyncio.Queue[AsyncInvocation], config: AsyncConfig) -> None:
        while True:
            invocation = await queue.get()
            try:
                await self.run(invocation, config)
            except (BotoCoreError, ClientError) as error:
                _log.warning("the answer of the invocation %s is lost: %s", invocation.inference_id, error)

    async def run(self, invocation: AsyncInvocation, config: AsyncConfig) -> None:
        """Run an invocation and leave its answer or its failure."""
        waited = (datetime.now(UTC) - invocation.received_at).total_seconds()
        if waited > invocation.ttl_s:
            await self._fail(invocation, config, b"", "The request expired in the queue (RequestTTLSeconds).")
            return
        try:
            payload = (
                await self._results.read(invocation.input_location) if invocation.input_location else invocation.body
            )
            answer = await call(
                self._session,
                invocation.endpoint,
                invocation.headers,
                payload,
                timeout_s=invocation.timeout_s,
                max_bytes=self._max_answer_bytes,
            )
        except InputMissing as error:
            await self._fail(invocation, config, str(error).encode(), f"ClientError: {error}")
        except ServiceError as error:
            said = error.original.encode("utf-8", "replace")
            await self._fail(invocation, config, said, f"{error.code}: {error.fields['Message']}")
        else:
            await self._succeed(invocation, config, answer)

    async def _succeed(self, invocation: AsyncInvocation, config: AsyncConfig, answer: Answer) -> None:
        content_type = answer.headers.get("Content-Type", "")
        await self._results.write(invocation.output_location, answer.body, content_type)
        if config.success_topic:
            included = answer.body if "SUCCESS_NOTIFICATION_TOPIC" in config.include_in else None
            responded = {"contentType": content_type, "outputLocation": invocation.output_location}
            await self._notify(config.success_topic, invocation, responded, None, included)

    async def _fail(self, invocation: AsyncInvocation, config: AsyncConfig, said: bytes, reason: str) -> None:
        _log.warning("the invocation %s of %s failed: %s", invocation.inference_id, invocation.endpoint.name, reason)
        responded = {}
        if invocation.failure_location:
            await self._results.write(invocation.failure_location, said or reason.encode(), "application/octet-stream")
            responded = {"outputLocation": invocation.failure_location}
        if config.error_topic:
            included = said if "ERROR_NOTIFICATION_TOPIC" in config.include_in else None
            await self._notify(config.error_topic, invocation, responded, reason, included)

    async def _notify(
        self,
        topic: str,
        invocation: AsyncInvocation,
        responded: Mapping[str, str],
        failure: str | None,
        included: bytes | None,
    ) -> None:
        given = {
            "accept": invocation.headers.get("Accept"),
            "contentType": invocation.headers.get("Content-Type"),
            "customAttributes": invocation.headers.get(ATTRIBUTES),
            "endpointName": invocation.endpoint.name,
            "inputLocation": invocation.input_location,
        }
        message = notice(
            inference_id=invocation.inference_id,
            received_at=invocation.received_at,
            requested={name: value for name, value in given.items() if value},
            responded=responded,
            failure=failure,
            included=included,
        )
        await self._results.publish(topic, message)


def _invocation(endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> AsyncInvocation:
    config = endpoint.asynchronous
    if config is None:
        raise ValueError(f"{endpoint.name} is no asynchronous endpoint")
    location = headers.get(f"{_PREFIX}InputLocation")
    if bool(body) == bool(location):
        raise validation_error("Provide exactly one of Body and InputLocation.")
    if location is not None and not (location.startswith("s3://") and all(place(location))):
        raise validation_error(f"InputLocation {location} is no address of an object in S3.")
    if len(body) > MAX_INLINE_BYTES:
        raise too_large(MAX_INLINE_BYTES)
    inference_id = headers.get(_INFERENCE_ID, str(uuid4()))
    extension = headers.get(f"{_PREFIX}S3OutputPathExtension", "").strip("/")
    # A name of its own, since the same InferenceId may come twice.
    name = headers.get(f"{_PREFIX}Filename", f"{uuid4()}.out")
    output = "/".join(part for part in (config.output_path.rstrip("/"), extension, name) if part)
    failure = config.failure_path and f"{config.failure_path.rstrip('/')}/{uuid4()}-error.out"
    given = {
        "Content-Type": headers.get(f"{_PREFIX}Content-Type"),
        "Accept": headers.get(f"{_PREFIX}Accept"),
        _INFERENCE_ID: inference_id,
        **passed(headers, (ATTRIBUTES,)),
    }
    return AsyncInvocation(
        endpoint=endpoint,
        inference_id=inference_id,
        headers={header: value for header, value in given.items() if value},
        body=body,
        input_location=location,
        output_location=output,
        failure_location=failure,
        ttl_s=_seconds(headers, "RequestTTLSeconds", 60, 21_600, 21_600),
        timeout_s=_seconds(headers, "InvocationTimeoutSeconds", 1, 3_600, 900),
        received_at=datetime.now(UTC),
    )


def _seconds(headers: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    text = headers.get(f"{_PREFIX}{name}")
    if text is None:
        return default
    if not text.isdecimal() or not least <= int(text) <= most:
        raise validation_error(f"{name} must be between {least} and {most}.")
    return int(text)
