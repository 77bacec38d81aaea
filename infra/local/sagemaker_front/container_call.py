"""Calls of a container's `/invocations`, with SageMaker's errors for what it does wrong."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp

from infra.local.sagemaker_front.endpoints import Endpoint
from infra.local.sagemaker_front.wire import (
    RESPONSE_HEADERS,
    attributes_fit,
    model_error,
    passed,
    read_bounded,
    unavailable,
)

CONNECT_TIMEOUT_S: Final = 2
_MAX_CONNECTIONS: Final = 256
# Shorter than servers keep an idle connection (uvicorn: 5 s), so that a request never meets one that is closing.
_KEEP_ALIVE_S: Final = 3.0
_TIMED_OUT: Final = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each"
    " container in Amazon CloudWatch, resolve the issue, and try again."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a container answered, with the headers that SageMaker passes back."""

    headers: dict[str, str]
    body: bytes


@asynccontextmanager
async def client_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that adds no header: one that the caller did not send must not reach the container."""
    connector = aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S)
    added = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
    async with aiohttp.ClientSession(connector=connector, skip_auto_headers=added) as session:
        yield session


@asynccontextmanager
async def answering(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    headers: Mapping[str, str],
    payload: bytes,
    *,
    timeout_s: float,
    max_bytes: int,
) -> AsyncIterator[tuple[aiohttp.ClientResponse, dict[str, str]]]:
    """The container's answer, its status known to be 2xx, and its headers; raises ServiceError before it begins."""
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_TIMEOUT_S)
    url = f"{endpoint.url.rstrip('/')}/invocations"
    try:
        async with session.post(url, data=payload, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            if not 200 <= answer.status < 300:
                body = await read_bounded(answer.content, max_bytes)
                raise model_error(endpoint.name, answer.status, (body or b"").decode("utf-8", "replace"))
            back = passed(answer.headers, RESPONSE_HEADERS)
            if not attributes_fit(back):
                message = "The custom attributes are not 1024 visible US-ASCII characters at most."
                raise model_error(endpoint.name, answer.status, message)
            yield answer, back
    except TimeoutError as error:
        raise model_error(endpoint.name, 0, _TIMED_OUT) from error
    except aiohttp.ClientConnectorError as error:
        raise unavailable(f"The container of {endpoint.name} is not reachable.") from error
    except aiohttp.ClientError as error:
        raise model_error(endpoint.name, 0, f"The container broke off: {error}") from error


async def call(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    headers: Mapping[str, str],
    payload: bytes,
    *,
    timeout_s: float,
    max_bytes: int,
) -> Answer:
    """The container's whole answer; ServiceError for one that is too large, too late or an error."""
    sent = answering(session, endpoint, headers, payload, timeout_s=timeout_s, max_bytes=max_bytes)
    async with sent as (answer, back):
        body = await read_bounded(answer.content, max_bytes)
        if body is None:
            message = f"The response is larger than {max_bytes} bytes."
            raise model_error(endpoint.name, answer.status, message)
        return Answer(back, body)
