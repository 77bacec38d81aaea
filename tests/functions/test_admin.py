"""The admin API as its composition root makes it, on the AWS services of the local stack."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.admin import bootstrap
from functions.admin.settings import Settings
from infra.local.stack import REGION
from infra.openapi import contract
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.domain.principal import SCOPES, Principal
from shared.domain.settings import SettingsError, load
from shared.schemas.admin import PlanDocument, PlanList, TenantDocument, TenantList
from shared.schemas.admin_keys import CreatedKey, KeyDocument, KeyList
from shared.schemas.admin_usage import UsageDocument
from shared.schemas.api import Problem
from shared.usecases.authorize import Authorize
from tests.adapters.samples import unique
from tests.cli.deployment import client
from tests.conftest import LocalAws
from tests.functions.conftest import LogLines
from tests.functions.support import Answer, Function, event

ADMIN = Principal("ops", "a" * 16, frozenset({"admin"}), "default")
PLAN = {"key": {"per_second": 5, "burst": 10}, "tenant": {"per_second": 50.5, "burst": 100}}
ROLE = "arn:aws:iam::123456789012:role/"
DAY = 86_400

pytestmark = pytest.mark.usefixtures("keep_loggers")

Admin = Callable[..., Answer]


def environment(local_aws: LocalAws) -> dict[str, str]:
    stores = {name: resource.name for name, resource in local_aws.stack.resources.items()}
    return {
        "POWERTOOLS_SERVICE_NAME": "admin",
        "SLUICE_KEYS_TABLE": stores["KeysTable"],
        "SLUICE_TENANTS_TABLE": stores["TenantsTable"],
        "SLUICE_USAGE_TABLE": stores["UsageTable"],
        "SLUICE_ENDPOINTS_TABLE": stores["EndpointsTable"],
        "SLUICE_MODELS_TABLE": stores["ModelsTable"],
        "SLUICE_FEATURES_TABLE": stores["FeaturesTable"],
        "SLUICE_TRAFFIC_TABLE": stores["TrafficTable"],
        "SLUICE_LIMITS_TABLE": stores["LimitsTable"],
        "SLUICE_IDEMPOTENCY_TABLE": stores["IdempotencyTable"],
        "SLUICE_DATA_BUCKET": stores["DataBucket"],
        "SLUICE_KEY_PEPPER_ARN": stores["KeyPepper"],
    }


@pytest.fixture
def function(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines) -> Iterator[Function]:
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    handler = bootstrap.build(environment(local_aws))
    log = logging.getLogger("functions.admin")
    log.addHandler(log_lines)
    yield Function(handler)
    log.removeHandler(log_lines)


@pytest.fixture
def admin(function: Function) -> Admin:
    """One request of an administrator."""
    caller = Principal("ops", unique("key"), frozenset({"admin"}), "default")

    def request(method: str, path: str, body: Any = None, query: str = "", **headers: str) -> Answer:
        return call(function, method, path, body, query, caller, headers)

    return request


def call(
    function: Function,
    method: str,
    path: str,
    body: Any = None,
    query: str = "",
    principal: Principal | None = ADMIN,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    made = event(method, f"/v1/admin/{path}", route_of(path), body, headers, principal)
    made["rawQueryString"] = query
    return Answer.of(function.handler(made, function.context))


def route_of(path: str) -> str:
    """The route of the template that a path belongs to."""
    first, *rest = path.split("/")
    name = {"tenants": "tenant", "plans": "plan", "keys": "key_id", "endpoints": "endpoint"}.get(first)
    return "/".join(["/v1/admin", first, *([f"{{{name}}}", *rest[1:]] if rest else [])])


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, Problem.model_validate_json(answer.body).code


def tenant(admin: Admin, **members: Any) -> str:
    name = unique("t")
    assert admin("POST", "tenants", {"name": name, **members}).status == 201
    return name


def key_of(admin: Admin, owner: str, **members: Any) -> CreatedKey:
    answer = admin("POST", "keys", {"tenant": owner, "scopes": ["predict"], **members})
    assert answer.status == 201, answer.body
    return CreatedKey.model_validate_json(answer.body)


def authorizer(local_aws: LocalAws) -> Authorize:
    stores, dynamodb = environment(local_aws), client(local_aws, "dynamodb")
    secret = client(local_aws, "secretsmanager").get_secret_value(SecretId=stores["SLUICE_KEY_PEPPER_ARN"])
    return Authorize(
        DynamoDBKeys(dynamodb, stores["SLUICE_KEYS_TABLE"]),
        DynamoDBTenants(dynamodb, stores["SLUICE_TENANTS_TABLE"], stores["SLUICE_USAGE_TABLE"]),
        secret["SecretString"].encode,
    )


def opens(local_aws: LocalAws, text: str) -> bool:
    return authorizer(local_aws)(f"Bearer {text}").principal is not None


def targets(log_lines: LogLines) -> list[str | None]:
    return [line.get("target") for line in log_lines.requests()]


# ------------------------------------------------------------------ who may
def operations() -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, methods in contract()["paths"].items()
        if path.startswith("/v1/admin/")
        for method in methods
    ]


@pytest.mark.parametrize(("method", "path"), operations())
def test_only_the_scope_admin_opens_and_others_learn_nothing(function: Function, method: str, path: str) -> None:
    everything_else = Principal("acme", "k" * 16, SCOPES - {"admin"}, "default")
    for name in ("default", "absent", "%00"):
        filled = path.replace("/v1/admin/", "")
        for part in ("{tenant}", "{plan}", "{key_id}", "{endpoint}", "{revision}"):
            filled = filled.replace(part, name)
        for body in (None, "not json"):
            answer = call(function, method, filled, body, "strange=1", everything_else)
            assert problem(answer) == (403, "insufficient_scope")
    assert problem(call(function, method, filled, None, "", None)) == (401, "unauthenticated")


def test_every_operation_is_covered() -> None:
    assert len(operations()) == 27


def test_settings_are_named_when_they_are_missing() -> None:
    with pytest.raises(SettingsError, match="SLUICE_KEY_PEPPER_ARN is not set"):
        load(Settings, {})


# ------------------------------------------------------------------ tenants
def test_a_tenant_is_created_read_and_changed(admin: Admin, log_lines: LogLines) -> None:
    name = unique("t")
    made = admin("POST", "tenants", {"name": name, "description": "Rockets"})
    document = TenantDocument.model_validate_json(made.body)
    assert (made.status, made.headers["location"]) == (201, f"/v1/admin/tenants/{name}")
    assert (document.plan, document.suspended, document.description) == ("default", False, "Rockets")
    assert abs(datetime.fromisoformat(document.created_at).timestamp() - time.time()) < 60
    assert admin("GET", f"tenants/{name}").json == made.json
    changed = admin("PATCH", f"tenants/{name}", {"suspended": True})
    assert changed.status == 200
    assert changed.json == {**made.json, "suspended": True}
    assert admin("GET", f"tenants/{name}").json == changed.json
    assert targets(log_lines) == [f"tenant:{name}", None, f"tenant:{name}", None]


def test_what_is_wrong_with_tenants(admin: Admin) -> None:
    name = tenant(admin)
    assert problem(admin("POST", "tenants", {"name": name})) == (409, "conflict")
    assert problem(admin("POST", "tenants", {"name": unique("t"), "plan": "absent"})) == (404, "plan_not_found")
    assert problem(admin("PATCH", f"tenants/{name}", {"plan": "absent"})) == (404, "plan_not_found")
    assert problem(admin("PATCH", f"tenants/{name}", {})) == (422, "out_of_range")
    (told,) = admin("PATCH", f"tenants/{name}", {"suspended": "no"}).json["errors"]
    assert told == {"pointer": "/suspended", "detail": "must be true or false"}
    assert problem(admin("PATCH", f"tenants/{name}", {"name": "other"})) == (422, "unknown_field")
    for path in ("tenants/absent", "tenants/Absent", "tenants/" + "a" * 300):
        assert problem(admin("GET", path)) == (404, "tenant_not_found")
        assert problem(admin("PATCH", path, {"suspended": True})) == (404, "tenant_not_found")
        assert problem(admin("GET", f"{path}/usage")) == (404, "tenant_not_found")


def test_faulty_members_have_their_pointers(admin: Admin) -> None:
    answer = admin("POST", "tenants", {"name": "A", "plan": 3, "secret": "x"})
    document = Problem.model_validate_json(answer.body)
    assert answer.status == 422
    assert {fault.pointer for fault in document.errors} == {"/name", "/plan", "/secret"}
    assert problem(admin("POST", "tenants", "{")) == (400, "not_json")
    assert problem(admin("POST", "tenants", "x" * 70_000)) == (413, "payload_too_large")
    csv = admin("POST", "tenants", "name\nacme", **{"content-type": "text/csv"})
    assert problem(csv) == (415, "unsupported_media_type")


def test_lists_go_on_page_by_page(admin: Admin) -> None:
    names = sorted(tenant(admin) for _ in range(3))
    seen: list[str] = []
    page: str | None = ""
    while page is not None:
        answer = admin("GET", "tenants", query=f"limit=2&page={page}")
        document = TenantList.model_validate_json(answer.body)
        assert len(document.tenants) <= 2
        seen += [found.name for found in document.tenants]
        page = document.next
    assert seen == sorted(set(seen))
    assert set(names) <= set(seen)
    for query in ("limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "other=1", "page=" + "x" * 301):
        assert admin("GET", "tenants", query=query).status == 422


def test_usage_has_days_models_and_the_share_of_the_quota(admin: Admin, local_aws: LocalAws) -> None:
    plan = unique("p")
    assert admin("PUT", f"plans/{plan}", {**PLAN, "daily_quota": 100}).status == 200
    owner, other = tenant(admin, plan=plan), tenant(admin)
    today = datetime.now(UTC).date().isoformat()
    dynamodb, table = client(local_aws, "dynamodb"), environment(local_aws)["SLUICE_USAGE_TABLE"]
    for who, period, requests in (
        (owner, f"day#{today}", 7),
        (owner, f"day#{today}#model#tumor", 5),
        (owner, f"month#{today[:7]}", 9),
        (other, f"day#{today}", 1000),
    ):
        counters = {"requests": requests, "errors": 1, "rows": 2, "model_us": 1_500_000, "cost_nusd": 2_000_000}
        dynamodb.put_item(
            TableName=table,
            Item={
                "tenant": {"S": who},
                "period": {"S": period},
                **{name: {"N": str(number)} for name, number in counters.items()},
            },
        )
    answer = admin("GET", f"tenants/{owner}/usage", query=f"since={today}&until={today}")
    document = UsageDocument.model_validate_json(answer.body)
    assert (document.plan, document.total.requests, document.total.errors) == (plan, 7, 1)
    assert (document.total.model_s, document.total.cost_usd) == (1.5, 0.002)
    (day,) = document.days
    assert (day.day.isoformat(), day.requests, day.models["tumor"].requests) == (today, 7, 5)
    assert (document.today.used, document.today.quota) == (7, 100)
    assert (document.month.used, document.month.quota) == (9, None)
    assert UsageDocument.model_validate_json(admin("GET", f"tenants/{owner}/usage").body).days == document.days
    early = admin("GET", f"tenants/{owner}/usage", query="until=2020-02-03")
    assert (early.json["since"], early.json["days"]) == ("2020-02-01", [])
    for query in ("since=x", "since=2026-01-02&until=2026-01-01", "since=2020-01-01&until=2026-01-01", "days=3"):
        assert admin("GET", f"tenants/{owner}/usage", query=query).status == 422
    (told,) = admin("GET", f"tenants/{owner}/usage", query="since=x").json["errors"]
    assert told == {"pointer": "/query/since", "detail": "must be a date, such as 2026-11-01"}


# -------------------------------------------------------------------- plans
def test_a_plan_is_put_and_read(admin: Admin, log_lines: LogLines) -> None:
    name = unique("p")
    put = admin("PUT", f"plans/{name}", {**PLAN, "monthly_quota": 0, "on_limiter_failure": "closed", "max_keys": 1})
    document = PlanDocument.model_validate_json(put.body)
    assert (put.status, document.name, document.tenant.per_second, document.monthly_quota) == (200, name, 50.5, 0)
    assert (document.shards, document.daily_quota, document.on_limiter_failure) == (1, None, "closed")
    assert admin("GET", f"plans/{name}").json == put.json
    listed = PlanList.model_validate_json(admin("GET", "plans", query="limit=1000").body).plans
    assert {"default", name} <= {plan.name for plan in listed}
    assert targets(log_lines)[0] == f"plan:{name}"


def test_the_built_in_plan_is_shown(admin: Admin) -> None:
    document = PlanDocument.model_validate_json(admin("GET", "plans/default").body)
    assert (document.key.per_second, document.key.burst, document.max_keys) == (50, 100, 100)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"key": {"per_second": 0, "burst": 1}}, "/key/per_second"),
        ({"key": {"per_second": 1}}, "/key/burst"),
        ({"tenant": {"per_second": 1, "burst": 0}}, "/tenant/burst"),
        ({"tenant": {"per_second": 1, "burst": 1, "x": 1}}, "/tenant/x"),
        ({"shards": 65}, "/shards"),
        ({"daily_quota": -1}, "/daily_quota"),
        ({"max_keys": 1001}, "/max_keys"),
        ({"on_limiter_failure": "ajar"}, "/on_limiter_failure"),
    ],
)
def test_numbers_that_no_plan_has(admin: Admin, change: dict[str, Any], pointer: str) -> None:
    answer = admin("PUT", "plans/wrong", {**PLAN, **change})
    assert answer.status == 422
    assert [fault.pointer for fault in Problem.model_validate_json(answer.body).errors] == [pointer]
    assert problem(admin("GET", "plans/wrong")) == (404, "plan_not_found")
    assert problem(admin("PUT", "plans/Wrong", PLAN)) == (404, "plan_not_found")


# --------------------------------------------------------------------- keys
def test_a_key_lives_from_creation_to_revocation(admin: Admin, local_aws: LocalAws, log_lines: LogLines) -> None:
    owner = tenant(admin)
    ends = datetime.fromtimestamp(int(time.time()) + DAY, UTC).isoformat()
    answer = admin("POST", "keys", {"tenant": owner, "scopes": ["predict", "jobs"], "name": "ci", "expires_at": ends})
    made = CreatedKey.model_validate_json(answer.body)
    assert (answer.status, answer.headers["location"]) == (201, f"/v1/admin/keys/{made.key_id}")
    assert answer.headers["cache-control"] == "no-store"
    assert (made.tenant, made.scopes, made.name, made.status) == (owner, ["jobs", "predict"], "ci", "active")
    assert made.expires_at == ends
    assert opens(local_aws, made.api_key)

    read = admin("GET", f"keys/{made.key_id}")
    assert read.json == {name: value for name, value in answer.json.items() if name != "api_key"}
    listed = KeyList.model_validate_json(admin("GET", "keys", query=f"tenant={owner}").body)
    assert [key.key_id for key in listed.keys] == [made.key_id]

    gone = admin("DELETE", f"keys/{made.key_id}")
    again = admin("DELETE", f"keys/{made.key_id}")
    assert (gone.status, gone.json["status"]) == (200, "revoked")
    assert again.json == gone.json
    assert not opens(local_aws, made.api_key)

    secret = made.api_key.rpartition("_")[2]
    for answer in (read, gone, admin("GET", "keys", query=f"tenant={owner}")):
        assert secret.encode() not in answer.body
        assert b"hash" not in answer.body
    assert secret not in log_lines.text
    assert [target for target in targets(log_lines) if target] == [f"tenant:{owner}", *[f"key:{made.key_id}"] * 3]


def test_a_rotated_key_overlaps_with_the_new_one(admin: Admin, local_aws: LocalAws, log_lines: LogLines) -> None:
    old = key_of(admin, tenant(admin), name="ci")
    answer = admin("POST", f"keys/{old.key_id}/rotate", {"overlap_s": 60})
    new = CreatedKey.model_validate_json(answer.body)
    assert (answer.status, answer.headers["location"]) == (201, f"/v1/admin/keys/{new.key_id}")
    assert answer.headers["cache-control"] == "no-store"
    assert (new.tenant, new.scopes, new.name) == (old.tenant, old.scopes, old.name)
    assert opens(local_aws, old.api_key)
    assert opens(local_aws, new.api_key)
    kept = KeyDocument.model_validate_json(admin("GET", f"keys/{old.key_id}").body)
    assert kept.replaced_by == new.key_id
    assert kept.expires_at is not None
    assert targets(log_lines)[-2] == f"key:{old.key_id} key:{new.key_id}"
    assert problem(admin("POST", f"keys/{old.key_id}/rotate")) == (409, "conflict")
    newest = CreatedKey.model_validate_json(admin("POST", f"keys/{new.key_id}/rotate", {"overlap_s": 0}).body)
    assert [opens(local_aws, key.api_key) for key in (old, new, newest)] == [True, False, True]
    admin("DELETE", f"keys/{newest.key_id}")
    assert problem(admin("POST", f"keys/{newest.key_id}/rotate")) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["predict admin"]}, "/scopes/0"),
        ({"scopes": ["predict", "root"]}, "/scopes/1"),
        ({"scopes": "admin"}, "/scopes"),
        ({"name": "n" * 65}, "/name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "/expires_at"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": 3}, "/expires_at"),
        ({"plan": "demo"}, "/plan"),
        ({"tenant": "A"}, "/tenant"),
    ],
)
def test_keys_that_cannot_be(admin: Admin, change: dict[str, Any], pointer: str) -> None:
    answer = admin("POST", "keys", {"tenant": "any", "scopes": ["predict"], **change})
    assert answer.status == 422
    assert [fault.pointer for fault in Problem.model_validate_json(answer.body).errors] == [pointer]


def test_keys_of_nobody_and_keys_that_are_not_there(admin: Admin) -> None:
    assert problem(admin("POST", "keys", {"tenant": "absent", "scopes": ["predict"]})) == (404, "tenant_not_found")
    assert problem(admin("GET", "keys", query="tenant=absent")) == (404, "tenant_not_found")
    assert problem(admin("GET", "keys")) == (422, "missing_field")
    for key_id in ("absent", "a" * 300, "ü", "a b"):
        assert problem(admin("GET", f"keys/{key_id}")) == (404, "key_not_found")
        assert problem(admin("DELETE", f"keys/{key_id}")) == (404, "key_not_found")
        assert problem(admin("POST", f"keys/{key_id}/rotate")) == (404, "key_not_found")


def test_a_plan_bounds_the_keys(admin: Admin) -> None:
    plan = unique("p")
    admin("PUT", f"plans/{plan}", {**PLAN, "max_keys": 1})
    owner = tenant(admin, plan=plan)
    first = key_of(admin, owner)
    assert problem(admin("POST", "keys", {"tenant": owner, "scopes": ["predict"]})) == (409, "conflict")
    admin("DELETE", f"keys/{first.key_id}")
    key_of(admin, owner)


def test_keys_are_listed_page_by_page_and_of_one_tenant(admin: Admin) -> None:
    owner, other = tenant(admin), tenant(admin)
    made = sorted(key_of(admin, owner).key_id for _ in range(3))
    key_of(admin, other)
    first = KeyList.model_validate_json(admin("GET", "keys", query=f"tenant={owner}&limit=2").body)
    rest = KeyList.model_validate_json(admin("GET", "keys", query=f"tenant={owner}&limit=2&page={first.next}").body)
    assert [key.key_id for key in (*first.keys, *rest.keys)] == made
    assert rest.next is None


def test_a_whole_key_where_its_id_belongs_does_not_reach_the_log(admin: Admin, log_lines: LogLines) -> None:
    made = key_of(admin, tenant(admin))
    assert admin("DELETE", f"keys/{made.api_key}").status == 404
    assert targets(log_lines)[-1] == "key:malformed"
    assert made.api_key.rpartition("_")[2] not in log_lines.text


# ----------------------------------------------------------------- once only
def test_a_repeated_creation_makes_one_key_and_shows_it_again(admin: Admin, local_aws: LocalAws) -> None:
    owner, once = tenant(admin), {"idempotency-key": unique("once")}
    body = {"tenant": owner, "scopes": ["predict"]}
    first, second = (admin("POST", "keys", body, **once) for _ in range(2))
    assert (first.status, first.body) == (201, second.body)
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["cache-control"] == "no-store"
    assert "idempotency-replayed" not in first.headers
    listed = KeyList.model_validate_json(admin("GET", "keys", query=f"tenant={owner}").body)
    assert [key.key_id for key in listed.keys] == [first.json["key_id"]]
    changed = admin("POST", "keys", {**body, "name": "other"}, **once)
    assert problem(changed) == (422, "idempotency_mismatch")
    stored = client(local_aws, "dynamodb").scan(TableName=environment(local_aws)["SLUICE_IDEMPOTENCY_TABLE"])
    assert first.json["api_key"].rpartition("_")[2] not in json.dumps(stored["Items"], default=repr)


def test_answers_say_how_much_more_may_be_asked(admin: Admin) -> None:
    assert "ratelimit" in admin("GET", "plans").headers


# -------------------------------------------------------------------- roles
def test_a_role_is_bound_changed_and_unbound(admin: Admin, local_aws: LocalAws, log_lines: LogLines) -> None:
    owner, name = tenant(admin), unique("role")
    bound = admin("PUT", "roles", {"arn": f"{ROLE}team/{name}", "tenant": owner, "scopes": ["predict"]})
    document = KeyDocument.model_validate_json(bound.body)
    assert (bound.status, document.key_id, document.status) == (200, f"iam#{ROLE}{name}", "active")
    caller = f"arn:aws:sts::123456789012:assumed-role/{name}/session"
    assert authorizer(local_aws).by_role(caller).principal is not None
    listed = KeyList.model_validate_json(admin("GET", "keys", query=f"tenant={owner}").body)
    assert listed.keys == [document]
    changed = admin("PUT", "roles", {"arn": f"{ROLE}{name}", "tenant": owner, "scopes": ["jobs"]})
    assert changed.json["scopes"] == ["jobs"]
    unbound = admin("DELETE", "roles", query=f"arn={ROLE}{name}")
    assert (unbound.status, unbound.json["status"]) == (200, "revoked")
    assert authorizer(local_aws).by_role(caller).principal is None
    assert targets(log_lines) == [f"tenant:{owner}", f"key:iam#{ROLE}{name}", None, *[f"key:iam#{ROLE}{name}"] * 2]


def test_what_is_wrong_with_roles(admin: Admin) -> None:
    owner = tenant(admin)
    wrong = admin("PUT", "roles", {"arn": "arn:aws:s3:::bucket", "tenant": owner, "scopes": ["predict"]})
    assert [fault.pointer for fault in Problem.model_validate_json(wrong.body).errors] == ["/arn"]
    nobody = admin("PUT", "roles", {"arn": f"{ROLE}x", "tenant": "absent", "scopes": ["predict"]})
    assert problem(nobody) == (404, "tenant_not_found")
    assert problem(admin("DELETE", "roles", query=f"arn={ROLE}{unique('role')}")) == (404, "key_not_found")
    assert problem(admin("DELETE", "roles", query="arn=x")) == (422, "out_of_range")
    assert problem(admin("DELETE", "roles")) == (422, "missing_field")


# ------------------------------------------------------------------- faults
def test_stores_that_are_away(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    function = Function(bootstrap.build(environment(local_aws)))
    # The plan of the administrator lets requests pass while they cannot be counted; what they ask for is not there.
    for method, path, body in (
        ("GET", "tenants", None),
        ("POST", "tenants", {"name": "acme"}),
        ("POST", "keys", {"tenant": "acme", "scopes": ["predict"]}),
        ("DELETE", "keys/absent", None),
        ("GET", "endpoints/tumor", None),
    ):
        answer = call(function, method, path, body)
        assert problem(answer) == (503, "backend_unavailable")
        assert answer.headers["retry-after"]
    once = call(function, "POST", "tenants", {"name": "acme"}, headers={"idempotency-key": "once"})
    assert problem(once) == (503, "idempotency_unavailable")
