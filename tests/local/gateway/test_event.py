import base64
import json
import re
import time
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import ApiGatewayAuthorizerRequestV2, APIGatewayProxyEventV2Model

from infra.local.stack import AuthorizerSpec
from tests.local.gateway.conftest import api, route

CREDENTIAL = AuthorizerSpec("Credential", "auth", ("$request.header.Authorization",), 60)


def test_an_integration_event_has_the_shape_of_payload_2_0(serve: Any) -> None:
    gateway = serve(api(route("POST /v1/models/{model}/predict", authorizer="Credential"), Credential=CREDENTIAL))
    gateway.functions.handlers["auth"] = lambda _: {"isAuthorized": True, "context": {"tenant": "t", "n": 1}}
    headers = [("Authorization", "Bearer x"), ("Content-Type", "application/json")]
    headers += [("Cookie", "a=b; c=d"), ("User-Agent", "test/1"), ("X-Forwarded-For", "10.0.0.1")]
    path = "/v1/models/caf%C3%A9%20bar/predict?a=1&b=x%2By&a=2&c"
    event = gateway.request("POST", path, headers=dict(headers), data=b'{"instances": ["\xc3\xa4"]}').json

    APIGatewayProxyEventV2Model.model_validate(event)
    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == "POST /v1/models/{model}/predict"
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/v1/models/café bar/predict"
    assert event["rawQueryString"] == "a=1&b=x%2By&a=2&c"
    assert event["queryStringParameters"] == {"a": "1,2", "b": "x+y", "c": ""}
    assert event["pathParameters"] == {"model": "café bar"}
    assert event["cookies"] == ["a=b", "c=d"]
    assert (event["body"], event["isBase64Encoded"]) == ('{"instances": ["ä"]}', False)
    assert "stageVariables" not in event

    sent = event["headers"]
    assert sent["content-length"] == "21"
    assert sent["host"] == f"127.0.0.1:{gateway.port}"
    assert sent["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
    assert sent["x-forwarded-port"] == str(gateway.port)
    assert sent["x-forwarded-proto"] == "http"
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", sent["x-amzn-trace-id"])
    assert "cookie" not in sent
    assert all(name == name.lower() for name in sent)

    context = event["requestContext"]
    assert context["authorizer"] == {"lambda": {"tenant": "t", "n": 1}}
    assert (context["apiId"], context["stage"], context["accountId"]) == ("abc123", "$default", "000000000000")
    assert context["http"] == {
        "method": "POST",
        "path": "/v1/models/café bar/predict",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "test/1",
    }
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", context["time"])
    assert abs(context["timeEpoch"] - time.time() * 1000) < 60_000


def test_repeated_headers_and_cookies_are_joined_and_those_of_the_connection_left_out(serve: Any) -> None:
    gateway = serve(api(route("GET /")))
    lines = (b"Host: h", b"X-Many: 1", b"x-many: 2, 3", b"Cookie: a=b; c=d", b"cookie: e=f", b"Connection: close")
    answer = gateway.raw(b"\r\n".join((b"GET / HTTP/1.1", *lines, b"TE: trailers", b"", b"")))
    event = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert event["headers"]["x-many"] == "1,2, 3"
    assert event["cookies"] == ["a=b", "c=d", "e=f"]
    assert {"connection", "te", "cookie"}.isdisjoint(event["headers"])


def test_an_authorizer_gets_the_same_request_without_its_body(serve: Any) -> None:
    gateway = serve(api(route("POST /v1/{model}", authorizer="Credential"), Credential=CREDENTIAL))
    gateway.functions.handlers["auth"] = lambda _: {"isAuthorized": True}
    reply = gateway.request("POST", "/v1/m?q=1", headers={"AUTHORIZATION": "Bearer x"}, data=b"secret")
    assert reply.json["requestContext"]["authorizer"] == {"lambda": {}}
    (event,) = gateway.functions.events["auth"]
    ApiGatewayAuthorizerRequestV2.model_validate(event)
    assert event["type"] == "REQUEST"
    assert event["identitySource"] == ["Bearer x"]
    assert event["routeArn"] == "arn:aws:execute-api:us-east-1:000000000000:abc123/$default/POST/v1/m"
    assert event["routeKey"] == "POST /v1/{model}"
    assert event["pathParameters"] == {"model": "m"}
    assert event["queryStringParameters"] == {"q": "1"}
    assert event["headers"]["authorization"] == "Bearer x"
    assert "body" not in event


@pytest.mark.parametrize(
    ("content_type", "body", "encoded"),
    [
        ("application/json", b"{}", False),
        ("Application/JSON; charset=utf-8", b"{}", False),
        ("application/vnd.api+json", b"{}", False),
        ("text/csv", b"1,2", False),
        ("application/octet-stream", b"\x00\xff", True),
        ("image/png", b"\x89PNG", True),
        ("application/x-www-form-urlencoded", b"a=b", True),
        ("application/json", b"\xff\xfe", True),
        (None, b"abc", True),
    ],
)
def test_a_body_that_is_no_text_comes_in_base64(
    serve: Any, content_type: str | None, body: bytes, encoded: bool
) -> None:
    gateway = serve(api(route("POST /")))
    headers = {"Content-Type": content_type} if content_type else {}
    event = gateway.request("POST", "/", headers=headers, data=body).json
    assert event["isBase64Encoded"] is encoded
    assert (base64.b64decode(event["body"]) if encoded else event["body"].encode()) == body


def test_a_compressed_body_is_passed_on_as_it_came(serve: Any) -> None:
    gateway = serve(api(route("POST /")))
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    event = gateway.request("POST", "/", headers=headers, data=b"not really gzip").json
    assert base64.b64decode(event["body"]) == b"not really gzip"


def test_a_request_without_a_body_has_none_in_its_event(serve: Any) -> None:
    event = serve(api(route("GET /"))).request("GET", "/").json
    APIGatewayProxyEventV2Model.model_validate(event)
    assert "body" not in event
    assert event["isBase64Encoded"] is False
    assert event["headers"]["content-length"] == "0"
    assert {"cookies", "queryStringParameters", "pathParameters"}.isdisjoint(event)
    assert "authorizer" not in event["requestContext"]
    assert event["rawQueryString"] == ""


def test_a_named_stage_stands_in_front_of_the_path(serve: Any) -> None:
    gateway = serve(api(route("GET /health"), stage="prod"))
    event = gateway.request("GET", "/prod/health").json
    assert (event["rawPath"], event["routeKey"]) == ("/prod/health", "GET /health")
    assert event["requestContext"]["stage"] == "prod"
    assert gateway.request("GET", "/health").is_error(404, "Not Found")
    assert gateway.request("GET", "/product/health").is_error(404, "Not Found")
