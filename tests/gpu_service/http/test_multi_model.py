"""SageMaker's multi-model contract on a real server that starts empty."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pytest

from tests.gpu_service.http.wire import metric, waiting
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, matmul_model, slow_model, write_package

MB = 1_000_000
ROW = {"instances": [[1, 2]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the platform puts models: some hold `model.onnx` themselves, one holds version folders."""
    folder = tmp_path_factory.mktemp("models")
    write_package(folder / "one", add_model(1))
    write_package(folder / "two", add_model(2))
    for version in (1, 3):
        write_package(folder / f"versions/{version}", add_model(10 * version))
    write_package(folder / "slow", slow_model())
    write_package(folder / "broken", b"no graph")
    write_package(folder / "half-broken/1", add_model())
    write_package(folder / "half-broken/2", b"no graph")
    write_package(folder / "large", matmul_model(np.ones((1250, 10_000), np.float32)))
    write_package(folder / "larger", matmul_model(np.ones((2500, 10_000), np.float32)))
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def shared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {
        "SAGEMAKER_MULTI_MODEL": "true",
        "SLUICE_MULTI_MODEL_DIR": str(folder),
        "SLUICE_MEMORY_BUDGET_BYTES": str(98 * MB),
        "SLUICE_THREADS": "1",
    }
    with running(tmp_path_factory.mktemp("log"), **environment) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """Empty before and after each test."""
    yield shared
    for name in listed(shared):
        assert delete(shared, name).status_code == 200


def load(server: Server, name: str, url: object) -> httpx.Response:
    return server.client.post("/models", json={"model_name": name, "url": str(url)})


def delete(server: Server, name: str) -> httpx.Response:
    return server.client.delete(f"/models/{quote(name, safe='')}")


def listed(server: Server) -> dict[str, str]:
    answer = server.client.get("/models")
    assert answer.status_code == 200
    return {model["modelName"]: model["modelUrl"] for model in answer.json()["models"]}


def invoke(server: Server, name: str, body: Any = ROW) -> httpx.Response:
    return server.client.post(f"/models/{quote(name, safe='')}/invoke", json=body)


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert "Traceback" not in answer.text
    return str(answer.json()["detail"])


def test_it_is_healthy_while_it_is_empty(server: Server) -> None:
    answer = server.ping()
    assert (answer.status_code, answer.json()["models"]) == (200, [])
    assert listed(server) == {}
    refused(invoke(server, "one"), 404, "model_not_found")
    refused(delete(server, "one"), 404, "model_not_found")
    refused(server.client.get("/models/one"), 404, "model_not_found")


def test_load_list_invoke_unload(server: Server, folder: Path) -> None:
    assert load(server, "m", folder / "one").status_code == 200
    refused(load(server, "m", folder / "two"), 409, "already_loaded")
    assert invoke(server, "m").json() == {"predictions": [[2, 3]], "model": {"name": "m", "version": 1}}
    assert listed(server) == {"m": str(folder / "one")}
    assert server.client.get("/models/m").json() == {"modelName": "m", "modelUrl": str(folder / "one")}
    assert server.ping().json()["models"] == [{"name": "m", "version": 1}]
    assert delete(server, "m").status_code == 200
    refused(invoke(server, "m"), 404, "model_not_found")
    assert load(server, "m", folder / "two").status_code == 200
    assert invoke(server, "m").json()["predictions"] == [[3, 4]]


def test_a_folder_of_versions(server: Server, folder: Path) -> None:
    assert load(server, "m", folder / "versions").status_code == 200
    assert listed(server) == {"m": str(folder / "versions")}
    assert invoke(server, "m").json() == {"predictions": [[31, 32]], "model": {"name": "m", "version": 3}}
    assert server.predict(ROW, "model=m;version=1").json()["predictions"] == [[11, 12]]
    assert delete(server, "m").status_code == 200
    assert server.client.post("/v2/repository/index").json() == []


def test_names_as_the_platform_makes_them(server: Server, folder: Path) -> None:
    names = ("8f2d4c0e" * 8, "model.tar.gz", "a-b_c.d")
    for name in names:
        assert load(server, name, folder / "one").status_code == 200
        assert invoke(server, name).json()["predictions"] == [[2, 3]]
        assert server.client.get(f"/models/{quote(name, safe='')}").json()["modelName"] == name
    assert listed(server).keys() == set(names)


def test_a_name_is_percent_decoded_once(server: Server, folder: Path) -> None:
    for name in ("a/b c%2F", "Ünïcode", "%2e%2e"):
        detail = refused(server.client.get(f"/models/{quote(name, safe='')}"), 404, "model_not_found")
        assert repr(name) in detail


def test_every_door_reaches_the_model(server: Server, folder: Path) -> None:
    assert load(server, "first", folder / "one").status_code == 200
    assert server.predict(ROW).json()["model"]["name"] == "first"
    assert load(server, "second", folder / "two").status_code == 200
    refused(server.predict(ROW), 400, "invalid_request")
    assert server.predict(ROW, X_Amzn_SageMaker_Target_Model="second").json()["predictions"] == [[3, 4]]
    assert server.predict(ROW, "model=first").json()["predictions"] == [[2, 3]]
    tensors = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
    answer = server.client.post("/v2/models/second/infer", json={"inputs": tensors}).json()
    assert (answer["model_name"], answer["outputs"][0]["data"]) == ("second", [3, 4])
    headers = {"X-Amzn-SageMaker-Target-Model": "first"}
    answer = server.client.post("/models/second/invoke", json=ROW, headers=headers)
    assert answer.json()["predictions"] == [[3, 4]]


def test_the_repository_extension_leaves_loading_to_the_platform(server: Server, folder: Path) -> None:
    assert load(server, "m", folder / "one").status_code == 200
    for verb in ("load", "unload"):
        answer = server.client.post(f"/v2/repository/models/m/{verb}")
        assert answer.status_code == 400
        assert "multi-model" in answer.json()["error"]
    assert invoke(server, "m").status_code == 200


@pytest.mark.parametrize(
    ("place", "status", "code"),
    [
        ("nothing", 404, "model_not_found"),
        ("file", 404, "model_not_found"),
        ("empty", 400, "invalid_package"),
        ("broken", 400, "invalid_package"),
        ("half-broken", 400, "invalid_package"),
        ("", 400, "invalid_request"),
        ("..", 400, "invalid_request"),
        ("one/../../..", 400, "invalid_request"),
        ("\0", 400, "invalid_request"),
    ],
)
def test_folders_that_cannot_be_loaded(server: Server, folder: Path, place: str, status: int, code: str) -> None:
    detail = refused(load(server, "m", f"{folder}/{place}"), status, code)
    assert detail
    assert listed(server) == {}
    refused(invoke(server, "m"), 404, "model_not_found")
    assert load(server, "m", folder / "one").status_code == 200


@pytest.mark.parametrize("url", ["one", "file:///opt/ml/models/one", "s3://bucket/one", "/etc"])
def test_urls_that_are_no_folders_below_the_root(server: Server, url: str) -> None:
    refused(load(server, "m", url), 400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"model_name": "m"}', 422),
        (b'{"url": "/x"}', 422),
        (b'{"model_name": 7, "url": "/x"}', 422),
        (b'{"model_name": "", "url": "/x"}', 422),
        (b'{"model_name": "m", "url": ["/x"]}', 422),
        (b'{"model_name": "a\\u0000b", "url": "/x"}', 400),
        (b'{"model_name": "%b", "url": "/x"}' % (b"m" * 300), 400),
        (b"[" * 100 + b"]" * 100, 400),
        (b'{"model_name": "m", "url": "%b"}' % (b"/x" * 40_000), 413),
        (b"\xff\xfe", 400),
    ],
)
def test_documents_that_are_wrong(server: Server, body: bytes, status: int) -> None:
    answer = server.client.post("/models", content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"] == status
    assert listed(server) == {}


def test_no_room_is_507_and_what_is_loaded_stays(server: Server, folder: Path) -> None:
    assert load(server, "m", folder / "one").status_code == 200
    refused(load(server, "larger", folder / "larger"), 507, "out_of_memory")
    assert listed(server).keys() == {"m"}
    assert invoke(server, "m").status_code == 200
    refused(invoke(server, "larger"), 404, "model_not_found")


def test_unloading_gives_the_memory_back(server: Server, folder: Path) -> None:
    """A model of 50 MB, three times, under a budget that has room for one."""
    process = psutil.Process(server.process.pid)
    assert load(server, "m", folder / "one").status_code == 200
    assert invoke(server, "m").status_code == 200
    before = process.memory_info().rss
    for _ in range(3):
        assert load(server, "large", folder / "large").status_code == 200
        assert invoke(server, "large", {"instances": [[0] * 1250]}).status_code == 200
        assert process.memory_info().rss > before + 45 * MB
        refused(load(server, "again", folder / "large"), 507, "out_of_memory")
        assert delete(server, "large").status_code == 200
        assert process.memory_info().rss < before + 20 * MB
    assert metric(server, "sluice_models_loaded") == 1


def test_unloading_waits_for_what_runs(server: Server, folder: Path) -> None:
    assert load(server, "slow", folder / "slow").status_code == 200
    with waiting(server, "/models/slow/invoke", {"instances": [[200_000]]}, Connection="close") as caller:
        wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == 1)
        assert delete(server, "slow").status_code == 200
        answer = caller.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"[[400000.0]]" in answer


def test_one_of_many_loads_of_a_name_wins(server: Server, folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: load(server, "m", folder / "versions").status_code, range(8)))
    assert sorted(answers) == [200] + [409] * 7
    assert invoke(server, "m").status_code == 200


def test_requests_go_on_while_models_come_and_go(server: Server, folder: Path) -> None:
    assert load(server, "stays", folder / "one").status_code == 200
    body = json.dumps(ROW)

    def ask(_: int) -> int:
        return server.client.post("/models/stays/invoke", content=body).status_code

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, number) for number in range(300)]
        for _ in range(5):
            assert load(server, "goes", folder / "versions").status_code == 200
            assert delete(server, "goes").status_code == 200
        assert {future.result() for future in asked} == {200}
