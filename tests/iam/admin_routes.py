"""Every route of the admin API, asked once and in ways that take its rarer branches."""

import re
from collections.abc import Mapping
from typing import Any

from functions.admin import bootstrap
from infra.local.seed import PLAN
from infra.openapi import contract
from shared.domain.principal import Principal
from tests.adapters.samples import unique
from tests.functions.support import Answer, Function, event

ADMIN = Principal("ops", "a" * 16, frozenset({"admin"}), PLAN.name)
RATES = {"key": {"per_second": 5, "burst": 10}, "tenant": {"per_second": 50, "burst": 100}}
ROLE = "arn:aws:iam::123456789012:role/"
NAMES = {"tenants": "tenant", "plans": "plan", "keys": "key_id", "endpoints": "endpoint"}


class Admin:
    """Asks the function as an administrator, and keeps which operations were asked for."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._function = Function(bootstrap.build(environment))
        self.asked: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str, body: Any = None, query: str = "", **headers: str) -> Answer:
        first, *rest = path.split("/")
        route = "/".join(["/v1/admin", first, *([f"{{{NAMES[first]}}}", *rest[1:]] if rest else [])])
        route = re.sub("/history/.+", "/history/{revision}", route)
        route = re.sub("/features/[^/]+", "/features/{feature_set}", route)
        route = re.sub("{feature_set}/.+", "{feature_set}/{entity}", route)
        made = event(method, f"/v1/admin/{path}", route, body, headers, ADMIN)
        made["rawQueryString"] = query
        self.asked.add((method, route))
        return Answer.of(self._function.handler(made, self._function.context))


def drive_admin(environment: Mapping[str, str]) -> None:
    """Ask for everything that the contract has."""
    admin = Admin(environment)
    tenant, plan, endpoint, role = unique("t"), unique("p"), unique("e"), ROLE + unique("caller")
    answers = [
        admin("PUT", f"plans/{plan}", RATES),
        admin("GET", f"plans/{plan}"),
        admin("GET", "plans"),
        *_once(admin, "tenants", {"name": tenant, "plan": plan}),
        admin("GET", "tenants"),
        admin("GET", f"tenants/{tenant}"),
        admin("PATCH", f"tenants/{tenant}", {"description": "Rockets"}),
        admin("GET", f"tenants/{tenant}/usage"),
        *_keys(admin, tenant),
        admin("PUT", "roles", {"arn": role, "tenant": tenant, "scopes": ["predict"]}),
        admin("DELETE", "roles", query=f"arn={role}"),
        admin("GET", f"endpoints/{endpoint}"),
        *_endpoint(admin, f"endpoints/{endpoint}"),
        admin("GET", "endpoints"),
        *_features(admin, f"tenants/{tenant}/features/customer"),
    ]
    assert [answer.body for answer in answers if answer.status >= 300] == []
    paths = contract()["paths"].items()
    assert admin.asked == {(method.upper(), path) for path, methods in paths if "/admin/" in path for method in methods}


def _keys(admin: Admin, tenant: str) -> list[Answer]:
    made, again = _once(admin, "keys", {"tenant": tenant, "scopes": ["predict"]})
    key_id = made.json["key_id"]
    rotated = admin("POST", f"keys/{key_id}/rotate", {"overlap_s": 60})
    # Somebody else was faster: the old key is read once more to say so.
    assert admin("POST", f"keys/{key_id}/rotate", {"overlap_s": 60}).status == 409
    listed, read = admin("GET", "keys", query=f"tenant={tenant}"), admin("GET", f"keys/{key_id}")
    return [made, again, rotated, listed, read, admin("DELETE", f"keys/{key_id}")]


def _features(admin: Admin, path: str) -> list[Answer]:
    one = {"features": {"age": 41}}
    return [
        *_once(admin, path, {"entities": [{"entity": "c1", **one}]}),
        admin("PUT", f"{path}/c2", one),
        admin("GET", f"{path}/c1"),
        admin("DELETE", f"{path}/c1"),
    ]


def _endpoint(admin: Admin, path: str) -> list[Answer]:
    """The hundred-and-first revision is the first that ends an old one."""

    def change(method: str, below: str, body: Any, revision: int) -> Answer:
        return admin(method, path + below, body, **{"if-match": f'"{revision}"'})

    return [
        *(change("PUT", "", {"timeout_ms": 100 + number}, number) for number in range(101)),
        change("POST", "/rollback", {"revision": 50}, 101),
        change("PATCH", "/traffic", {"shares": {"main": 1}}, 102),
        admin("GET", f"{path}/traffic"),
        admin("GET", f"{path}/history"),
        admin("GET", f"{path}/history/102"),
    ]


def _once(admin: Admin, path: str, body: Any) -> list[Answer]:
    """A request that fails and frees its Idempotency-Key, and one that is repeated."""
    headers = {"idempotency-key": unique("key")}
    assert admin("POST", path, {}, **{"idempotency-key": unique("key")}).status >= 400
    first, second = (admin("POST", path, body, **headers) for _ in range(2))
    assert second.headers["idempotency-replayed"] == "true"
    assert first.body == second.body
    return [first, second]
