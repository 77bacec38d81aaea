"""Callers of a running stack: tenants and keys of a test's own, so that no other test's requests count."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tests.e2e.conftest import Sluice

TUMOR = (Path(__file__).parents[2] / "examples/tumor/request.json").read_bytes()
PREDICT = "/v1/models/tumor/predict"
FAST = {"per_second": 500, "burst": 1000}


@dataclass(frozen=True)
class Caller:
    """An API key: its tenant, its id, and a client that sends it."""

    tenant: str
    key_id: str
    client: httpx.Client

    def predict(
        self, headers: Mapping[str, str] | None = None, *, body: bytes = TUMOR, path: str = PREDICT
    ) -> httpx.Response:
        return self.client.post(path, content=body, headers={"Content-Type": "application/json", **(headers or {})})


@dataclass(frozen=True)
class Callers:
    """Makes them through the admin API, as an administrator does."""

    sluice: "Sluice"
    admin: httpx.Client
    opened: ExitStack = field(default_factory=ExitStack)

    def plan(self, *, rate: float = 500, burst: int = 1000, daily_quota: int | None = None) -> str:
        name = f"plan-{uuid.uuid4().hex[:8]}"
        bucket = {"per_second": rate, "burst": burst}
        plan = {"key": bucket, "tenant": FAST, "daily_quota": daily_quota}
        self.admin.put(f"/v1/admin/plans/{name}", json=plan).raise_for_status()
        return name

    def tenant(self, plan: str | None = None) -> str:
        name = f"tenant-{uuid.uuid4().hex[:8]}"
        made = self.admin.post("/v1/admin/tenants", json={"name": name, "plan": plan or self.plan()})
        assert made.status_code == 201, made.text
        return name

    def caller(self, tenant: str | None = None, scopes: Sequence[str] = ("predict",)) -> Caller:
        made = self.admin.post("/v1/admin/keys", json={"tenant": tenant or self.tenant(), "scopes": list(scopes)})
        assert made.status_code == 201, made.text
        return self.of(made.json())

    def of(self, key: Mapping[str, str]) -> Caller:
        """Who calls with a key that was just created."""
        return Caller(key["tenant"], key["key_id"], self.client(key["api_key"]))

    def client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        client = httpx.Client(base_url=self.sluice.local["api_url"], headers=headers, timeout=40)
        return self.opened.enter_context(client)


def lines(sluice: "Sluice", function: str, request_id: str) -> list[dict[str, Any]]:
    """The request lines of one request in a function's log."""
    log = (sluice.home / "logs" / f"{function}.log").read_text()
    found = [json.loads(line) for line in log.splitlines() if request_id in line and line.startswith("{")]
    return [line for line in found if line["message"] == "request" and line["request_id"] == request_id]


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something comes true within some seconds."""
    deadline = monotonic() + seconds
    while not holds():
        if monotonic() > deadline:
            return False
        sleep(0.1)
    return True
