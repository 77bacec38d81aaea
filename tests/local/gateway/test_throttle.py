from collections.abc import Callable
from dataclasses import replace

from infra.local.gateway.throttle import TokenBucket
from infra.local.stack import AuthorizerSpec, HttpApiSpec, ThrottleSpec
from tests.local.gateway.conftest import Gateway, api, route

# So slow that no token comes back during a test.
TWO = ThrottleSpec(rate=1e-6, burst=2)


def test_a_bucket_holds_its_burst_and_fills_at_its_rate() -> None:
    now = 100.0
    bucket = TokenBucket(ThrottleSpec(rate=10, burst=3), lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now += 0.09
    assert bucket.take() is False
    now += 0.02
    assert [bucket.take(), bucket.take()] == [True, False]
    now += 3600
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_over_the_limit_the_gateway_answers_429_without_asking_anybody(
    serve: Callable[[HttpApiSpec], Gateway],
) -> None:
    key = AuthorizerSpec("Key", "authorizer", ("$request.header.Authorization",), 0)
    spec = api(route("GET /a"), route("GET /b", authorizer="Key"), Key=key)
    gateway = serve(replace(spec, throttle=TWO))
    assert gateway.request("GET", "/nowhere").status == 404
    assert [gateway.request("GET", "/a").status for _ in range(2)] == [200, 200]
    assert gateway.request("GET", "/a").is_error(429, "Too Many Requests")
    assert gateway.request("GET", "/b", headers={"Authorization": "k"}).is_error(429, "Too Many Requests")
    assert set(gateway.functions.events) == {"main"}
    assert len(gateway.functions.events["main"]) == 2


def test_a_route_with_settings_of_its_own_has_its_own_bucket(serve: Callable[[HttpApiSpec], Gateway]) -> None:
    spec = api(route("GET /a"), route("GET /b"))
    gateway = serve(replace(spec, throttle=TWO, route_throttles={"GET /b": ThrottleSpec(rate=1e-6, burst=1)}))
    assert [gateway.request("GET", "/b").status for _ in range(2)] == [200, 429]
    assert [gateway.request("GET", "/a").status for _ in range(3)] == [200, 200, 429]
