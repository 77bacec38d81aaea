"""The predict application with real packages, for tests of what goes in and out."""

import logging
from pathlib import Path

from fastapi import FastAPI

from functions.predict.bootstrap import NoContainer, application
from shared.adapters.function_backend import FunctionBackend, Runnable
from shared.adapters.onnx.package import OnnxPackage
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Backend
from tests.fakes import InMemoryModels
from tests.functions.support import open_door, predict_settings, published

ROUTE = "/v1/models/{model}/predict"


class Folders:
    """Loaded packages by model and version."""

    def __init__(self, *packages: OnnxPackage) -> None:
        self._packages = {(package.manifest.name, package.manifest.version): package for package in packages}

    def get(self, version: ModelVersion) -> Runnable:
        return self._packages[version.model, version.version]


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
    backends: dict[Placement, Backend] = {
        Placement.FUNCTION: FunctionBackend(Folders(*packages)),
        Placement.CONTAINER: NoContainer(),
    }
    values = predict_settings(**settings)
    return application(values, InMemoryModels(*versions), backends, {"models": lambda: None}, log, door=open_door())
