"""The contract inside the function."""

from pathlib import Path

import pytest

from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend
from tests.adapters.backends.contract import BackendContract, write_models


class _Folder:
    """Packages of a folder, each loaded once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[tuple[str, int], OnnxPackage] = {}

    def get(self, version: ModelVersion) -> OnnxPackage:
        key = version.model, version.version
        if key not in self._loaded:
            self._loaded[key] = OnnxPackage.load(self._folder / version.model / str(version.version), threads=1)
        return self._loaded[key]

    def ready(self, version: ModelVersion) -> bool:
        return (version.model, version.version) in self._loaded


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return FunctionBackend(_Folder(write_models(tmp_path_factory.mktemp("models"))))


class TestFunction(BackendContract):
    """Nothing differs."""
