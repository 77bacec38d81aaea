"""Events of API Gateway's HTTP API, payload format 2.0, for calls that do not come through it.

Source: Amazon API Gateway Developer Guide, "Create AWS Lambda proxy integrations for HTTP APIs".
"""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from shared.domain.principal import Principal

_HOST = "sluice.internal"


def http_event(
    method: str,
    path: str,
    *,
    route: str | None = None,
    body: str | None = None,
    principal: Principal | None = None,
) -> dict[str, Any]:
    """The event of one request; `route` is the path as the template has it, `body` a JSON document.

    With a `principal` the request looks as if the authorizer had let it in.
    """
    now = datetime.now(UTC)
    route_key = f"{method} {route or path}"
    headers = {"accept": "application/json", "host": _HOST}
    if body is not None:
        headers |= {"content-type": "application/json", "content-length": str(len(body.encode()))}
    context: dict[str, Any] = {
        "accountId": "anonymous",
        "apiId": "internal",
        "domainName": _HOST,
        "domainPrefix": "internal",
        "http": {
            "method": method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": "127.0.0.1",
            "userAgent": "sluice",
        },
        "requestId": uuid4().hex,
        "routeKey": route_key,
        "stage": "$default",
        "time": f"{now:%d/%b/%Y:%H:%M:%S %z}",
        "timeEpoch": int(now.timestamp() * 1000),
    }
    if principal is not None:
        context["authorizer"] = {"lambda": principal.to_context()}
    return {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": context,
        "body": body,
        "isBase64Encoded": False,
    }
