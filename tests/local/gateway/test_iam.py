import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
from infra.local.gateway import sigv4
from infra.local.stack import HttpApiSpec
from tests.local.gateway.conftest import Gateway, Reply, api, route

Serve = Callable[[HttpApiSpec], Gateway]
BODY = b'{"inputs": [1]}'


@pytest.fixture
def gateway(serve: Serve) -> Gateway:
    keys = ("POST /iam/predict", "GET /iam/models/{model}")
    return serve(api(*(replace(route(key), iam=True) for key in keys), route("GET /open")))


def sign(
    gateway: Gateway,
    method: str = "POST",
    path: str = "/iam/predict",
    body: bytes = BODY,
    *,
    credentials: Credentials | None = None,
    service: str = "execute-api",
    region: str = "us-east-1",
    **headers: str,
) -> dict[str, str]:
    """The headers of a request, signed by AWS's own client."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, f"http://127.0.0.1:{gateway.port}{path}", named, body)
    SigV4Auth(credentials or Credentials(ACCESS_KEY, SECRET_KEY), service, region).add_auth(request)
    return dict(request.headers.items())


def send(gateway: Gateway, headers: dict[str, str], body: bytes = BODY, path: str = "/iam/predict") -> Reply:
    return gateway.request("POST", path, headers=headers, data=body)


def test_a_signed_request_has_the_caller_in_its_event(gateway: Gateway) -> None:
    reply = send(gateway, sign(gateway, Content_Type="application/json", X_Custom="  two   spaces "))
    assert reply.status == 200
    (event,) = gateway.functions.events["main"]
    assert event["requestContext"]["authorizer"] == {
        "iam": {
            "accessKey": "local",
            "accountId": "000000000000",
            "callerId": "AIDALOCAL00000000000",
            "cognitoIdentity": None,
            "principalOrgId": None,
            "userArn": "arn:aws:iam::000000000000:user/local",
            "userId": "AIDALOCAL00000000000",
        }
    }
    assert event["body"] == BODY.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/iam/models/a",
        "/iam/models/a?b=2&a=1&a=0",
        "/iam/models/a%20b?q=%C3%A9%2F&empty=&flag",
        "/iam/models/%C3%A9~_-.",
    ],
)
def test_paths_and_queries_are_signed_as_they_are_sent(path: str, gateway: Gateway) -> None:
    headers = sign(gateway, "GET", path, b"")
    assert gateway.request("GET", path, encoded=True, headers=headers).status == 200


def test_temporary_credentials_and_a_hash_of_the_body_may_be_signed_too(gateway: Gateway) -> None:
    headers = sign(
        gateway,
        credentials=Credentials(ACCESS_KEY, SECRET_KEY, "local"),
        X_Amz_Content_SHA256=hashlib.sha256(BODY).hexdigest(),
    )
    assert headers["X-Amz-Security-Token"] == "local"
    assert send(gateway, headers).status == 200


def _without(name: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda headers: {key: value for key, value in headers.items() if key != name}


def _edited(old: str, new: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda headers: {**headers, "Authorization": headers["Authorization"].replace(old, new)}


@pytest.mark.parametrize(
    "change",
    [
        _without("Authorization"),
        _without("X-Amz-Date"),
        _edited("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        _edited("Signature=", "Signature=0"),
        _edited("Signature=", "Sig="),
        _edited("Credential=local", "Credential=l\xe9cal"),
        _edited("host;", ""),
        _edited("x-amz-date", ""),
        _edited("host;", "host;x-missing;"),
        _edited(", ", ""),
        lambda headers: {**headers, "X-Custom": "another"},
        lambda headers: {**headers, "Authorization": "Bearer x"},
        lambda headers: {**headers, "Authorization": "AWS4-HMAC-SHA256 " + "a=b," * 50},
    ],
)
def test_a_signature_that_does_not_fit_is_forbidden(
    change: Callable[[dict[str, str]], dict[str, str]], gateway: Gateway
) -> None:
    headers = change(sign(gateway, X_Custom="one"))
    assert send(gateway, headers).is_error(403, "Forbidden")
    assert gateway.functions.events == {}


@pytest.mark.parametrize(
    "options",
    [
        {"credentials": Credentials(ACCESS_KEY, "another")},
        {"credentials": Credentials("another", SECRET_KEY)},
        {"service": "lambda"},
        {"region": "eu-west-1"},
        {"X_Amz_Content_SHA256": "UNSIGNED-PAYLOAD"},
        {"X_Amz_Content_SHA256": "0" * 64},
    ],
)
def test_what_was_signed_with_or_for_something_else_is_forbidden(options: dict[str, Any], gateway: Gateway) -> None:
    assert send(gateway, sign(gateway, **options)).is_error(403, "Forbidden")


def test_what_was_signed_is_what_arrives(gateway: Gateway) -> None:
    headers = sign(gateway)
    assert send(gateway, headers, BODY + b" ").is_error(403, "Forbidden")
    assert send(gateway, headers, path="/iam/predict?more=1").is_error(403, "Forbidden")
    assert send(gateway, {**headers, "Host": "other.example"}).is_error(403, "Forbidden")
    assert gateway.request("PUT", "/iam/predict", headers=headers, data=BODY).status == 404
    assert send(gateway, headers).status == 200


@pytest.mark.parametrize(("minutes", "status"), [(-6, 403), (-4, 200), (4, 200), (6, 403)])
def test_clocks_may_differ_by_five_minutes(
    minutes: int, status: int, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC) + timedelta(minutes=minutes)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    assert send(gateway, sign(gateway)).status == status


def test_other_routes_take_no_signature(gateway: Gateway) -> None:
    assert gateway.request("GET", "/open").status == 200
    assert "authorizer" not in gateway.functions.events["main"][0]["requestContext"]


def test_the_local_identity_is_a_user_of_the_local_account() -> None:
    assert sigv4.USER_ARN == "arn:aws:iam::000000000000:user/local"
