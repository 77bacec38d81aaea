"""The composition root of the container."""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_service.http import open_inference, operations, sagemaker
from gpu_service.http.prediction import PredictionDoor
from gpu_service.http.router import Router
from gpu_service.http.server import HttpLimits, HttpServer, Timeouts
from gpu_service.http.sessions import SessionDoor
from gpu_service.inference.dataplane import DataPlane
from gpu_service.inference.sessions import SessionStore
from gpu_service.model_factory import ModelFactory
from gpu_service.models.lifecycle import Lifecycle
from gpu_service.models.loading import PackageLoader
from gpu_service.models.manager import ModelManager
from gpu_service.models.memory import MemoryBudget, memory_limit
from gpu_service.models.multi_model import MultiModel, fetch_folder
from gpu_service.models.policy import parse_policies
from gpu_service.models.repository import ModelRepository
from gpu_service.models.sources.folder import FolderSource
from gpu_service.models.sources.source import ModelSource
from gpu_service.models.sync import SourceSync
from gpu_service.scheduling.executor import Executor
from gpu_service.settings import Settings
from gpu_service.telemetry.metrics import Metrics
from gpu_service.telemetry.stats import ServerStats
from gpu_service.telemetry.tracing import tracer_from
from gpu_service.telemetry.watchdog import LoopWatch
from shared.adapters.onnx.cpus import available_cpus
from shared.codecs.json_documents import JsonLimits
from shared.domain.settings import SettingsError

if TYPE_CHECKING:
    from gpu_service.grpc.server import GrpcServer

# Batches that one GPU is given at once: one is copied while another runs.
_GPU_CALLERS = 2
_TRACES_FLUSH_S = 2.0


class Container:
    """All parts, joined; made on the event loop that it serves on. SettingsError if the settings do not go together."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._cpus = settings.threads or available_cpus()
        self._limits = JsonLimits(settings.max_body_bytes, settings.max_json_depth, settings.max_json_values)
        self._stats = ServerStats()
        self._tracer = tracer_from(environ)
        gpu = settings.providers != "CPUExecutionProvider"
        self._executor = Executor(loop, cpus=self._cpus, gpu_callers=_GPU_CALLERS if gpu else 0)
        self._repository = ModelRepository()
        self._budget = MemoryBudget(memory_limit(settings.memory_budget_bytes))
        self._sessions = SessionStore()
        self._multi_model, self._manager = self._models()
        self._dataplane = DataPlane(self._repository, self._manager)
        self._router = Router()
        self._http = HttpServer(
            self._router,
            HttpLimits(settings.max_body_bytes, max_connections=settings.max_connections),
            self._stats,
            Timeouts(read_s=settings.read_seconds),
        )
        self._health = sagemaker.Health(
            self._repository, self._executor, settings.stuck_seconds, lambda: self._http.draining
        )
        self._add_routes()
        self._watch = LoopWatch(loop, self._stats)
        self._grpc: GrpcServer | None = None

    async def start(self) -> None:
        """Listen, and begin to load; OSError if a port is taken."""
        settings = self._settings
        await self._http.listen(settings.host, settings.port)
        if settings.grpc_port:
            from gpu_service.grpc.server import start_grpc

            self._grpc = await start_grpc(
                self._dataplane,
                self._manager,
                self._health,
                self._stats,
                host=settings.host,
                port=settings.grpc_port,
                max_message_bytes=settings.max_body_bytes,
                tracer=self._tracer,
                access_log=settings.access_log,
            )
        self._watch.start()
        self._manager.start()

    async def stop(self) -> None:
        """Answer what has been accepted, then end; within the settings' `drain_seconds`."""
        grace = float(self._settings.drain_seconds)
        doors = [self._http.stop(grace)]
        if self._grpc is not None:
            doors.append(self._grpc.stop(grace))
        await asyncio.gather(*doors)
        self._watch.stop()
        await self._manager.stop()
        self._executor.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.shutdown, _TRACES_FLUSH_S)

    def _models(self) -> tuple[MultiModel | None, ModelManager]:
        settings, repository = self._settings, self._repository
        try:
            policies = parse_policies(settings.version_policy)
        except ValueError as error:
            raise SettingsError(f"SLUICE_VERSION_POLICY: {error}") from None
        factory = ModelFactory(settings, self._executor, self._cpus)
        if settings.multi_model:
            loader = PackageLoader(fetch_folder, factory, named=False)
            lifecycle = Lifecycle(repository, loader, self._budget, gone=self._sessions.drop_model)
            models = MultiModel(repository, lifecycle, policies, settings.multi_model_dir)
            return models, ModelManager(repository, lifecycle, None)
        source = _source(settings)
        loader = PackageLoader(source.fetch, factory)
        lifecycle = Lifecycle(repository, loader, self._budget, gone=self._sessions.drop_model)
        sync = SourceSync(repository, lifecycle, source, policies, settings.poll_seconds)
        return None, ModelManager(repository, lifecycle, sync)

    def _add_routes(self) -> None:
        parts = (self._dataplane, self._limits, self._http.new_request_id)
        watched: dict[str, Any] = {"tracer": self._tracer, "access_log": self._settings.access_log}
        invocations = SessionDoor(self._sessions, *parts, negotiate=sagemaker.negotiate, **watched)
        v2_infer = PredictionDoor(
            *parts, negotiate=open_inference.negotiate, report=open_inference.error_report, **watched
        )
        sagemaker.add_routes(
            self._router,
            self._health,
            invocations,
            self._multi_model,
            self._repository,
            sagemaker.execution_parameters(self._cpus, self._settings.max_body_bytes),
        )
        open_inference.add_routes(
            self._router,
            self._health,
            v2_infer,
            self._manager,
            self._repository,
        )
        figures = operations.Reader(
            self._stats,
            self._repository,
            self._executor,
            self._budget,
            self._sessions,
            self._tracer,
            self._router,
            self._settings.stuck_seconds,
        )
        operations.add_routes(self._router, Metrics(figures))


def _own_cache() -> Path:
    """A folder that no other user of this machine may have prepared or can write to."""
    folder = Path(tempfile.gettempdir()) / f"sluice-container-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise SettingsError(f"{folder} belongs to somebody else: set SLUICE_CACHE_DIR")
    return folder


def _source(settings: Settings) -> ModelSource:
    if not settings.model_uri:
        return FolderSource(settings.model_dir)
    # Only this source needs AWS's client libraries.
    from gpu_service.models.sources.s3 import S3Source
    from shared.adapters.aws import client

    cache = settings.cache_dir or _own_cache()
    s3 = client("s3", connect_timeout=3, read_timeout=30)
    return S3Source(s3, settings.model_uri, cache, settings.max_package_bytes)
