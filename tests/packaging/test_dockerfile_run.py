"""The image's own commands on this machine: COPY, RUN, HEALTHCHECK, ENTRYPOINT and CMD, with the packages of this
environment; read-only but for its `/tmp`, as its user and as process 1 wherever this machine allows that.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.gpu_service.server import wait_until
from tests.models import add_model, matmul_model, write_package
from tests.packaging.dockerfile import of
from tests.packaging.image import Image, engine

# More weights than sessions share without writing them down first.
_SIDE = 1536


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # pytest's own folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="sluice-image-"))
    python = os.path.realpath(sys.executable)
    write_package(folder / "opt/ml/model/add/1", add_model())
    write_package(folder / "opt/ml/model/wide/1", matmul_model(np.eye(_SIDE, dtype=np.float32)))
    write_package(folder / "opt/ml/models/4711/model", add_model(2.0))
    made = Image.build(folder, python, Path(sysconfig.get_path("purelib")))
    yield made
    made.unlock()
    shutil.rmtree(folder)


def test_what_is_shipped_is_compiled(image: Image) -> None:
    sources = list((image.folder / image.workdir).rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        assert list(source.parent.glob(f"__pycache__/{source.stem}.*.pyc")), source


def test_it_starts_serves_and_ends_at_sigterm(image: Image, tmp_path: Path) -> None:
    before = image.files()
    with image.run(tmp_path / "log") as run:
        wait_until(lambda: run.engine.poll() is not None or image.healthy(run.port))
        # What the engine would see: no root, number 1.
        prefix = engine(image.python)
        if "setpriv" in prefix:
            assert set(run.process.uids()) == {1000}
        if "--pid" in prefix:
            status = Path(f"/proc/{run.process.pid}/status").read_text()
            (numbers,) = [line.split() for line in status.splitlines() if line.startswith("NSpid:")]
            assert numbers[-1] == "1"
        url = f"http://127.0.0.1:{run.port}"
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            model = {"X-Amzn-SageMaker-Custom-Attributes": "model=wide"}
            answer = client.post("/invocations", json={"instances": [[1.0] * _SIDE]}, headers=model)
            assert answer.status_code == 200, answer.text
            assert client.get("/metrics").status_code == 200
        assert _listening(run.process) == {run.port, run.grpc_port}
        assert run.end() == 0
    assert not image.healthy(run.port)
    assert run.lines()[-1]["message"] == "stopping"
    assert [line for line in run.lines() if line["level"] != "INFO"] == []
    assert image.files() == before
    assert [str(path) for path in image.path("/tmp").iterdir()] == []  # noqa: S108


def _listening(process: psutil.Process) -> set[int]:
    return {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}


def test_a_request_that_was_accepted_is_answered_after_sigterm(image: Image, tmp_path: Path) -> None:
    with image.run(tmp_path / "log") as run:
        wait_until(lambda: run.engine.poll() is not None or image.healthy(run.port))
        body = b'{"instances": [[1.0, 2.0]]}'
        with httpx.Client(base_url=f"http://127.0.0.1:{run.port}", trust_env=False, timeout=30) as client:

            def halves() -> Iterator[bytes]:
                yield body[:10]
                run.process.terminate()
                # It has heard the signal once it says so.
                wait_until(lambda: any(line["message"] == "stopping" for line in run.lines()))
                yield body[10:]

            headers = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "X-Amzn-SageMaker-Custom-Attributes": "model=add",
            }
            answer = client.post("/invocations", content=halves(), headers=headers)
        assert answer.status_code == 200, answer.text
        assert run.engine.wait(timeout=60) == 0


def test_as_a_multi_model_endpoint_it_starts_empty_and_loads_from_where_sagemaker_puts_models(
    image: Image, tmp_path: Path
) -> None:
    with image.run(tmp_path / "log", SAGEMAKER_MULTI_MODEL="true") as run:
        wait_until(lambda: run.engine.poll() is not None or image.healthy(run.port))
        with httpx.Client(base_url=f"http://127.0.0.1:{run.port}", trust_env=False, timeout=30) as client:
            place = image.path("/opt/ml/models/4711/model")
            loaded = client.post("/models", json={"model_name": "add", "url": str(place)})
            assert loaded.status_code == 200, loaded.text
            answer = client.post("/models/add/invoke", json={"instances": [[1.0, 2.0]]})
            assert answer.json()["predictions"] == [[3.0, 4.0]]
            elsewhere = client.post(
                "/models", json={"model_name": "given", "url": str(image.path("/opt/ml/model/add"))}
            )
            assert elsewhere.status_code == 400
        assert run.end() == 0


def test_another_argument_than_serve_is_refused(image: Image, tmp_path: Path) -> None:
    (entry,) = of("ENTRYPOINT")
    done = subprocess.run(
        image.words([*entry.command, "train"]),
        cwd=image.folder / image.workdir,
        env=image.variables(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "serve" in done.stderr
