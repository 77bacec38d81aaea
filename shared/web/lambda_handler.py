"""An application as the handler of a Lambda function behind an API Gateway HTTP API."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from mangum.types import ASGI, LambdaContext

from shared.web.problems import MEDIA_TYPE

_HOST = re.compile(r"[^:\s]*(:\d{1,5})?")

IAM_PREFIX = "/iam"

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def lambda_handler(app: ASGI) -> Handler:
    """The handler; it takes events of payload format 2.0.

    Without the lifespan, which Mangum would run at every invocation. Its own access log is silenced: ours says more.
    """
    logging.getLogger("mangum.http").setLevel(logging.WARNING)
    asyncio.set_event_loop(asyncio.new_event_loop())  # Mangum runs every request on the loop it finds
    mangum = Mangum(app, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE])

    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        headers = event.get("headers") or {}
        if not _HOST.fullmatch(headers.get("host", "")):
            del headers["host"]  # Mangum fails on what has more than one colon
        return mangum(_with_path(event), context)

    return handler


def _with_path(event: dict[str, Any]) -> dict[str, Any]:
    """The event with the path that the routes know.

    API Gateway has decoded the path, and Mangum would do so once more: `%2564` must not become `d`. Routes for signed
    requests are the others' below `/iam`; only what the gateway has let in by a signature may take that way.
    """
    request = event.get("requestContext") or {}
    if "http" not in request:
        return event  # no event of an HTTP API: Mangum says so
    path = request["http"]["path"]
    if path.startswith(f"{IAM_PREFIX}/") and "iam" in (request.get("authorizer") or {}):
        path = path.removeprefix(IAM_PREFIX)
    return {**event, "requestContext": {**request, "http": {**request["http"], "path": quote(path)}}}
