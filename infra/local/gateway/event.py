"""The events of payload format 2.0 that an HTTP API sends to functions and authorizers.

Sources: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html and
http-api-lambda-authorizer.html. Observed on AWS by others: `rawPath` and path parameters are percent-decoded,
`rawQueryString` is as the client sent it, cookies are taken out of the headers.
"""

import base64
import os
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from infra.local.gateway.routing import Match
from infra.local.stack import ACCOUNT_ID, REGION, HttpApiSpec

Event = dict[str, Any]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# They concern one connection only (RFC 9110, 7.6.1); cookies have a field of their own.
_NOT_FORWARDED = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "cookie"}
)
_TEXT_TYPES = frozenset({"application/json", "application/javascript", "application/xml"})


@dataclass(frozen=True, slots=True)
class Received:
    """A request as the gateway has read it, before its body. `path` is percent-decoded, stage included."""

    request_id: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    cookies: list[str]
    source_ip: str


def receive(request: web.BaseRequest, request_id: str, path: str, query: str) -> Received:
    """Read the head of a request: names in lower case, repeated headers joined by commas."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in request.raw_headers:
        name = raw_name.decode("ascii", "replace").lower()
        value = raw_value.decode("utf-8", "replace")
        if name == "cookie":
            cookies += [cookie for part in value.split(";") if (cookie := part.strip())]
        elif name not in _NOT_FORWARDED:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    source_ip = request.remote or ""
    forwarded = headers.get("x-forwarded-for")
    headers["x-forwarded-for"] = f"{forwarded}, {source_ip}" if forwarded else source_ip
    headers["x-forwarded-port"] = str(_port(request))
    headers["x-forwarded-proto"] = "http"
    headers.setdefault("x-amzn-trace-id", f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()}")
    return Received(request_id, request.method, path, query, headers, cookies, source_ip)


def split_target(target: str) -> tuple[str, str]:
    """Path, percent-decoded, and raw query string of a request target."""
    path, _, query = target.partition("?")
    return (unquote(path, errors="replace") if "%" in path else path), query


def integration_event(api: HttpApiSpec, received: Received, match: Match) -> Event:
    """The event for the route's function, as yet without body and authorizer."""
    event: Event = {
        "version": "2.0",
        "routeKey": match.route.key,
        "rawPath": received.path,
        "rawQueryString": received.query,
        "headers": received.headers,
        "requestContext": _request_context(api, received, match),
        "isBase64Encoded": False,
    }
    if received.cookies:
        event["cookies"] = received.cookies
    if received.query and (parameters := _query_parameters(received.query)):
        event["queryStringParameters"] = parameters
    if match.path_parameters:
        event["pathParameters"] = match.path_parameters
    return event


def add_body(event: Event, body: bytes) -> None:
    """Put the body into the event: as text where its type says so, otherwise in Base64."""
    headers: dict[str, str] = event["headers"]
    headers["content-length"] = str(len(body))
    if not body:
        return
    if _is_text(headers.get("content-type", "")) and "content-encoding" not in headers:
        try:
            event["body"] = body.decode("utf-8")
        except UnicodeDecodeError:
            pass  # what is not UTF-8 cannot stand in JSON as it is
        else:
            return
    event["body"] = base64.b64encode(body).decode("ascii")
    event["isBase64Encoded"] = True


def authorizer_event(api: HttpApiSpec, event: Event, identity: tuple[str, ...]) -> Event:
    """The REQUEST event of payload 2.0 for an authorizer: the same request, without its body."""
    http = event["requestContext"]["http"]
    arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:{api.api_id}/{api.stage}/{http['method']}{event['rawPath']}"
    request = {name: value for name, value in event.items() if name != "isBase64Encoded"}
    return {**request, "type": "REQUEST", "routeArn": arn, "identitySource": list(identity)}


def new_request_id() -> str:
    """An extended request id of API Gateway's form, such as `JKJaXmPLvHcESHA=`."""
    return base64.b64encode(os.urandom(11)).decode("ascii")


def _request_context(api: HttpApiSpec, received: Received, match: Match) -> dict[str, Any]:
    now = time.time()
    domain = received.headers.get("host", "").rpartition(":")[0] or received.headers.get("host", "")
    return {
        "accountId": ACCOUNT_ID,
        "apiId": api.api_id,
        "domainName": domain,
        "domainPrefix": domain.partition(".")[0],
        "http": {
            "method": received.method,
            "path": received.path,
            "protocol": "HTTP/1.1",
            "sourceIp": received.source_ip,
            "userAgent": received.headers.get("user-agent", ""),
        },
        "requestId": received.request_id,
        "routeKey": match.route.key,
        "stage": api.stage,
        "time": _log_time(now),
        "timeEpoch": int(now * 1000),
    }


def _log_time(now: float) -> str:
    # Not strftime: its month names follow the locale.
    at = time.gmtime(now)
    clock = f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"
    return f"{at.tm_mday:02d}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{clock} +0000"


def _query_parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _is_text(content_type: str) -> bool:
    # Form data comes in Base64 on AWS, as do types that are not known to be text.
    mime = content_type.partition(";")[0].strip().lower()
    return mime.startswith("text/") or mime in _TEXT_TYPES or mime.endswith(("+json", "+xml"))


def _port(request: web.BaseRequest) -> int:
    address = request.get_extra_info("sockname")
    return int(address[1]) if address else 0
