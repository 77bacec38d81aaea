"""The predict application with real packages, for tests of what goes in and out."""

import logging
from pathlib import Path

from fastapi import FastAPI

from functions.predict.bootstrap import application
from shared.adapters.function_backend import FunctionBackend, Runnable
from shared.adapters.onnx.package import OnnxPackage
from shared.domain.endpoint.config import FUNCTION
from shared.domain.model import ModelVersion
from tests.fakes import InMemoryModels
from tests.functions.parts import parts
from tests.functions.support import predict_settings, published

ROUTE = "/v1/models/{model}/predict"


class Folders:
    """Loaded packages by model and version."""

    def __init__(self, *packages: OnnxPackage) -> None:
        self._packages = {(package.manifest.name, package.manifest.version): package for package in packages}

    def get(self, version: ModelVersion) -> Runnable:
        return self._packages[version.model, version.version]

    def ready(self, version: ModelVersion) -> bool:
        return (version.model, version.version) in self._packages


def serving(log: logging.Logger, *folders: Path, **settings: int) -> FastAPI:
    """The application with the packages of these folders."""
    packages = [OnnxPackage.load(folder, threads=1) for folder in folders]
    versions = [
        published(
            package.manifest.name,
            package.manifest.version,
            signature=package.signature,
            metadata={"example": package.manifest.example},
        )
        for package in packages
    ]
    backends = {FUNCTION: FunctionBackend(Folders(*packages))}
    return application(predict_settings(**settings), parts(InMemoryModels(*versions), backends), log)
