import asyncio
from typing import Any

import pytest

from infra.local.gateway import authorizer as authorizer_module
from infra.local.gateway.app import create_app
from infra.local.lambda_service.errors import TooManyRequestsError
from infra.local.lambda_service.invocation import InvokeResult
from infra.local.stack import AuthorizerSpec
from tests.local.gateway.conftest import Functions, Gateway, api, route


def credential(*sources: str, ttl_s: int = 60) -> AuthorizerSpec:
    return AuthorizerSpec("Credential", "auth", sources or ("$request.header.Authorization",), ttl_s)


def start(serve: Any, spec: AuthorizerSpec, answer: Any = None) -> Gateway:
    routes = [route("GET /a", authorizer="Credential"), route("GET /b", authorizer="Credential"), route("GET /open")]
    gateway: Gateway = serve(api(*routes, Credential=spec))
    gateway.functions.handlers["auth"] = lambda event: (
        answer
        or {
            "isAuthorized": "good" in event["identitySource"][0],
            "context": {"key": event["identitySource"][0]},
        }
    )
    return gateway


def asked(gateway: Gateway) -> int:
    return len(gateway.functions.events.get("auth", []))


def get(gateway: Gateway, path: str, credential: str | None = None) -> Any:
    return gateway.request("GET", path, headers={} if credential is None else {"Authorization": credential})


def test_a_missing_or_empty_credential_is_401_and_nobody_is_asked(serve: Any) -> None:
    gateway = start(serve, credential())
    assert get(gateway, "/a").is_error(401, "Unauthorized")
    assert get(gateway, "/a", "").is_error(401, "Unauthorized")
    assert asked(gateway) == 0
    assert get(gateway, "/open").status == 200


def test_an_answer_is_reused_across_all_routes(serve: Any) -> None:
    gateway = start(serve, credential())
    for path in ("/a", "/b", "/a"):
        reply = get(gateway, path, "good 1")
        assert reply.json["requestContext"]["authorizer"]["lambda"] == {"key": "good 1"}
    assert asked(gateway) == 1
    assert get(gateway, "/a", "good 2").json["requestContext"]["authorizer"]["lambda"] == {"key": "good 2"}
    assert asked(gateway) == 2


def test_a_refusal_is_403_and_reused_as_well(serve: Any) -> None:
    gateway = start(serve, credential())
    for path in ("/a", "/b"):
        assert get(gateway, path, "bad").is_error(403, "Forbidden")
    assert asked(gateway) == 1
    assert "main" not in gateway.functions.events


def test_the_route_key_among_the_sources_separates_the_routes(serve: Any) -> None:
    gateway = start(serve, credential("$request.header.Authorization", "$context.routeKey"))
    for path in ("/a", "/b", "/a", "/b"):
        assert get(gateway, path, "good").status == 200
    assert asked(gateway) == 2
    assert gateway.functions.events["auth"][1]["identitySource"] == ["good", "GET /b"]


def test_every_source_must_be_there(serve: Any) -> None:
    gateway = start(serve, credential("$request.header.Authorization", "$request.querystring.key"))
    assert get(gateway, "/a", "good").is_error(401, "Unauthorized")
    assert get(gateway, "/a?key=1", "good").status == 200
    assert get(gateway, "/a?key=2", "good").status == 200
    assert asked(gateway) == 2


def test_a_ttl_of_zero_asks_every_time(serve: Any) -> None:
    gateway = start(serve, credential(ttl_s=0))
    assert [get(gateway, "/a", "good").status for _ in range(3)] == [200] * 3
    assert asked(gateway) == 3


def test_an_answer_expires(serve: Any) -> None:
    gateway = start(serve, credential(ttl_s=1))
    get(gateway, "/a", "good")
    gateway.runner.run(asyncio.sleep(1.1))
    get(gateway, "/a", "good")
    assert asked(gateway) == 2


def test_the_cache_is_bounded(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizer_module, "MAX_CACHED", 2)
    gateway = start(serve, credential())
    for key in ("good 1", "good 2", "good 1", "good 3", "good 1"):
        get(gateway, "/a", key)
    assert asked(gateway) == 3, "the least recently used one goes first"
    get(gateway, "/a", "good 2")
    assert asked(gateway) == 4


@pytest.mark.parametrize(
    "answer",
    [
        {"isAuthorized": "yes"},
        {"principalId": "x"},
        {"isAuthorized": True, "context": "text"},
        ["isAuthorized"],
        InvokeResult(b'{"errorType":"X"}', "Unhandled", b"", "id", 1.0, None),
        InvokeResult(b"no json", None, b"", "id", 1.0, None),
    ],
)
def test_a_malformed_answer_or_an_error_is_500_and_not_kept(serve: Any, answer: Any) -> None:
    gateway = start(serve, credential(), answer)
    for _ in range(2):
        assert get(gateway, "/a", "good").is_error(500, "Internal Server Error")
    assert asked(gateway) == 2
    assert "main" not in gateway.functions.events


def test_a_throttled_or_slow_authorizer_is_500(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def throttled(_event: Any) -> Any:
        raise TooManyRequestsError("Rate Exceeded.")

    gateway = start(serve, credential())
    gateway.functions.handlers["auth"] = throttled
    assert get(gateway, "/a", "good").is_error(500, "Internal Server Error")
    monkeypatch.setattr(authorizer_module, "TIMEOUT_S", 0.1)
    gateway.functions.handlers["auth"] = lambda _: asyncio.sleep(5)
    assert get(gateway, "/a", "good").is_error(500, "Internal Server Error")


def test_concurrent_first_requests_of_several_credentials_get_their_own_answers(serve: Any) -> None:
    gateway = start(serve, credential())

    async def slow(event: Any) -> Any:
        await asyncio.sleep(0.05)
        key = event["identitySource"][0]
        return {"isAuthorized": key != "bad", "context": {"key": key}}

    gateway.functions.handlers["auth"] = slow
    keys = ["k1", "k2", "bad", "k1"] * 5

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(fetch, key) for key in keys))

    def fetch(key: str) -> Any:
        import http.client
        import json

        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("GET", "/a", headers={"Authorization": key})
        response = connection.getresponse()
        document = json.loads(response.read())
        connection.close()
        return response.status, document.get("requestContext", {}).get("authorizer")

    for key, (status, context) in zip(keys, gateway.runner.run(all_at_once()), strict=True):
        assert (status, context) == ((403, None) if key == "bad" else (200, {"lambda": {"key": key}}))


def test_an_unknown_source_or_authorizer_stops_the_start() -> None:
    for sources in (("$request.body.x",), ("Authorization",), ("$stageVariables.x",)):
        with pytest.raises(ValueError, match="Identity source"):
            create_app(api(Credential=credential(*sources)), Functions().invoke)
    with pytest.raises(ValueError, match="has no authorizer 'Other'"):
        create_app(api(route("GET /", authorizer="Other")), Functions().invoke)
