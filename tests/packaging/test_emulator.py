"""Staged functions behind AWS's own Runtime Interface Emulator, which SAM CLI brings."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.packaging.interpreter import Interpreter
from tests.conftest import LocalAws
from tests.packaging.calls import DIGIT, TUMOR, authorize, body, file, predict
from tests.packaging.clean_process import ISOLATED, PATH
from tests.packaging.conftest import Unpack, Unpacked
from tests.packaging.tools import TOOLS

pytestmark = pytest.mark.tools

_RUNTIME = f"{PATH} from awslambdaric.__main__ import main; main(['awslambdaric', sys.argv[1]])"
_LIMIT_S = 60


class Emulated:
    """A function that is invoked as Lambda's API invokes it."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._url = f"{url}/2015-03-31/functions/function/invocations"
        self._process = process
        self._log = log

    def __call__(self, event: Mapping[str, Any]) -> Any:
        deadline = time.monotonic() + _LIMIT_S
        while True:
            try:
                return httpx.post(self._url, json=event, timeout=_LIMIT_S, trust_env=False).json()
            except httpx.ConnectError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)


@contextmanager
def emulated(function: Unpacked, interpreter: Interpreter, folder: Path) -> Iterator[Emulated]:
    assert TOOLS is not None
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    runtime_api, invoke_api = (f"127.0.0.1:{port.getsockname()[1]}" for port in ports)
    for port in ports:
        port.close()
    path = json.dumps([str(part) for part in function.search_path])
    runtime = [interpreter.path, *ISOLATED, "-c", _RUNTIME, path, function.spec.handler]
    addresses = ["--runtime-api-address", runtime_api, "--runtime-interface-emulator-address", invoke_api]
    limits = {
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(int(function.spec.timeout_s)),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.spec.memory_mb),
    }
    log = folder / "log"
    with log.open("wb") as output:
        # A group of its own: the emulator starts the runtime, and both have to go.
        process = subprocess.Popen(
            [TOOLS.emulator, *addresses, *runtime],
            env=function.environment | limits,
            cwd=function.task,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Emulated(f"http://{invoke_api}", process, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_predict(unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path) -> None:
    with emulated(unpack("PredictFunction"), interpreter, tmp_path) as invoke:
        health = invoke(file("predict_health"))
        tumor = body(invoke(predict("tumor", TUMOR).event))
        digit = body(invoke(predict("digits", DIGIT).event))
        plain = body(invoke(file("predict_digits")))
    assert health["statusCode"] == 200
    assert [each["label"] for each in tumor["predictions"]] == ["malignant", "benign"]
    assert digit["predictions"][0]["label"] == 3
    assert plain["predictions"][0]["label"] == 0


def test_authorizer(unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, tmp_path: Path) -> None:
    with emulated(unpack("AuthorizerFunction"), interpreter, tmp_path) as invoke:
        assert invoke(authorize(local_aws).event)["context"]["tenant"] == "demo"
        assert invoke(file("authorizer")) == {"isAuthorized": False}


def test_api(unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path) -> None:
    with emulated(unpack("ApiFunction"), interpreter, tmp_path) as invoke:
        models = body(invoke(file("api_models")))
        contract = body(invoke(file("api_openapi")))
        page = invoke(file("api_docs"))
    assert {"tumor", "digits"} <= {model["name"] for model in models["models"]}
    assert contract["openapi"].startswith("3.")
    assert page["statusCode"] == 200


def test_release_check(unpack: Unpack, interpreter: Interpreter, tmp_path: Path) -> None:
    with emulated(unpack("ReleaseCheckFunction"), interpreter, tmp_path) as invoke:
        outcome = invoke(file("release_check"))
    assert outcome["status"] == "Failed"  # no such version can be invoked here
    assert outcome["reason"]
