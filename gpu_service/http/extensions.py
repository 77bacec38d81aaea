"""Extensions of the Open Inference Protocol that clients ask about and that cannot be used here.

Shared memory: a caller in another container has none with this one, so nothing can be registered. Traces and logs are
set by the environment, so their settings can be read only.
Sources: Triton Inference Server, "Shared-Memory Extension", "Trace Extension", "Logging Extension".
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from gpu_service.http.documents import answer_json, answering, body_object
from gpu_service.http.exchange import Exchange
from gpu_service.http.responses import JSON
from gpu_service.http.router import Handler, Router
from gpu_service.inference import describe
from gpu_service.models.repository import ModelRepository
from gpu_service.problems import Report
from shared.domain.errors import InvalidRequest, ModelNotFound, NotFound

_LONGEST_NAME = 256
_KINDS = {"system": "System", "cuda": "CUDA"}


def _no_regions(exchange: Exchange) -> None:
    answer_json(exchange, HTTPStatus.OK, [])


def _nothing_to_do(exchange: Exchange) -> None:
    exchange.answer(HTTPStatus.OK, b"", JSON)


def _no_such_region(exchange: Exchange) -> None:
    region = exchange.head.params["region"][:_LONGEST_NAME]
    raise NotFound(f"No shared-memory region named {region!r} is registered.")


def _refuse_region(kind: str) -> Callable[[Exchange], None]:
    def refuse(_exchange: Exchange) -> None:
        raise InvalidRequest(f"{kind} shared memory cannot be used here; send tensors as binary data instead.")

    return refuse


def _settings(read: Callable[[], dict[str, Any]], what: str) -> Callable[[Exchange], None]:
    """Answers with the settings; a document that would change one is refused."""

    def settings(exchange: Exchange) -> None:
        present = read()
        asked = body_object(exchange) if exchange.head.method == "POST" else {}
        for name, value in asked.items():
            if value is not None and value not in (present.get(name), *_first(present.get(name))):
                raise InvalidRequest(
                    f"{what} cannot be changed while the container runs ({name[:_LONGEST_NAME]}): "
                    "set them in its environment."
                )
        answer_json(exchange, HTTPStatus.OK, present)

    return settings


def _first(value: Any) -> list[Any]:
    """A list of one may be written as its only member."""
    return value if isinstance(value, list) and len(value) == 1 else []


def add_routes(router: Router, repository: ModelRepository, report: Report, *, traced: bool) -> None:
    """The routes of these extensions."""

    def add(method: str, path: str, work: Callable[[Exchange], None]) -> None:
        handler: Handler = answering(work, report)
        router.add(method, path, handler)

    for path, kind in _KINDS.items():
        base = f"/v2/{path}sharedmemory"
        add("GET", f"{base}/status", _no_regions)
        add("GET", f"{base}/region/{{region}}/status", _no_such_region)
        add("POST", f"{base}/region/{{region}}/register", _refuse_region(kind))
        add("POST", f"{base}/region/{{region}}/unregister", _nothing_to_do)
        add("POST", f"{base}/unregister", _nothing_to_do)

    traces = _settings(lambda: describe.trace_settings(traced=traced), "The settings of traces")

    def traces_of_model(exchange: Exchange) -> None:
        name = exchange.head.params["model"]
        if not repository.entries(name):
            raise ModelNotFound(f"There is no model named {name[:_LONGEST_NAME]!r}.")
        traces(exchange)

    logs = _settings(describe.log_settings, "The settings of the log")
    for method in ("GET", "POST"):
        add(method, "/v2/trace/setting", traces)
        add(method, "/v2/models/{model}/trace/setting", traces_of_model)
        add(method, "/v2/logging", logs)
