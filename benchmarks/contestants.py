"""The servers that are compared, each as its documentation says it serves best on two cores."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.generator import OUT
from benchmarks.models import REPOSITORY, path_of
from benchmarks.rivals.servers import rivals
from benchmarks.servers import Door, Server
from benchmarks.workloads import Workload

_INFER = "/v2/models/{model}/infer"


def _ours(name: str, folder: Path) -> Server:
    def command(ports: Mapping[str, int], workload: Workload) -> list[str]:
        del ports, workload
        return [sys.executable, "-m", "gpu_service", "serve"]

    def environment(ports: Mapping[str, int], workload: Workload) -> Mapping[str, str]:
        del workload  # it serves all of them
        return {
            "SLUICE_MODEL_DIR": str(folder),
            "SLUICE_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(ports["http"]),
            "SLUICE_GRPC_PORT": str(ports["grpc"]),
        }

    return Server(
        name,
        {"json": Door("json", _INFER), "binary": Door("binary", _INFER), "grpc": Door("grpc", "{model}", "grpc")},
        command,
        environment,
        ports=("http", "grpc"),
    )


_TINY_FOLDER = OUT / "tiny"
TINY_MODELS = ("tree", "mlp")


def tiny_folder() -> Path:
    """A repository of the small models only."""
    for name in TINY_MODELS:
        link = _TINY_FOLDER / name / "1" / "model.onnx"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(path_of(name), link)
    return _TINY_FOLDER


OURS = _ours("ours", REPOSITORY)
TINY = _ours("ours, tiny models", _TINY_FOLDER)
ALL: dict[str, Server] = {OURS.name: OURS, **rivals()}
