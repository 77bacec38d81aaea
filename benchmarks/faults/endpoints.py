"""The endpoints that faults are injected into, and the healthy one beside them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx

from benchmarks.faults.questions import PACKAGE
from benchmarks.faults.stack import Running
from infra.packages import publisher

HEALTHY: Final = "tumor"
CHANGING: Final = "tumor-changing"
FAULTY: Final[Mapping[str, str]] = {"tumor-http": "http", "tumor-grpc": "grpc", "tumor-sagemaker": "sagemaker"}
"""Endpoints by the faulty server that they call; each has another fallback."""
REMOTE: Final = "remote"
UNKNOWN: Final = (0.5, 0.5)
"""Static answers; no right one is like that."""

TENANT: Final = "neighbour"
_PLAN = {"per_second": 500, "burst": 1000}


@dataclass(frozen=True, slots=True)
class Terms:
    """What is set for the faulty endpoints.

    Their models usually take `usual_s`; requests with a deadline of their own ask for `deadline_ms`.
    """

    usual_s: float = 0.08
    timeout_ms: int = 800
    deadline_ms: int = 500
    reserve_ms: int = 200
    window_s: float = 10.0
    min_calls: int = 3
    failure_rate: float = 0.3
    open_s: float = 1.0

    @property
    def longest_open_s(self) -> float:
        """How long a circuit that opens again and again stays open; after that one call may try the backend."""
        return 8 * self.open_s


QUICK: Final = Terms(min_calls=2, open_s=0.5)


class Administrator:
    """The admin API, and publishing."""

    def __init__(self, stack: Running) -> None:
        self._stack = stack
        headers = {"Authorization": f"Bearer {stack.local.admin_key}"}
        self._client = httpx.Client(base_url=stack.local.api_url, headers=headers, timeout=40)

    def prepare(self, terms: Terms) -> dict[str, str]:
        """Publish, configure, and make a second tenant: keys by tenant."""
        self._publish([*FAULTY, CHANGING])
        for endpoint, server in FAULTY.items():
            self.set(endpoint, _configuration(self._backend(server), _FALLBACKS[server], terms))
        self.move("before")
        self._client.put(f"/v1/admin/plans/{TENANT}", json={"key": _PLAN, "tenant": _PLAN}).raise_for_status()
        tenant = self._client.post("/v1/admin/tenants", json={"name": TENANT, "plan": TENANT})
        tenant.raise_for_status()
        key = self._client.post("/v1/admin/keys", json={"tenant": TENANT, "scopes": ["predict"]})
        key.raise_for_status()
        return {"demo": self._stack.local.api_key, TENANT: str(key.json()["api_key"])}

    def move(self, variant: str) -> None:
        """Give one of the variants of the changing endpoint all of its traffic."""
        names = ("before", "after")
        variants = [{"name": name, "backend": "function", "weight": 100 * (name == variant)} for name in names]
        self.set(CHANGING, {"variants": variants})

    def set(self, endpoint: str, configuration: Mapping[str, Any]) -> None:
        """Replace a configuration, whatever it is now."""
        path = f"/v1/admin/endpoints/{endpoint}"
        tag = self._client.get(path).raise_for_status().headers["etag"]
        self._client.put(path, json=dict(configuration), headers={"If-Match": tag}).raise_for_status()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _backend(self, server: str) -> dict[str, Any]:
        local, address = self._stack.local, self._stack.addresses[server]
        match server:
            case "http":
                return {"kind": "open-inference-http", "options": {"url": address}}
            case "grpc":
                return {"kind": "open-inference-grpc", "options": {"target": address}}
        return {"kind": "sagemaker", "options": {"endpoint": local.outputs["EndpointName"]}}

    def _publish(self, names: list[str]) -> None:
        """Copies of the example, which the container serves as well as the function."""
        local = self._stack.local
        publish = publisher(local.aws_endpoint_url, local.outputs["ModelsTableName"], local.outputs["ModelBucketName"])
        with TemporaryDirectory() as folder:
            for name in names:
                package = Path(shutil.copytree(PACKAGE, Path(folder, name)))
                manifest = json.loads((package / "manifest.json").read_text())
                manifest.update(name=name, placement="container")
                (package / "manifest.json").write_text(json.dumps(manifest))
                publish(package)


_STATIC = {"kind": "static", "outputs": {"label": "unknown", "probabilities": list(UNKNOWN)}}
_FALLBACKS: Mapping[str, dict[str, Any]] = {
    "http": {
        "fallback": [{"kind": "variant", "variant": "spare"}],
        # One call at a time for those without a high priority, whatever many clients ask for.
        "limits": {"concurrency": 2},
    },
    "grpc": {"fallback": [{"kind": "cached", "max_age_s": 3600}, _STATIC], "cache": {"ttl_s": 1}},
    "sagemaker": {"fallback": [_STATIC]},
}


def _configuration(backend: Mapping[str, Any], fallbacks: Mapping[str, Any], terms: Terms) -> dict[str, Any]:
    return {
        "variants": [
            {"name": "main", "backend": REMOTE},
            {"name": "spare", "backend": "function", "weight": 0},
        ],
        "backends": {REMOTE: dict(backend)},
        "timeout_ms": terms.timeout_ms,
        "fallback_reserve_ms": terms.reserve_ms,
        "breaker": {
            "window_s": terms.window_s,
            "min_calls": terms.min_calls,
            "failure_rate": terms.failure_rate,
            "open_s": terms.open_s,
            "counts_from_ms": (terms.deadline_ms - terms.reserve_ms) // 2,
        },
        **fallbacks,
    }
