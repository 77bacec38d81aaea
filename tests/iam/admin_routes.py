"""Every route of the admin API, asked once and in ways that take its rarer branches."""

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
        admin("PUT", f"endpoints/{endpoint}", {"version": 0, "log_inputs": 0.5}),
        admin("GET", "endpoints"),
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


def _once(admin: Admin, path: str, body: Any) -> list[Answer]:
    """A request that fails and frees its Idempotency-Key, and one that is repeated."""
    headers = {"idempotency-key": unique("key")}
    assert admin("POST", path, {}, **{"idempotency-key": unique("key")}).status >= 400
    first, second = (admin("POST", path, body, **headers) for _ in range(2))
    assert second.headers["idempotency-replayed"] == "true"
    assert first.body == second.body
    return [first, second]
