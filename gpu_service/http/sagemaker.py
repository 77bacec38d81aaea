"""SageMaker's doors: health, predictions, what batch transform asks, and the multi-model contract.

Sources: Amazon SageMaker Developer Guide, "Use Your Own Inference Code with Hosting Services", "… with Batch
Transform", and "Build Your Own Container for SageMaker Multi-Model Endpoints".
"""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from time import monotonic

from gpu_service.http.documents import answer_json, answering, answering_later, body_object, text_field
from gpu_service.http.exchange import Exchange
from gpu_service.http.head import Head
from gpu_service.http.prediction import Negotiated, PredictionDoor
from gpu_service.http.router import Handler, Router
from gpu_service.inference.calls import call_of
from gpu_service.models.multi_model import MultiModel
from gpu_service.models.repository import Entry, ModelRepository
from gpu_service.problems import problem_report
from gpu_service.scheduling.executor import Executor
from gpu_service.telemetry.watchdog import stuck
from shared.codecs.content.formats import answer_format, request_format
from shared.domain.errors import InvalidRequest, ModelNotFound

_MIB = 1024 * 1024
# SageMaker's bound for batch transform.
_MAX_TRANSFORM_MIB = 100
_LONGEST_NAME = 256


def negotiate(head: Head) -> Negotiated:
    """What the headers of a call to `/invocations` say."""
    call = call_of(head.headers, head.params.get("model"))
    request = request_format(head.headers.get("content-type", ""), head.headers)
    return Negotiated(head, call, request, answer_format(head.headers.get("accept", ""), request))


class Health:
    """`/ping`: 200 once every model that was given at the start is served and warm, while nothing is stuck."""

    def __init__(
        self, repository: ModelRepository, executor: Executor, stuck_seconds: float, draining: Callable[[], bool]
    ) -> None:
        self._repository = repository
        self._executor = executor
        self._stuck_seconds = stuck_seconds
        self._draining = draining

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self._trouble()

    def _trouble(self) -> str:
        if self._draining():
            return "The container is stopping."
        for run in stuck(self._executor.running(), monotonic(), self._stuck_seconds):
            return f"A run of {run.model.key.name} has taken more than {self._stuck_seconds:g} seconds."
        return self._repository.readiness().reason

    def __call__(self, exchange: Exchange) -> None:
        """Answer with what is served and what is wrong."""
        readiness = self._repository.readiness()
        trouble = self._trouble()
        document = {
            "status": "ready" if not trouble else "failed" if readiness.failed else "loading",
            "reason": trouble,
            "models": [{"name": key.name, "version": key.version} for key in readiness.models],
            "failed": dict(readiness.failed),
        }
        answer_json(exchange, HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK, document)


class MultiModelDoor:
    """`/models…`: SageMaker loads, lists and unloads the models of a multi-model endpoint.

    Of another endpoint (`models` None) the models can be listed only: what is served there is what it was given.
    """

    def __init__(self, models: MultiModel | None, repository: ModelRepository) -> None:
        self._models = models
        self._repository = repository

    async def load(self, exchange: Exchange) -> None:
        """200 once the model is served; 409 if it is already, 507 if there is no room for it."""
        document = body_object(exchange)
        name = text_field(document, "model_name")
        await self._own().load_url(name, text_field(document, "url"))
        answer_json(exchange, HTTPStatus.OK, {"modelName": name})

    def index(self, exchange: Exchange) -> None:
        """All models; the contract's pages are not needed for what fits into memory."""
        answer_json(exchange, HTTPStatus.OK, {"models": self._all()})

    def describe(self, exchange: Exchange) -> None:
        """One model; 404 if it is not loaded."""
        name = exchange.head.params["model"]
        for model in self._all():
            if model["modelName"] == name:
                answer_json(exchange, HTTPStatus.OK, model)
                return
        raise ModelNotFound(f"No model named {name[:_LONGEST_NAME]!r} is loaded.")

    async def unload(self, exchange: Exchange) -> None:
        """200 once its memory is given back; 404 if it is not loaded."""
        name = exchange.head.params["model"]
        await self._own().unload(name)
        answer_json(exchange, HTTPStatus.OK, {"modelName": name})

    def _own(self) -> MultiModel:
        if self._models is None:
            raise InvalidRequest("This is no multi-model endpoint: SAGEMAKER_MULTI_MODEL=true makes it one.")
        return self._models

    def _all(self) -> list[dict[str, str]]:
        if self._models is not None:
            return self._models.models()
        served = [entry for entry in self._repository.entries() if entry.offered]
        return [
            {"modelName": name, "modelUrl": str(Path(places[-1]).parent if len(places) > 1 else places[-1])}
            for name, places in _places(served).items()
        ]


def _places(entries: list[Entry]) -> dict[str, list[str]]:
    """Where the versions of each model come from."""
    places: dict[str, list[str]] = {}
    for entry in entries:
        places.setdefault(entry.key.name, []).append(entry.found.place)
    return places


def execution_parameters(callers: int, max_body_bytes: int) -> Handler:
    """What batch transform should send: enough at once to keep the cores busy, of a size that is read here."""
    document = {
        "MaxConcurrentTransforms": 2 * callers,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": max(1, min(max_body_bytes // _MIB, _MAX_TRANSFORM_MIB)),
    }
    return lambda exchange: answer_json(exchange, HTTPStatus.OK, document)


def add_routes(
    router: Router,
    health: Health,
    predict: PredictionDoor,
    models: MultiModel | None,
    repository: ModelRepository,
    parameters: Handler,
) -> None:
    """Every route that SageMaker calls."""
    door = MultiModelDoor(models, repository)
    router.add("GET", "/ping", health)
    router.add("POST", "/invocations", predict)
    router.add("GET", "/execution-parameters", parameters)
    router.add("GET", "/models", answering(door.index, problem_report))
    router.add("POST", "/models", answering_later(door.load, problem_report))
    router.add("GET", "/models/{model}", answering(door.describe, problem_report))
    router.add("DELETE", "/models/{model}", answering_later(door.unload, problem_report))
    router.add("POST", "/models/{model}/invoke", predict)
