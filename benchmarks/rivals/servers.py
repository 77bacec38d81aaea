"""How each rival is started for one model: the best of what its documentation says, one worker a core."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial

import onnxruntime

from benchmarks.generator import CORES, OUT
from benchmarks.models import path_of
from benchmarks.rivals.environments import HERE, VENVS, binary, install
from benchmarks.servers import Door, Server
from benchmarks.workloads import Workload

Ports = Mapping[str, int]
_INFER = "/v2/models/{model}/infer"
_REPOSITORIES = OUT / "repositories"


def rivals() -> dict[str, Server]:
    """All of them by name."""
    http = ("http",)
    found = (
        _server(
            "baseline",
            {"json": Door("json", "/infer"), "json on the loop": Door("json", "/infer-on-loop")},
            _baseline,
            http,
        ),
        _server("litserve", {"json": Door("rows", "/predict")}, _litserve, http),
        _server("bentoml", {"json": Door("rows", "/infer")}, _bentoml, http),
        _server("mlserver", {"json": Door("json", _INFER)}, _mlserver, ("http", "grpc", "metrics")),
        _server("ray", {"json": Door("rows", "/")}, _ray, http, freezes=False),
        _server(
            "triton",
            {"json": Door("json", _INFER), "binary": Door("binary", _INFER), "grpc": Door("grpc", "{model}", "grpc")},
            _triton,
            ("http", "grpc", "metrics"),
        ),
    )
    return {server.name: server for server in found}


def _server(
    name: str,
    doors: Mapping[str, Door],
    command: Callable[[Ports, Workload], list[str]],
    ports: tuple[str, ...],
    *,
    freezes: bool = True,
) -> Server:
    def environment(ports: Ports, workload: Workload) -> Mapping[str, str]:
        paths = f"{HERE / 'common'}:{HERE / name}"
        own = {"MODEL": str(path_of(workload.model)), "WORKERS": str(CORES), "PORT": str(ports["http"])}
        # Its own programs first: some of these start others by name.
        return {
            **own,
            "PYTHONPATH": paths,
            "PATH": f"{VENVS / name / 'bin'}:{os.environ['PATH']}",
            **_EXTRA.get(name, {}),
        }

    return Server(name, doors, command, environment, ports, freezes=freezes, install=partial(install, name))


_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_TRITON = VENVS / "triton" / "lib" / f"python{_PYTHON}" / "site-packages" / "pytriton" / "tritonserver"
# Ray's HAProxy mode is left out: it listens on every interface of the machine.
_EXTRA = {
    "ray": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    "triton": {"LD_LIBRARY_PATH": str(_TRITON / "external_libs")},
}


def _baseline(ports: Ports, workload: Workload) -> list[str]:
    del workload
    options = ["--workers", "2", "--no-access-log", "--log-level", "warning", "--port", str(ports["http"])]
    return [binary("baseline", "uvicorn"), "app:app", "--app-dir", str(HERE / "baseline"), *options]


def _litserve(ports: Ports, workload: Workload) -> list[str]:
    del ports, workload
    return [binary("litserve", "python"), str(HERE / "litserve" / "server.py")]


def _bentoml(ports: Ports, workload: Workload) -> list[str]:
    del workload
    where = ["--working-dir", str(HERE / "bentoml"), "--host", "127.0.0.1", "--port", str(ports["http"])]
    return [binary("bentoml", "bentoml"), "serve", "service:Rows", *where]


def _ray(ports: Ports, workload: Workload) -> list[str]:
    del ports, workload
    return [binary("ray", "python"), str(HERE / "ray" / "app.py")]


def _mlserver(ports: Ports, workload: Workload) -> list[str]:
    folder = _REPOSITORIES / "mlserver" / workload.model
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": ports["http"],
        "grpc_port": ports["grpc"],
        "metrics_port": ports["metrics"],
        "parallel_workers": CORES,
        "gzip_enabled": False,
        "logging_settings": {"version": 1, "disable_existing_loggers": True, "root": {"level": "ERROR"}},
    }
    model = {
        "name": workload.model,
        "implementation": "runtime.Rows",
        "max_batch_size": 64,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(path_of(workload.model))},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [binary("mlserver", "mlserver"), "start", str(folder)]


def _triton(ports: Ports, workload: Workload) -> list[str]:
    """The server's own program with the Python backend: the wheel has no other backend."""
    folder = _REPOSITORIES / "triton" / workload.model / workload.model
    (folder / "1").mkdir(parents=True, exist_ok=True)
    for source in (HERE / "triton" / "model.py", HERE / "common" / "onnx_rows.py"):
        shutil.copy(source, folder / "1")
    (folder / "config.pbtxt").write_text(_triton_config(workload.model))
    # The wheel carries a stub for each Python version, and the backend looks for one beside itself.
    stub = _TRITON / "backends" / "python" / "triton_python_backend_stub"
    stub.unlink(missing_ok=True)
    stub.symlink_to(_TRITON / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub")
    options = {
        "model-repository": folder.parent,
        "backend-directory": _TRITON / "backends",
        "http-address": "127.0.0.1",
        "http-port": ports["http"],
        "grpc-address": "127.0.0.1",
        "grpc-port": ports["grpc"],
        "metrics-port": ports["metrics"],
        "http-thread-count": 2 * CORES,
        "log-info": "false",
    }
    return [str(_TRITON / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]


def _triton_config(model: str) -> str:
    session = onnxruntime.InferenceSession(path_of(model), providers=["CPUExecutionProvider"])
    tensors = [("input", node) for node in session.get_inputs()] + [("output", node) for node in session.get_outputs()]
    lines = ['backend: "python"', "max_batch_size: 64", "dynamic_batching {}"]
    lines.append(f"instance_group [{{ count: {CORES}, kind: KIND_CPU }}]")
    for kind, node in tensors:
        dims = ", ".join(str(size if isinstance(size, int) else -1) for size in node.shape[1:])
        shape = f"dims: [ {dims or 1} ]"  # a tensor of one dimension gets a second one: see model.py
        dtype = "TYPE_INT64" if "int64" in node.type else "TYPE_FP32"
        lines.append(f'{kind} [ {{ name: "{node.name}", data_type: {dtype}, {shape} }} ]')
    return "\n".join(lines) + "\n"
