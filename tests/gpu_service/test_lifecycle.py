"""Start, health, overload and end of real container processes."""

import http.client
import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gpu_service.__main__ import main
from tests.gpu_service.server import LIMIT_S, running, spawn, wait_until
from tests.models import add_model, label_package, slow_model, write_package


def test_ping_is_503_until_the_models_are_loaded(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with running(tmp_path, SLUICE_MODEL_DIR=str(models)) as server:
        # Before its first look at the folder it says only that it is loading.
        document = wait_until(
            lambda: (found := server.ping().json()) and "SLUICE_MODEL_DIR" in found["reason"] and found
        )
        assert server.ping().status_code == 503
        assert document["status"] == "loading"
        write_package(tmp_path / "later/plus/1", add_model())
        (tmp_path / "later").rename(models)
        document = server.wait_for_ping(200)
        assert document["models"] == [{"name": "plus", "version": 1}]
        assert server.predict({"instances": [[1, 1]]}).json()["predictions"] == [[2, 2]]


def test_the_only_model_needs_no_name_and_may_lie_right_in_the_folder(tmp_path: Path) -> None:
    write_package(tmp_path / "models", add_model())
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models")) as server:
        server.wait_for_ping(200)
        assert server.predict({"instances": [[1, 1]]}).json()["model"] == {"name": "model", "version": 1}


def test_a_model_that_cannot_be_loaded_is_named_and_the_rest_is_served(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_package(models / "good/1", add_model())
    write_package(models / "broken/1", b"no graph")
    write_package(models / "good/latest", add_model())
    label_package(models / "other/1", name="somebody-else")
    with running(tmp_path, SLUICE_MODEL_DIR=str(models)) as server:
        # It says "failed" with the first one, while the others are still being loaded.
        document = wait_until(lambda: (found := server.ping().json()) and len(found.get("failed", ())) == 3 and found)
        assert document["status"] == "failed"
        assert server.ping().status_code == 503
        assert set(document["failed"]) == {"broken/1", "good/0", "other/1"}
        assert "model.onnx cannot be loaded" in document["failed"]["broken/1"]
        assert "somebody-else" in document["failed"]["other/1"]
        assert str(tmp_path) not in str(document["failed"])
        assert server.predict({"instances": [[1, 1]]}, "model=good").status_code == 200


def test_what_exceeds_the_queue_is_refused_at_once(tmp_path: Path) -> None:
    write_package(tmp_path / "models/slow/1", slow_model())
    limits = {"SLUICE_QUEUE_SIZE": "2", "SLUICE_THREADS": "1"}
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models"), **limits) as server:
        server.wait_for_ping(200)
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(server.predict, {"instances": [[120_000]]}) for _ in range(8)]
            results = [answer.result() for answer in answers]
        assert {answer.status_code for answer in results} == {200, 503}
        assert sum(answer.status_code == 200 for answer in results) >= 3
        refused = next(answer for answer in results if answer.status_code == 503)
        assert refused.json()["code"] == "overloaded"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert server.predict({"instances": [[1]]}).status_code == 200


def test_sigterm_answers_what_was_accepted_and_exits_with_0(tmp_path: Path) -> None:
    write_package(tmp_path / "models/slow/1", slow_model())
    with (
        running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models"), SLUICE_THREADS="1") as server,
        ExitStack() as stack,
    ):
        server.wait_for_ping(200)
        callers = [
            http.client.HTTPConnection(server.client.base_url.netloc.decode(), timeout=LIMIT_S) for _ in range(4)
        ]
        body = json.dumps({"instances": [[120_000]]})
        for caller in callers:
            stack.callback(caller.close)
            caller.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        # A connection that is newer than theirs is answered: the event loop has read all four.
        assert httpx.get(f"{server.url}/ping").status_code == 200
        server.process.terminate()
        answers = [caller.getresponse() for caller in callers]
        assert [json.loads(answer.read())["predictions"] for answer in answers] == [[[240_000.0]]] * 4
        assert server.process.wait(timeout=LIMIT_S) == 0
        with pytest.raises(httpx.TransportError):
            server.ping()


def test_sigterm_before_anything_is_loaded(tmp_path: Path) -> None:
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "nothing")) as server:
        assert server.terminate() == 0


def hears_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has a handler of its own. Source: proc_pid_status(5)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("stub", ["", "import signal\nwhile True:\n    signal.pause()\n"])
def test_sigterm_in_the_first_moments(tmp_path: Path, stub: str) -> None:
    """Also while the first of the large modules is imported; process 1 would never see one without its handler."""
    if stub:
        (tmp_path / "uvloop.py").write_text(stub)
    process, _ = spawn(tmp_path / "log", {"PYTHONPATH": str(tmp_path)})
    try:
        wait_until(lambda: hears_sigterm(process))
        process.terminate()
        assert process.wait(timeout=LIMIT_S) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "port"),
        ("SAGEMAKER_BIND_TO_PORT", "70000"),
        ("SLUICE_QUEUE_SIZE", "0"),
        ("SLUICE_MODEL_URI", "https://example.com"),
        ("SLUICE_LOG_LEVEL", "LOUD"),
        ("SLUICE_POLL_SECONDS", "nan"),
    ],
)
def test_a_bad_setting_stops_the_start_with_its_name(
    variable: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"], {variable: value}) == 2
    assert variable in capsys.readouterr().err


def test_a_process_with_a_bad_setting_ends_without_a_traceback(tmp_path: Path) -> None:
    process, _ = spawn(tmp_path / "log", {"SLUICE_THREADS": "many"})
    assert process.wait(timeout=LIMIT_S) == 2
    assert (tmp_path / "log").read_text() == "The container cannot start: SLUICE_THREADS: expected `int`\n"


def test_the_only_command_is_serve(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    assert "serve" in capsys.readouterr().err


def test_a_taken_port_ends_the_start(tmp_path: Path) -> None:
    write_package(tmp_path / "models/plus/1", add_model())
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models")) as server:
        port = server.url.rpartition(":")[2]
        second, _ = spawn(tmp_path / "log", {"SAGEMAKER_BIND_TO_PORT": port})
        assert second.wait(timeout=LIMIT_S) not in (0, None)
        assert "address already in use" in (tmp_path / "log").read_text()


def test_a_provider_that_is_not_there_fails_the_model(tmp_path: Path) -> None:
    write_package(tmp_path / "models/plus/1", add_model())
    providers = "NoSuchExecutionProvider,CPUExecutionProvider"
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models"), SLUICE_PROVIDERS=providers) as server:
        document = wait_until(lambda: (found := server.ping().json())["status"] == "failed" and found)
        assert "NoSuchExecutionProvider" in document["failed"]["plus/1"]
