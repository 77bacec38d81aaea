"""The faults, and what has to come of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from benchmarks.faults.endpoints import FAULTY, Terms

Expected = Literal["opens", "closed", "none", "moves"]
"""`opens`: the circuit opens and closes again. `closed`: what stands in is marked, and no circuit opens, for the
backend is not at fault. `none`: nothing is to be seen in the answers. `moves`: some see a change sooner than others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, wherever it can be injected.

    `servers` has what each faulty server does (see `tests.adapters.backends.faults`); one that is not named does what
    it usually does. `configuration` is what happens to reads of configurations.
    """

    name: str
    what: str
    expected: Expected
    servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configuration: str = ""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Those that call a server with this fault."""
        return tuple(endpoint for endpoint, server in FAULTY.items() if server in self.servers)

    def document(self, terms: Terms) -> dict[str, Any]:
        """What `Running.inject` takes."""
        return {**usual(terms), **self.servers, "configuration": self.configuration}


def usual(terms: Terms) -> dict[str, Any]:
    """No fault: models that take as long as they do."""
    return {server: {"kind": "slow", "seconds": terms.usual_s} for server in FAULTY.values()}


def catalogue(terms: Terms) -> list[Fault]:
    """All faults, in the order in which they are injected."""

    def everywhere(**fault: Any) -> dict[str, Mapping[str, Any]]:
        return dict.fromkeys(FAULTY.values(), fault)

    return [
        Fault(
            "slow",
            "answers take ten times as long",
            "opens",
            everywhere(kind="slow", seconds=10 * terms.usual_s),
        ),
        Fault("hanging", "calls are taken on and never answered", "opens", everywhere(kind="hang")),
        Fault("5xx", "500, gRPC `INTERNAL`, SageMaker `InternalFailure`", "opens", _SERVER_ERROR),
        Fault("4xx", "400, gRPC `INVALID_ARGUMENT`, SageMaker `ModelError` with 400", "closed", _CLIENT_ERROR),
        Fault("reset", "connections are reset after the request was read", "opens", everywhere(kind="reset")),
        Fault("garbage", "bytes that are none of the transport", "opens", everywhere(kind="garbage")),
        Fault("another's answer", "the answer to another request", "opens", everywhere(kind="id")),
        Fault("not ready", "SageMaker `ModelNotReadyException`, as while an endpoint is updated", "opens", _NOT_READY),
        Fault("configuration fails", "DynamoDB answers 500 to reads of configurations", "none", configuration="fail"),
        Fault("configuration hangs", "DynamoDB never answers such reads", "none", configuration="hang"),
        Fault(
            "stale half",
            "every other environment reads configurations from before a change",
            "moves",
            configuration="stale",
        ),
    ]


def quick_catalogue(terms: Terms) -> list[Fault]:
    """The same in less time: each server has another fault at the same time."""
    by_name = {fault.name: fault for fault in catalogue(terms)}

    def together(**names: str) -> Fault:
        servers = {server: by_name[name].servers[server] for server, name in names.items()}
        return Fault(", ".join(names.values()), "each of them at another server", "opens", servers)

    return [
        together(http="slow", grpc="hanging", sagemaker="not ready"),
        together(http="5xx", grpc="reset", sagemaker="garbage"),
        together(http="another's answer", grpc="5xx", sagemaker="hanging"),
        *(fault for fault in by_name.values() if fault.expected != "opens"),
    ]


def _sagemaker(status: int, kind: str, **members: Any) -> dict[str, Any]:
    body = json.dumps({"Message": kind, **members})
    return {"kind": "status", "status": status, "body": body, "headers": {"x-amzn-errortype": kind}}


_SERVER_ERROR: Final[Mapping[str, Mapping[str, Any]]] = {
    "http": {"kind": "status", "status": 500, "body": '{"error": "it broke"}'},
    "grpc": {"kind": "status", "status": "INTERNAL", "body": "it broke"},
    "sagemaker": _sagemaker(500, "InternalFailure"),
}
_CLIENT_ERROR: Final[Mapping[str, Mapping[str, Any]]] = {
    "http": {"kind": "status", "status": 400, "body": '{"error": "no such thing"}'},
    "grpc": {"kind": "status", "status": "INVALID_ARGUMENT", "body": "no such thing"},
    "sagemaker": _sagemaker(424, "ModelError", OriginalStatusCode=400, OriginalMessage='{"error": "no such thing"}'),
}
_NOT_READY: Final[Mapping[str, Mapping[str, Any]]] = {"sagemaker": _sagemaker(429, "ModelNotReadyException")}
