"""Everything else that a user touches: catalogue, documentation, the command, boto3 clients."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import boto3
import httpx
import onnx
import pytest
from openapi_spec_validator import validate

from infra.local.aws_client import isolated_session, local_client
from tests.e2e.conftest import ROOT, Sluice
from tests.models import add_model

pytestmark = pytest.mark.e2e


def test_the_catalogue_tells_signature_and_metadata(api: httpx.Client) -> None:
    names = [model["name"] for model in api.get("/v1/models").json()["models"]]
    assert {"tumor", "digits", "embed"} <= set(names)
    tumor = api.get("/v1/models/tumor").json()
    assert len(tumor["signature"]["inputs"][0]["features"]) == 30
    assert tumor["metadata"]["metrics"]["roc_auc"] > 0.9
    assert api.get("/v1/models/tumor/versions/1").json()["digest"] == tumor["digest"]
    missing = api.get("/v1/models/tumor/versions/9")
    assert (missing.status_code, missing.json()["code"]) == (404, "version_not_found")


def test_the_contract_is_valid_and_has_an_operation_for_each_model(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    validate(document)
    for model in ("tumor", "digits", "embed"):
        path = f"/v1/models/{model}/predict"
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert content["application/json"]["examples"]
        for kind, media in content.items():
            for name, example in media.get("examples", {}).items():
                value = example["value"]
                if kind == "multipart/form-data":
                    answer = api.post(path, files=[(part, (None, text(value[part]))) for part in value])
                else:
                    answer = api.post(path, content=text(value), headers={"Content-Type": kind})
                assert answer.status_code == 200, (kind, name, answer.text)


def text(value: Any) -> str:
    """An example as it is pasted."""
    return value if isinstance(value, str) else json.dumps(value)


def test_the_documentation_page_needs_nothing_from_elsewhere(sluice: Sluice) -> None:
    with httpx.Client(base_url=sluice.local["api_url"], timeout=30) as anyone:
        page = anyone.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assets = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
        assert assets
        for asset in assets:
            assert "//" not in asset
            assert anyone.get("/docs").request.url.join(asset).host == "127.0.0.1"
            assert anyone.get(str(page.request.url.join(asset))).status_code == 200


def test_health_and_readiness_are_open(sluice: Sluice) -> None:
    assert httpx.get(sluice.local["api_url"] + "/health", timeout=30).json() == {"status": "ok"}
    assert httpx.get(sluice.local["api_url"] + "/ready", timeout=30).json()["ready"] is True


def test_status_tells_what_runs(sluice: Sluice) -> None:
    status = sluice.json("status")
    assert status["up"] is True
    assert {function["logical_id"] for function in status["lambda"]["functions"]} >= {"PredictFunction", "ApiFunction"}


def test_a_second_stack_in_the_same_place_is_refused(sluice: Sluice) -> None:
    done = sluice.run("up", "--detach")
    assert done.returncode == 1
    assert "runs already" in done.stderr


def test_keys_are_stored_hashed_and_readable_by_their_owner_only(sluice: Sluice) -> None:
    local = sluice.local
    assert (sluice.home / "local.json").stat().st_mode & 0o777 == 0o600
    client = local_client(isolated_session(), "dynamodb", local["aws_endpoint_url"])
    items = json.dumps(client.scan(TableName=local["outputs"]["KeysTableName"])["Items"])
    assert local["api_key"].split("_")[1] in items
    assert local["api_key"].split("_")[2] not in items
    for log in (sluice.home / "logs").glob("*.log"):
        assert local["api_key"].split("_")[2] not in log.read_text()
        assert log.stat().st_mode & 0o077 == 0
    assert sluice.home.stat().st_mode & 0o077 == 0


def test_a_bare_graph_is_published_and_served_by_function_and_container(
    sluice: Sluice, api: httpx.Client, tmp_path: Path
) -> None:
    model = tmp_path / "adder.onnx"
    model.write_bytes(add_model())
    published = sluice.json("publish", str(model))
    assert (published["model"], published["version"], published["created"]) == ("adder", 1, True)
    again = sluice.json("publish", str(model))
    assert again["created"] is False
    inputs = {spec["name"]: [[1.0, 2.0]] for spec in api.get("/v1/models/adder").json()["signature"]["inputs"]}
    answer = api.post("/v1/models/adder/predict", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    assert onnx.load(model).graph.output[0].name


@pytest.mark.parametrize("event", sorted((ROOT / "tests/events").glob("*.json")), ids=lambda path: path.stem)
def test_every_event_file_runs_with_sluice_invoke(sluice: Sluice, event: Path) -> None:
    file = event.stem.replace("_", "")
    (function,) = (name for name in sluice.local["functions"] if file.startswith(name.removesuffix("Function").lower()))
    done = sluice.run("invoke", function, "--event", str(event))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    # Who is told of something says nothing back.
    assert (answer is None) == (function in {"AsyncResultFunction", "TelemetryFunction"})


def test_boto3_clients_reach_function_and_container(sluice: Sluice) -> None:
    local = sluice.local
    session = isolated_session()
    functions = local_client(session, "lambda", local["aws_endpoint_url"])
    event = (ROOT / "tests/events/predict.json").read_bytes()
    answer = functions.invoke(FunctionName=local["functions"]["PredictFunction"], Payload=event)
    assert json.loads(answer["Payload"].read())["statusCode"] == 200
    runtime = local_client(session, "sagemaker-runtime", local["sagemaker_runtime_url"])
    endpoints = local_client(session, "sagemaker", local["aws_endpoint_url"]).list_endpoints()["Endpoints"]
    answer = runtime.invoke_endpoint(
        EndpointName=endpoints[0]["EndpointName"],
        ContentType="application/json",
        CustomAttributes="model=embed",
        Body=b'{"instances": ["hello"]}',
    )
    assert len(json.loads(answer["Body"].read())["predictions"][0]) == 384
    assert isinstance(session, boto3.Session)


def test_logs_show_requests_and_never_the_key(sluice: Sluice, api: httpx.Client) -> None:
    marker = "find-me-in-the-log"
    api.get("/v1/models", headers={"X-Request-Id": marker})
    logs: Any = sluice.run("logs", "ApiFunction").stdout
    assert marker in logs
    assert sluice.local["api_key"] not in logs


def test_malformed_http_leaves_no_trace_of_the_credential(sluice: Sluice) -> None:
    local = sluice.local
    url = httpx.URL(local["api_url"])
    request = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {local['api_key']}\x00\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(request.encode())
        assert connection.recv(65536).split(b" ")[1] == b"400"
    for log in (sluice.home / "logs").glob("*.log"):
        assert local["api_key"] not in log.read_text()
