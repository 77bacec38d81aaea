"""All methods but inference: health, metadata, statistics, the model repository, and what is not offered here.

Sources: Open Inference Protocol, "GRPC"; Triton Inference Server, "Model Repository Extension", "Statistics Extension",
"Shared-Memory Extension", "Trace Extension", "Logging Extension"; gRPC, "GRPC Health Checking Protocol".
"""

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from gpu_service.grpc.methods import SERVICE, Method
from gpu_service.grpc.status import RpcError, Status, failure
from gpu_service.inference import describe
from gpu_service.logs import fields
from gpu_service.protocol import health_pb2
from shared.codecs.protobuf import inference_pb2
from shared.domain.errors import InvalidRequest, NotFound, SluiceError, VersionNotFound

if TYPE_CHECKING:
    from gpu_service.grpc.predictions import InferDoor
    from gpu_service.grpc.stream import Stream
    from gpu_service.inference.dataplane import DataPlane
    from gpu_service.models.manager import ModelManager

_log = logging.getLogger(__name__)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_HEALTH_SERVICE = "grpc.health.v1.Health"

Spawn = Callable[[Coroutine[Any, Any, None]], None]
Request = TypeVar("Request", bound=Message)
Handler = Callable[[Request], Message | Awaitable[Message]]


class Health(Protocol):
    """Says whether requests should be sent here."""

    @property
    def ready(self) -> bool:
        """Whether all that was given at the start is served, and nothing is stuck."""


class Control:
    """The handlers; each takes the request's message and gives the answer's, at once or later."""

    def __init__(self, dataplane: "DataPlane", manager: "ModelManager", health: Health, *, traced: bool) -> None:
        self._repository = dataplane.repository
        self._manager = manager
        self._health = health
        self._traced = traced

    def server_live(self, _: inference_pb2.ServerLiveRequest) -> Message:
        """True as long as the process answers."""
        return inference_pb2.ServerLiveResponse(live=True)

    def server_ready(self, _: inference_pb2.ServerReadyRequest) -> Message:
        """Whether every model that was given at the start is served."""
        return inference_pb2.ServerReadyResponse(ready=self._health.ready)

    def model_ready(self, request: inference_pb2.ModelReadyRequest) -> Message:
        """Whether the model would answer."""
        ready = self._repository.ready(request.name, _version(request.version))
        return inference_pb2.ModelReadyResponse(ready=ready)

    def server_metadata(self, _: inference_pb2.ServerMetadataRequest) -> Message:
        """Name, version and extensions."""
        return inference_pb2.ServerMetadataResponse(**describe.server_metadata())

    async def model_metadata(self, request: inference_pb2.ModelMetadataRequest) -> Message:
        """The signature of a model."""
        model = await self._manager.ensure(request.name, _version(request.version))
        return inference_pb2.ModelMetadataResponse(**describe.model_metadata(model, self._repository))

    async def model_config(self, request: inference_pb2.ModelConfigRequest) -> Message:
        """How a model is run."""
        model = await self._manager.ensure(request.name, _version(request.version))
        return inference_pb2.ModelConfigResponse(config=describe.model_config(model))

    def model_statistics(self, request: inference_pb2.ModelStatisticsRequest) -> Message:
        """The counters of one model, or of all that are served."""
        name, version = request.name or None, _version(request.version)
        return inference_pb2.ModelStatisticsResponse(**describe.statistics(self._repository, name, version))

    def repository_index(self, request: inference_pb2.RepositoryIndexRequest) -> Message:
        """Every version that is known, with its state."""
        _only_repository(request.repository_name)
        models: Any = self._manager.index(ready=request.ready)
        return inference_pb2.RepositoryIndexResponse(models=models)

    async def load(self, request: inference_pb2.RepositoryModelLoadRequest) -> Message:
        """Look for the model in its source again and serve what is there."""
        _only_repository(request.repository_name)
        await self._manager.load(request.model_name, _parameters(request.parameters))
        return inference_pb2.RepositoryModelLoadResponse()

    async def unload(self, request: inference_pb2.RepositoryModelUnloadRequest) -> Message:
        """Serve the model no more."""
        _only_repository(request.repository_name)
        dependents = _parameters(request.parameters).get("unload_dependents") is True
        await self._manager.unload(request.model_name, unload_dependents=dependents)
        return inference_pb2.RepositoryModelUnloadResponse()

    def system_status(self, request: inference_pb2.SystemSharedMemoryStatusRequest) -> Message:
        """There are no regions."""
        _no_region(request.name)
        return inference_pb2.SystemSharedMemoryStatusResponse()

    def cuda_status(self, request: inference_pb2.CudaSharedMemoryStatusRequest) -> Message:
        """There are no regions."""
        _no_region(request.name)
        return inference_pb2.CudaSharedMemoryStatusResponse()

    def register(self, _: Message) -> Message:
        """A client's memory is not ours to map."""
        raise RpcError(Status.UNIMPLEMENTED, "Shared memory is not offered: send tensors in the message.")

    def system_unregister(self, _: inference_pb2.SystemSharedMemoryUnregisterRequest) -> Message:
        """Nothing is registered."""
        return inference_pb2.SystemSharedMemoryUnregisterResponse()

    def cuda_unregister(self, _: inference_pb2.CudaSharedMemoryUnregisterRequest) -> Message:
        """Nothing is registered."""
        return inference_pb2.CudaSharedMemoryUnregisterResponse()

    def trace_setting(self, request: inference_pb2.TraceSettingRequest) -> Message:
        """The settings of this process."""
        current = describe.trace_settings(traced=self._traced)
        for name, value in request.settings.items():
            # No value asks for the default, which is what is in force.
            if name not in current or (value.value and list(value.value) != current[name]):
                raise _fixed(name, "OTEL_…", current)
        response = inference_pb2.TraceSettingResponse()
        for name, values in current.items():
            response.settings[name].value.extend(values)
        return response

    def log_settings(self, request: inference_pb2.LogSettingsRequest) -> Message:
        """The settings of this process."""
        current = describe.log_settings()
        for name, value in request.settings.items():
            choice = value.WhichOneof("parameter_choice")
            if name not in current or choice is None or getattr(value, choice) != current[name]:
                raise _fixed(name, "SLUICE_LOG_LEVEL", current)
        response = inference_pb2.LogSettingsResponse()
        for name, setting in current.items():
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(setting)]
            setattr(response.settings[name], kind, setting)
        return response

    def check(self, request: health_pb2.HealthCheckRequest) -> Message:
        """The health check of gRPC itself."""
        if request.service not in ("", SERVICE):
            raise NotFound(f"There is no service {request.service[:100]!r}.")
        kind = health_pb2.HealthCheckResponse
        return kind(status=kind.SERVING if self._health.ready else kind.NOT_SERVING)


def methods_of(
    door: "InferDoor",
    dataplane: "DataPlane",
    manager: "ModelManager",
    health: Health,
    spawn: Spawn,
    *,
    traced: bool,
) -> Mapping[str, Method]:
    """Every method by its path."""
    control = Control(dataplane, manager, health, traced=traced)
    pb = inference_pb2
    unary: dict[str, tuple[type[Message], Handler[Any]]] = {
        "ServerLive": (pb.ServerLiveRequest, control.server_live),
        "ServerReady": (pb.ServerReadyRequest, control.server_ready),
        "ModelReady": (pb.ModelReadyRequest, control.model_ready),
        "ServerMetadata": (pb.ServerMetadataRequest, control.server_metadata),
        "ModelMetadata": (pb.ModelMetadataRequest, control.model_metadata),
        "ModelConfig": (pb.ModelConfigRequest, control.model_config),
        "ModelStatistics": (pb.ModelStatisticsRequest, control.model_statistics),
        "RepositoryIndex": (pb.RepositoryIndexRequest, control.repository_index),
        "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, control.load),
        "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, control.unload),
        "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, control.system_status),
        "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, control.register),
        "SystemSharedMemoryUnregister": (pb.SystemSharedMemoryUnregisterRequest, control.system_unregister),
        "CudaSharedMemoryStatus": (pb.CudaSharedMemoryStatusRequest, control.cuda_status),
        "CudaSharedMemoryRegister": (pb.CudaSharedMemoryRegisterRequest, control.register),
        "CudaSharedMemoryUnregister": (pb.CudaSharedMemoryUnregisterRequest, control.cuda_unregister),
        "TraceSetting": (pb.TraceSettingRequest, control.trace_setting),
        "LogSettings": (pb.LogSettingsRequest, control.log_settings),
    }
    methods = [_unary(f"{SERVICE}/{name}", kind, handler, spawn) for name, (kind, handler) in unary.items()]
    methods += [
        _unary(f"{_HEALTH_SERVICE}/Check", health_pb2.HealthCheckRequest, control.check, spawn),
        Method(f"{SERVICE}/ModelInfer", unary=door.infer),
        Method(f"{SERVICE}/ModelStreamInfer", converse=door.converse),
    ]
    return {f"/{method.name}": method for method in methods}


def _unary(name: str, kind: type[Request], handler: Handler[Request], spawn: Spawn) -> Method:
    def serve(stream: "Stream", data: bytes) -> None:
        try:
            answer = handler(kind.FromString(data))
        except Exception as error:  # noqa: BLE001 - told apart and logged by `_failed`
            stream.fail(_failed(error, name))
            return
        if inspect.isawaitable(answer):
            stream.begun()
            spawn(later(stream, answer))
        else:
            stream.reply(answer.SerializeToString())

    async def later(stream: "Stream", answer: Awaitable[Message]) -> None:
        left = stream.head.call.deadline_ms
        try:
            async with asyncio.timeout(None if left is None else max(left, 0.0) / 1000):
                message = await answer
        except Exception as error:  # noqa: BLE001 - told apart and logged by `_failed`
            stream.finished()
            stream.fail(_failed(error, name))
        else:
            stream.finished()
            stream.reply(message.SerializeToString())

    return Method(name, unary=serve)


def _failed(error: Exception, method: str) -> RpcError:
    if isinstance(error, RpcError):
        return error
    if isinstance(error, TimeoutError):
        return RpcError(Status.DEADLINE_EXCEEDED, "The deadline passed before there was an answer.")
    if isinstance(error, DecodeError):
        error = InvalidRequest(f"The message is not one of {method}.")
    if not isinstance(error, SluiceError):
        _log.error("unexpected error", extra=fields(method=method), exc_info=error)
        error = SluiceError("The container failed to answer.")
    return failure(error)


def _version(text: str) -> int | None:
    if not text:
        return None
    if not _VERSION.fullmatch(text):
        raise VersionNotFound(f"A version is a positive integer, not {text[:20]!r}.")
    return int(text)


def _only_repository(name: str) -> None:
    if name:
        raise NotFound(f"There is one repository, without a name, and none called {name[:100]!r}.")


def _parameters(parameters: Mapping[str, inference_pb2.ModelRepositoryParameter]) -> dict[str, Any]:
    return {
        name: getattr(parameter, choice)
        for name, parameter in parameters.items()
        if (choice := parameter.WhichOneof("parameter_choice"))
    }


def _no_region(name: str) -> None:
    if name:
        raise NotFound(f"No shared memory region {name[:100]!r} is registered.")


def _fixed(name: str, variable: str, known: Mapping[str, Any]) -> RpcError:
    if name not in known:
        return RpcError(Status.INVALID_ARGUMENT, f"There is no setting {name[:100]!r}; there are {', '.join(known)}.")
    detail = f"The setting {name} is fixed while the container runs; it follows the environment ({variable})."
    return RpcError(Status.FAILED_PRECONDITION, detail)
