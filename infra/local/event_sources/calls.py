"""Calls of AWS's JSON protocols from the event loop, where a poll that waits for twenty seconds costs nothing."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
from infra.local.stack import REGION

_CALL_S: Final = 10.0


class AwsCallFailed(Exception):
    """A call that AWS refused (`code` is its error), or that got no answer (`code` is None)."""

    def __init__(self, what: str, code: str | None, message: str) -> None:
        super().__init__(f"{what}: {code or 'no answer'}: {message}")
        self.code = code


class AwsCalls:
    """Calls of the endpoint at `url`; an asynchronous context manager."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/"
        self._signers = {
            service: SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, REGION) for service in ("sqs", "dynamodb")
        }
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._session.close()

    async def sqs(self, operation: str, parameters: Mapping[str, Any], *, wait_s: float = 0.0) -> dict[str, Any]:
        """A call of SQS that may take `wait_s` longer than others; raises AwsCallFailed."""
        return await self._call("sqs", f"AmazonSQS.{operation}", parameters, wait_s)

    async def dynamodb(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A call of DynamoDB; raises AwsCallFailed."""
        return await self._call("dynamodb", f"DynamoDB_20120810.{operation}", parameters)

    async def streams(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        wait_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """A call of DynamoDB Streams that may take `wait_s` longer than others; raises AwsCallFailed."""
        return await self._call("dynamodb", f"DynamoDBStreams_20120810.{operation}", parameters, wait_s, headers)

    async def _call(
        self,
        service: str,
        target: str,
        parameters: Mapping[str, Any],
        wait_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        body = msgspec.json.encode(parameters)
        signed = AWSRequest(
            "POST", self._url, {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target}, body
        )
        self._signers[service].add_auth(signed)
        timeout = aiohttp.ClientTimeout(total=_CALL_S + wait_s)
        try:
            async with self._session.post(
                self._url, data=body, headers={**dict(signed.headers.items()), **(headers or {})}, timeout=timeout
            ) as response:
                answer = await response.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise AwsCallFailed(target, None, str(error) or "timed out") from error
        return _decoded(target, response.status, answer)


def _decoded(target: str, status: int, answer: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(answer) if answer else {}
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict):
        raise AwsCallFailed(target, f"status {status}", "no JSON object")
    if status != 200:
        code = str(document.get("__type", f"status {status}")).rpartition("#")[2]
        raise AwsCallFailed(target, code, str(document.get("message") or document.get("Message")))
    return document
