"""What SageMaker Runtime lets through, and its errors on the wire.

Sources: botocore's service model `sagemaker-runtime` (2017-05-13), and "How containers serve requests" of the
SageMaker developer guide.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp import web

from infra.local.stack import ACCOUNT_ID, REGION

ATTRIBUTES: Final = "X-Amzn-SageMaker-Custom-Attributes"
VARIANT: Final = "X-Amzn-SageMaker-Target-Variant"
INVOKED_VARIANT: Final = "x-Amzn-Invoked-Production-Variant"
# InvokeEndpointInput → container. Content-Type and Accept go with them.
REQUEST_HEADERS: Final = (
    "Content-Type",
    "Accept",
    ATTRIBUTES,
    "X-Amzn-SageMaker-Target-Model",
    VARIANT,
    "X-Amzn-SageMaker-Inference-Id",
    "X-Amzn-SageMaker-Session-Id",
    "X-Amzn-SageMaker-Inference-Component",
    "X-Amzn-SageMaker-Enable-Explanations",
)
# Container → InvokeEndpointOutput.
RESPONSE_HEADERS: Final = (
    "Content-Type",
    ATTRIBUTES,
    "X-Amzn-SageMaker-New-Session-Id",
    "X-Amzn-SageMaker-Closed-Session-Id",
)
MAX_MESSAGE: Final = 2048  # the service model's shape `Message`
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{0,1024}")


class ServiceError(Exception):
    """An error of the service model, with its wire form; `original` is the whole of what the container said."""

    def __init__(self, status: int, code: str, message: str, *, original: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.original = original
        self.fields = {"Message": message[:MAX_MESSAGE], **fields}

    def response(self) -> web.Response:
        """The error as an answer."""
        return web.json_response(self.fields, status=self.status, headers={"x-amzn-ErrorType": self.code})


def validation_error(message: str) -> ServiceError:
    """What SageMaker says of a request that it does not take."""
    return ServiceError(400, "ValidationError", message)


def unavailable(message: str) -> ServiceError:
    """What SageMaker says when nothing can take the request."""
    return ServiceError(503, "ServiceUnavailable", message)


def model_error(endpoint: str, original_status: int, original_message: str) -> ServiceError:
    """What SageMaker says of a container that did not answer as it should; status 0: not at all."""
    whose = "client" if 400 <= original_status < 500 else "server"
    log_stream = f"arn:aws:logs:{REGION}:{ACCOUNT_ID}:log-group:/aws/sagemaker/Endpoints/{endpoint}"
    return ServiceError(
        424,
        "ModelError",
        f'Received {whose} error ({original_status}) from primary with message "{original_message}".'
        f" See the log group /aws/sagemaker/Endpoints/{endpoint} in account {ACCOUNT_ID} for more information.",
        original=original_message,
        OriginalStatusCode=original_status,
        OriginalMessage=original_message[:MAX_MESSAGE],
        LogStreamArn=log_stream,
    )


def passed(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Those of `headers` that go on."""
    return {name: headers[name] for name in names if name in headers}


def attributes_fit(headers: Mapping[str, str]) -> bool:
    """Whether the custom attributes are at most 1024 visible ASCII characters."""
    return _VISIBLE_ASCII.fullmatch(headers.get(ATTRIBUTES, "")) is not None


def check_attributes(headers: Mapping[str, str]) -> None:
    """Raise ServiceError unless the custom attributes of a request fit."""
    if not attributes_fit(headers):
        raise validation_error("CustomAttributes must be at most 1024 visible US-ASCII characters.")


async def read_bounded(content: aiohttp.StreamReader, limit: int) -> bytes | None:
    """The whole body; None as soon as it is longer than `limit`."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def too_large(limit: int) -> ServiceError:
    """What SageMaker says of a body over its limit."""
    return validation_error(
        "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less"
        f" than or equal to {limit}"
    )
