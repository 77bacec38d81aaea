"""The Open Inference Protocol over REST, with Triton's model repository and statistics extensions.

Sources: Open Inference Protocol, "REST"; Triton Inference Server, "Model Repository Extension", "Statistics Extension",
"Binary Tensor Data Extension", "Model Configuration Extension", "Shared-Memory Extension", "Trace Extension", "Logging
Extension".
"""

import re
from http import HTTPStatus
from typing import Any

import orjson

from gpu_service.http import extensions
from gpu_service.http.documents import answer_json, answering, answering_later, body_object
from gpu_service.http.exchange import Exchange
from gpu_service.http.head import Head
from gpu_service.http.prediction import Negotiated, PredictionDoor
from gpu_service.http.responses import JSON
from gpu_service.http.router import Router
from gpu_service.http.sagemaker import Health
from gpu_service.inference import describe
from gpu_service.inference.calls import call_of
from gpu_service.models.manager import ModelManager
from gpu_service.models.repository import ModelRepository
from gpu_service.problems import Problem, problem_of
from shared.codecs.content.formats import answer_format, v2_format
from shared.domain.errors import SluiceError, VersionNotFound, WrongDtype

_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def error_report(error: SluiceError, request_id: str) -> tuple[Problem, str]:
    """An error as the protocol has it, `{"error": …}`, with the members of a problem document beside it."""
    problem = problem_of(error, request_id)
    document = {"error": error.detail, **orjson.loads(problem.body)}
    return problem._replace(body=orjson.dumps(document)), JSON


def negotiate(head: Head) -> Negotiated:
    """What the path and the headers of a call to `infer` say."""
    call = call_of(head.headers, head.params["model"], _version(head.params.get("version")))
    request = v2_format(head.headers.get("content-type", ""), head.headers)
    return Negotiated(head, call, request, answer_format(head.headers.get("accept", ""), request))


def _version(text: str | None) -> int | None:
    if not text:
        return None
    if not _VERSION.fullmatch(text):
        raise VersionNotFound(f"A version is a positive integer, not {text[:20]!r}.")
    return int(text)


class ProtocolDoor:
    """All routes but `infer`."""

    def __init__(self, health: Health, manager: ModelManager, repository: ModelRepository) -> None:
        self._health = health
        self._manager = manager
        self._repository = repository

    def server(self, exchange: Exchange) -> None:
        """Name, version and extensions of this server."""
        answer_json(exchange, HTTPStatus.OK, describe.server_metadata())

    def live(self, exchange: Exchange) -> None:
        """200 as long as the process answers."""
        answer_json(exchange, HTTPStatus.OK, {"live": True})

    def ready(self, exchange: Exchange) -> None:
        """200 once every model that was given at the start is served."""
        ready = self._health.ready
        answer_json(exchange, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {"ready": ready})

    def model_ready(self, exchange: Exchange) -> None:
        """200 if the model would answer."""
        name, version = self._target(exchange)
        ready = self._repository.ready(name, version)
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        answer_json(exchange, status, {"name": name, "ready": ready})

    async def metadata(self, exchange: Exchange) -> None:
        """The signature of a model."""
        name, version = self._target(exchange)
        model = await self._manager.ensure(name, version)
        answer_json(exchange, HTTPStatus.OK, describe.model_metadata(model, self._repository))

    async def config(self, exchange: Exchange) -> None:
        """How a model is run."""
        name, version = self._target(exchange)
        answer_json(exchange, HTTPStatus.OK, describe.model_config(await self._manager.ensure(name, version)))

    def statistics(self, exchange: Exchange) -> None:
        """The counters of one model, or of all that are served."""
        name, version = self._target(exchange) if "model" in exchange.head.params else (None, None)
        answer_json(exchange, HTTPStatus.OK, describe.statistics(self._repository, name, version))

    def index(self, exchange: Exchange) -> None:
        """Every version that is known, with its state."""
        document = body_object(exchange)
        answer_json(exchange, HTTPStatus.OK, self._manager.index(ready=document.get("ready") is True))

    async def load(self, exchange: Exchange) -> None:
        """Look for the model in its source again and serve what is there."""
        await self._manager.load(exchange.head.params["model"], _parameters(exchange))
        exchange.answer(HTTPStatus.OK, b"", JSON)

    async def unload(self, exchange: Exchange) -> None:
        """Serve the model no more."""
        dependents = _parameters(exchange).get("unload_dependents") is True
        await self._manager.unload(exchange.head.params["model"], unload_dependents=dependents)
        exchange.answer(HTTPStatus.OK, b"", JSON)

    @staticmethod
    def _target(exchange: Exchange) -> tuple[str, int | None]:
        params = exchange.head.params
        return params["model"], _version(params.get("version"))


def _parameters(exchange: Exchange) -> dict[str, Any]:
    parameters = body_object(exchange).get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise WrongDtype.at("/parameters", "must be an object")
    return parameters


def add_routes(
    router: Router, health: Health, predict: PredictionDoor, manager: ModelManager, repository: ModelRepository
) -> None:
    """Every route of the protocol."""
    door = ProtocolDoor(health, manager, repository)
    router.add("GET", "/v2", door.server)
    router.add("GET", "/v2/health/live", door.live)
    router.add("GET", "/v2/health/ready", door.ready)
    router.add("GET", "/v2/models/stats", answering(door.statistics, error_report))
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        router.add("GET", path, answering_later(door.metadata, error_report))
        router.add("GET", f"{path}/ready", answering(door.model_ready, error_report))
        router.add("GET", f"{path}/config", answering_later(door.config, error_report))
        router.add("GET", f"{path}/stats", answering(door.statistics, error_report))
        router.add("POST", f"{path}/infer", predict)
    router.add("POST", "/v2/repository/index", answering(door.index, error_report))
    router.add("POST", "/v2/repository/models/{model}/load", answering_later(door.load, error_report))
    router.add("POST", "/v2/repository/models/{model}/unload", answering_later(door.unload, error_report))
    router.report_below("/v2", error_report)
    extensions.add_routes(router, repository, error_report, traced=predict.traced)
