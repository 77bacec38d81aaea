"""The composition root of the container."""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from gpu_service.dataplane import DataPlane
from gpu_service.http import create_app
from gpu_service.loading import ModelLoader
from gpu_service.repository import ModelKey, ModelRepository
from gpu_service.settings import Settings
from gpu_service.sources.folder import FolderSource
from gpu_service.sources.source import ModelSource
from gpu_service.workers import WorkerPool
from shared.adapters.onnx.cpus import available_cpus
from shared.adapters.onnx.package import OnnxPackage
from shared.codecs.json_documents import JsonLimits
from shared.domain.errors import InvalidPackage
from shared.domain.settings import SettingsError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Container:
    """What makes up the running container."""

    app: Starlette
    loader: ModelLoader
    pool: WorkerPool


def build(settings: Settings) -> Container:
    """Join the parts; nothing is loaded or listened on yet. SettingsError if the cache cannot be used."""
    repository = ModelRepository()
    pool = WorkerPool(settings.workers, settings.queue_size)
    limits = JsonLimits(settings.max_body_bytes, settings.max_json_depth, settings.max_json_values)
    threads = settings.threads or available_cpus()
    providers = tuple(settings.providers.split(","))

    def load(folder: Path, key: ModelKey) -> OnnxPackage:
        package = OnnxPackage.load(folder, threads=threads, providers=providers, name=key.name, version=key.version)
        manifest = package.manifest
        if (manifest.name, manifest.version) != (key.name, key.version):
            raise InvalidPackage(
                f"The manifest is that of {manifest.name} version {manifest.version}, and lies in another's folder."
            )
        if not package.warm_up():
            _log.warning("%s version %s could not be warmed up: it refuses zeros", key.name, key.version)
        return package

    loader = ModelLoader(_source(settings), repository, load, settings.poll_seconds)
    return Container(create_app(DataPlane(repository, pool), limits), loader, pool)


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
    from gpu_service.sources.s3 import S3Source
    from shared.adapters.aws import client

    cache = settings.cache_dir or _own_cache()
    s3 = client("s3", connect_timeout=3, read_timeout=30)
    return S3Source(s3, settings.model_uri, cache, settings.max_package_bytes)
