"""Tenants, plans and keys through the admin API and the command, and what then holds at the gateway."""

import time

import httpx
import pytest

from tests.e2e.callers import Callers, until
from tests.e2e.conftest import Sluice

pytestmark = pytest.mark.e2e


def test_a_burst_passes_and_then_429_says_when_to_come_again(callers: Callers) -> None:
    caller = callers.caller(callers.tenant(callers.plan(rate=0.25, burst=3)))
    for left in (2, 1, 0):
        answer = caller.predict()
        assert answer.status_code == 200
        assert answer.headers["ratelimit"].startswith(f'"key";r={left};')
    refused = caller.predict()
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["ratelimit-policy"] == '"key";q=3;w=12, "tenant";q=1000;w=2'
    assert refused.headers["ratelimit"].startswith('"key";r=0;t=')
    assert 1 <= int(refused.headers["retry-after"]) <= 4
    # Another key of the tenant has its own bucket.
    assert callers.caller(caller.tenant).predict().status_code == 200
    time.sleep(int(refused.headers["retry-after"]))
    assert caller.predict().status_code == 200


def test_a_key_that_was_revoked_before_its_first_use_opens_nothing(callers: Callers) -> None:
    used, unused = (caller := callers.caller()), callers.caller(caller.tenant)
    assert used.predict().status_code == 200
    revoked = callers.admin.delete(f"/v1/admin/keys/{unused.key_id}")
    assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
    refused = unused.predict()
    assert (refused.status_code, refused.json()) == (403, {"message": "Forbidden"})


def test_keys_by_the_command(sluice: Sluice, callers: Callers) -> None:
    tenant = callers.tenant()
    made = sluice.json("keys", "create", "--tenant", tenant, "--scopes", "predict:tumor", "--name", "ci", "--days", "9")
    first = callers.of(made)
    assert first.predict().status_code == 200
    other = first.predict(path="/v1/models/digits/predict")
    assert (other.status_code, other.json()["code"]) == (403, "insufficient_scope")

    rotated = sluice.json("keys", "rotate", made["key_id"], "--overlap", "1h")
    assert callers.of(rotated).predict().status_code == 200
    assert first.predict().status_code == 200, "the overlap is not over"
    again = sluice.json("keys", "rotate", rotated["key_id"], "--overlap", "0")
    listed = {key["key_id"]: key for key in sluice.json("keys", "list", "--tenant", tenant)["keys"]}
    assert {key["status"] for key in listed.values()} == {"active", "expired"}
    assert listed[made["key_id"]]["replaced_by"] == rotated["key_id"]
    assert listed[rotated["key_id"]]["status"] == "expired"
    assert "api_key" not in listed[again["key_id"]]

    assert sluice.json("keys", "revoke", again["key_id"])["status"] == "revoked"
    assert callers.of(again).predict().status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/admin/tenants"),
        ("GET", "/v1/admin/tenants/demo"),
        ("GET", "/v1/admin/tenants/demo/usage"),
        ("GET", "/v1/admin/keys?tenant=demo"),
        ("POST", "/v1/admin/keys"),
        ("DELETE", "/v1/admin/keys/aaaaaaaaaaaaaaaa"),
        ("PUT", "/v1/admin/plans/default"),
        ("PUT", "/v1/admin/endpoints/tumor"),
        ("PUT", "/v1/admin/roles"),
    ],
)
def test_a_key_without_the_scope_sees_and_changes_nothing(api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, path, content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert "demo" not in answer.json()["detail"]


def test_a_post_of_the_admin_api_has_one_effect_and_its_secret_is_nowhere(sluice: Sluice, callers: Callers) -> None:
    tenant, headers = callers.tenant(), {"Idempotency-Key": "one-key-please"}
    body = {"tenant": tenant, "scopes": ["predict"]}
    first = callers.admin.post("/v1/admin/keys", json=body, headers=headers)
    again = callers.admin.post("/v1/admin/keys", json=body, headers=headers)
    assert (first.status_code, first.content) == (201, again.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(sluice.json("keys", "list", "--tenant", tenant)["keys"]) == 1
    secret = first.json()["api_key"].split("_")[2]
    for log in (sluice.home / "logs").glob("*.log"):
        assert secret not in log.read_text()


def test_suspending_a_tenant_closes_the_door_to_new_authorizations(callers: Callers) -> None:
    caller = callers.caller()
    colleague = callers.caller(caller.tenant)
    callers.admin.patch(f"/v1/admin/tenants/{caller.tenant}", json={"suspended": True}).raise_for_status()
    assert colleague.predict().status_code == 403
    callers.admin.patch(f"/v1/admin/tenants/{caller.tenant}", json={"suspended": False}).raise_for_status()
    assert caller.predict().status_code == 200


def test_usage_appears_by_api_and_command_and_ends_in_a_quota(sluice: Sluice, callers: Callers) -> None:
    tenant = callers.tenant(callers.plan(daily_quota=4))
    caller, other, third = (callers.caller(tenant) for _ in range(3))

    def used() -> dict[str, object]:
        document = callers.admin.get(f"/v1/admin/tenants/{tenant}/usage").json()
        return dict(document["today"])

    for _ in range(3):
        assert caller.predict().status_code == 200
    assert caller.predict(body=b'{"instances": []}').status_code == 422
    assert until(lambda: used() == {"used": 4, "quota": 4}), used()
    document = sluice.json("tenants", "usage", tenant)
    (day,) = document["days"]
    assert (day["requests"], day["errors"], day["rows"], day["models"]["tumor"]["requests"]) == (4, 0, 6, 3)
    assert document["total"]["cost_usd"] > 0
    assert document["total"]["bytes_in"] > 0

    refused = other.predict()
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400
    # A refusal counts against nothing.
    assert third.predict().status_code == 429
    assert used() == {"used": 4, "quota": 4}
