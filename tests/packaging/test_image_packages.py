"""The CPU image whole, run here with the image's version of Python: its own packages, and nothing else's."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

from infra.packaging.interpreter import Interpreter
from shared.adapters.aws import client
from tests.conftest import ROOT
from tests.gpu_service.models.bucket import BUCKET, CREDENTIALS, publish
from tests.gpu_service.server import wait_until
from tests.packaging.dockerfile import of
from tests.packaging.image import Image

_IMPORTS = """
import sys
sys.path[:0] = sys.argv[1:]
import gpu_service.__main__, gpu_service.models.sources.s3, httptools, onnxruntime, PIL.Image, tokenizers, uvloop
assert "CPUExecutionProvider" in onnxruntime.get_available_providers()
print(onnxruntime.__file__)
"""


@pytest.fixture(scope="module")
def packages(interpreter: Interpreter) -> Iterator[Path]:
    """`/opt/packages`, filled by the Dockerfile's own command."""
    (install,) = of("RUN", "packages-cpu")
    # pytest's own folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="sluice-packages-"))
    folder.chmod(0o755)
    target = str(folder / "packages")
    here = {"/opt/packages": target, "/tmp/requirements.txt": str(ROOT / "requirements" / "container-cpu.txt")}  # noqa: S108
    assert here.keys() <= set(install.command)
    command = [interpreter.path, *(here.get(word, word) for word in install.command[1:])]
    # Bytecode is not what is looked at here, and takes most of the time.
    subprocess.run([*command, "--no-compile"], check=True, capture_output=True, timeout=110)
    yield Path(target)
    shutil.rmtree(folder)


@pytest.fixture
def image(packages: Path, interpreter: Interpreter) -> Iterator[Image]:
    folder = Path(tempfile.mkdtemp(prefix="sluice-image-"))
    made = Image.build(folder, os.path.realpath(interpreter.path), packages)
    yield made
    made.unlock()
    shutil.rmtree(folder)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 with one package in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    s3 = client("s3", endpoint_url=f"http://{host}:{port}")
    s3.create_bucket(Bucket=BUCKET)
    publish(s3, tmp_path, 1, 1.0)
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """An OpenTelemetry collector's address, and the paths that were asked of it."""
    paths: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


def test_the_packages_of_the_image_are_what_the_service_needs(interpreter: Interpreter, packages: Path) -> None:
    found = subprocess.run(
        [interpreter.path, "-I", "-S", "-c", _IMPORTS, str(ROOT), str(packages)],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout.startswith(str(packages))


def test_the_image_serves_a_bucket_on_both_ports_with_metrics_and_traces(
    image: Image, bucket: str, collector: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Each of these needs packages that are imported where they are used only."""
    address, traces = collector
    variables = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": bucket,
        "SLUICE_MODEL_URI": f"s3://{BUCKET}/models/",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
    }
    with image.run(tmp_path / "log", **variables) as run:
        wait_until(lambda: run.engine.poll() is not None or image.healthy(run.port))
        with httpx.Client(base_url=f"http://127.0.0.1:{run.port}", trust_env=False, timeout=30) as http:
            answer = http.post("/v2/models/plus/infer", json=_V2)
            assert answer.status_code == 200, answer.text + run.log.read_text()
            assert answer.json()["outputs"][0]["data"] == [2.0, 3.0]
            assert "sluice_requests_total" in http.get("/metrics").text
        given = grpc_client.InferInput("x", [1, 2], "FP32")
        given.set_data_from_numpy(np.array([[1, 2]], np.float32))
        with grpc_client.InferenceServerClient(f"127.0.0.1:{run.grpc_port}") as rpc:
            assert rpc.infer("plus", [given]).as_numpy("y").tolist() == [[2.0, 3.0]]
        assert run.end() == 0
    assert set(traces) == {"/v1/traces"}
    assert [line for line in run.lines() if line["level"] != "INFO"] == []


_V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
