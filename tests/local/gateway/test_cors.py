from collections.abc import Callable
from dataclasses import replace

import pytest

from infra.local.stack import AuthorizerSpec, CorsSpec, HttpApiSpec
from tests.local.gateway.conftest import Gateway, Reply, api, route

Serve = Callable[[HttpApiSpec], Gateway]

APP = "https://app.example"
SPEC = CorsSpec(
    allow_origins=(APP, "http://localhost:3000"),
    allow_methods=("GET", "POST"),
    allow_headers=("authorization", "content-type"),
    expose_headers=("x-request-id", "retry-after"),
    max_age_s=600,
)
KEY = AuthorizerSpec("Key", "authorizer", ("$request.header.Authorization",), 0)


def with_cors(spec: CorsSpec, *routes: str) -> HttpApiSpec:
    listed = [route(key, authorizer="Key") for key in routes or ("POST /predict",)]
    return replace(api(*listed, Key=KEY), cors=spec)


def ask(gateway: Gateway, origin: str, method: str = "POST", path: str = "/predict") -> Reply:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    return gateway.request("OPTIONS", path, headers=headers)


def cors_headers(reply: Reply) -> dict[str, str]:
    return {name.lower(): value for name, value in reply.headers.items() if name.lower().startswith("access-control-")}


def test_a_preflight_request_is_answered_without_authorizer_and_function(serve: Serve) -> None:
    gateway = serve(with_cors(SPEC))
    reply = ask(gateway, APP)
    assert (reply.status, reply.body) == (204, b"")
    assert cors_headers(reply) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "600",
    }
    assert gateway.functions.events == {}


@pytest.mark.parametrize(
    ("origin", "method"), [("https://evil.example", "POST"), (APP, "DELETE"), (APP + ".evil", "GET")]
)
def test_what_is_not_allowed_gets_no_cors_headers(origin: str, method: str, serve: Serve) -> None:
    reply = ask(serve(with_cors(SPEC)), origin, method)
    assert (reply.status, cors_headers(reply)) == (204, {})


@pytest.mark.parametrize("headers", [{}, {"Origin": APP}, {"Access-Control-Request-Method": "POST"}])
def test_options_that_is_no_preflight_request_is_a_route_like_others(headers: dict[str, str], serve: Serve) -> None:
    assert serve(with_cors(SPEC)).request("OPTIONS", "/predict", headers=headers).is_error(404, "Not Found")


@pytest.mark.parametrize(
    ("allowed", "origin", "answer"),
    [
        ("*", "https://any.example", "*"),
        ("https://*", "https://any.example:8443", "https://any.example:8443"),
        ("https://*", "http://any.example", None),
        ("http://*", "http://localhost:3000", "http://localhost:3000"),
        ("https://app.example", "HTTPS://APP.EXAMPLE", None),
        ("https://app.example", "null", None),
    ],
)
def test_origins_are_exact_or_every_one_of_a_scheme(
    allowed: str, origin: str, answer: str | None, serve: Serve
) -> None:
    reply = ask(serve(with_cors(replace(SPEC, allow_origins=(allowed,)))), origin)
    assert reply.headers.get("Access-Control-Allow-Origin") == answer


def test_the_gateways_headers_replace_those_of_the_function(serve: Serve) -> None:
    gateway = serve(replace(api(route("GET /")), cors=SPEC))
    gateway.functions.handlers["main"] = lambda _event: {
        "statusCode": 200,
        "headers": {"Access-Control-Allow-Origin": "*", "access-control-max-age": "1", "x-request-id": "r"},
    }
    reply = gateway.request("GET", "/", headers={"Origin": APP})
    assert cors_headers(reply) == {
        "access-control-allow-origin": APP,
        "access-control-expose-headers": "x-request-id,retry-after",
    }
    assert reply.headers["x-request-id"] == "r"
    assert cors_headers(gateway.request("GET", "/")) == {}
    assert cors_headers(gateway.request("GET", "/", headers={"Origin": "https://evil.example"})) == {}


@pytest.mark.parametrize("key", ["ANY /predict", "$default", "OPTIONS /predict"])
def test_a_route_that_takes_options_has_its_authorizer_asked_first(key: str, serve: Serve) -> None:
    """A browser sends no credential with a preflight request, so such a route is closed to pages of other origins."""
    reply = ask(serve(with_cors(SPEC, key)), APP)
    assert reply.is_error(401, "Unauthorized")
    assert ask(serve(replace(api(route(key)), cors=SPEC)), APP).status == 204


def test_without_a_configuration_the_functions_headers_stay(serve: Serve) -> None:
    gateway = serve(api(route("GET /")))
    headers = {"access-control-allow-origin": "https://mine.example"}
    gateway.functions.handlers["main"] = lambda _event: {"statusCode": 200, "headers": headers}
    assert cors_headers(gateway.request("GET", "/", headers={"Origin": APP})) == headers
    assert ask(gateway, APP).is_error(404, "Not Found")


def test_the_gateways_own_errors_carry_the_headers(serve: Serve) -> None:
    gateway = serve(with_cors(SPEC))
    gateway.functions.handlers["authorizer"] = lambda _event: {"isAuthorized": False}
    unauthorized = gateway.request("POST", "/predict", headers={"Origin": APP})
    forbidden = gateway.request("POST", "/predict", headers={"Origin": APP, "Authorization": "k"})
    missing = gateway.request("GET", "/nowhere", headers={"Origin": APP})
    assert [reply.status for reply in (unauthorized, forbidden, missing)] == [401, 403, 404]
    assert {reply.headers["Access-Control-Allow-Origin"] for reply in (unauthorized, forbidden, missing)} == {APP}


def test_credentials_are_allowed_where_the_configuration_says_so(serve: Serve) -> None:
    gateway = serve(replace(api(route("GET /")), cors=replace(SPEC, allow_credentials=True)))
    for reply in (ask(gateway, APP), gateway.request("GET", "/", headers={"Origin": APP})):
        assert reply.headers["Access-Control-Allow-Credentials"] == "true"
        assert reply.headers["Access-Control-Allow-Origin"] == APP
