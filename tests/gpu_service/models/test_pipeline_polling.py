"""Pipelines in the container process: published to a bucket, called by every door, added and removed as it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc  # type: ignore[import-untyped]
import tritonclient.http as triton_http  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from shared.adapters.onnx.reader import OnnxPackageReader
from shared.adapters.pipeline_package import PipelinePackageReader
from shared.adapters.s3_packages import S3Packages
from shared.domain.model import ModelVersion
from shared.usecases.publish_model import PublishModel
from tests.fakes import InMemoryModels
from tests.gpu_service.models.bucket import BUCKET, CREDENTIALS
from tests.gpu_service.server import Server, free_port, running, wait_until
from tests.models import label_package
from tests.pipelines import flow_document, shift_package, write_pipeline

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROWS = [[1.0, 2.0, 3.0], [9.0, 2.0, 3.0]]
LABELS, SHIFTED = ["c", "a"], [[12, 13, 14], [20, 13, 14]]


class House(NamedTuple):
    server: Server
    grpc: str
    s3: "S3Client"
    folder: Path
    models: InMemoryModels

    def publish(self, folder: Path) -> ModelVersion:
        store = S3Packages(self.s3, BUCKET)
        publish = PublishModel(self.models, store, OnnxPackageReader(), pipelines=PipelinePackageReader())
        return publish(folder).version

    def publish_steps(self, *names: str) -> None:
        amounts = {"pre": 1.0, "post": 10.0}
        for name in names:
            place = self.folder / name
            if name in amounts:
                shift_package(place, name, amounts[name], placement="container")
            else:
                label_package(place, name)
                manifest = (place / "manifest.json").read_text()
                (place / "manifest.json").write_text(manifest.replace("{", '{"placement": "container",', 1))
            self.publish(place)

    def loads(self, name: str) -> int:
        return sum((line["message"], line.get("model")) == ("model loaded", name) for line in self.server.lines())

    def state(self, name: str) -> dict[str, str]:
        index = self.server.client.post("/v2/repository/index", json={}).json()
        return next((row for row in index if row["name"] == name), {})


@pytest.fixture
def house(s3: "S3Client", endpoint: str, tmp_path: Path) -> Iterator[House]:
    port = free_port()
    environment = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "SLUICE_MODEL_URI": f"s3://{BUCKET}/models/",
        "SLUICE_CACHE_DIR": str(tmp_path / "cache"),
        "SLUICE_GRPC_PORT": str(port),
    }
    with running(tmp_path, **environment) as server:
        server.wait_for_ping(200)
        yield House(server, f"127.0.0.1:{port}", s3, tmp_path, InMemoryModels())


def infer(module: Any, client: Any, rows: Any, **more: Any) -> Any:
    array = np.array(rows, dtype=np.float32)
    tensor = module.InferInput("values", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return client.infer("flow", [tensor], **more)


def check(answer: Any) -> None:
    assert [label.decode() for label in answer.as_numpy("label")] == LABELS
    np.testing.assert_array_equal(answer.as_numpy("shifted"), SHIFTED)


def test_a_pipeline_comes_with_its_last_step_and_every_door_answers(house: House) -> None:
    server = house.server
    house.publish_steps("pre", "labels", "post")
    version = house.publish(write_pipeline(house.folder / "flow", flow_document(placement="container")))
    wait_until(lambda: house.state("flow").get("state") == "READY")
    plain = server.predict({"instances": ROWS}, "model=flow").json()
    names = ("f1", "f2", "f3")
    assert plain["predictions"] == [
        {"label": label, "shifted": dict(zip(names, row, strict=True))}
        for label, row in zip(LABELS, SHIFTED, strict=True)
    ]
    assert plain["model"]["name"] == "flow"
    body = {"inputs": [{"name": "values", "datatype": "FP32", "shape": [2, 3], "data": ROWS}]}
    answer = server.client.post("/v2/models/flow/versions/1/infer", json=body).json()
    assert {output["name"]: output["data"] for output in answer["outputs"]}["label"] == LABELS
    http = triton_http.InferenceServerClient(server.url.removeprefix("http://"))
    check(infer(triton_http, http, ROWS))
    http.close()
    with triton_grpc.InferenceServerClient(house.grpc) as grpc:
        check(infer(triton_grpc, grpc, ROWS))
        with pytest.raises(InferenceServerException, match="is above the maximum 100"):
            infer(triton_grpc, grpc, [[101, 0, 0]])
        assert grpc.get_model_config("flow").config.platform == "ensemble"
        assert grpc.get_model_metadata("flow").inputs[0].name == "values"
        assert grpc.is_model_ready("flow")
    refused = server.predict({"instances": [[100, 0, 0]]}, "model=flow")
    assert refused.status_code == 500
    assert "Step 'post' (post version 1)" in refused.json()["detail"]
    config = server.client.get("/v2/models/flow/config").json()
    assert version.pipeline is not None
    assert version.pipeline.steps[0].digest in config["parameters"]["pipeline"]["string_value"]
    stats = {row["name"]: row for row in server.client.get("/v2/models/stats").json()["model_stats"]}
    assert (stats["flow"]["inference_count"], stats["flow"]["inference_stats"]["fail"]["count"]) == (8, 2)
    assert stats["labels"]["inference_count"] == 9
    metrics = server.client.get("/metrics").text
    assert 'sluice_requests_total{code="ok",model="flow",version="1"} 4' in metrics
    assert 'sluice_requests_total{code="ok",model="pre",version="1"} 5' in metrics


def test_it_goes_with_a_step_and_comes_back_with_it(house: House) -> None:
    house.publish_steps("pre", "labels")
    house.publish_steps("post")
    house.publish(write_pipeline(house.folder / "flow", flow_document(placement="container")))
    wait_until(lambda: house.state("flow").get("state") == "READY")
    index = house.s3.get_object(Bucket=BUCKET, Key="models/post/1/package.json")["Body"].read()
    house.s3.delete_object(Bucket=BUCKET, Key="models/post/1/package.json")
    wait_until(lambda: house.state("flow").get("state") == "UNAVAILABLE")
    loads = house.loads("flow")
    refused = house.server.predict({"instances": ROWS}, "model=flow")
    assert refused.status_code == 503
    assert "its step post version 1 is not served here" in refused.json()["detail"]
    assert house.server.client.get("/v2/models/flow/ready").status_code != 200
    assert house.server.predict({"instances": ROWS}, "model=labels").status_code == 200
    house.s3.put_object(Bucket=BUCKET, Key="models/post/1/package.json", Body=index)
    wait_until(lambda: house.state("flow").get("state") == "READY")
    assert house.server.predict({"instances": ROWS}, "model=flow").status_code == 200
    assert house.loads("flow") == loads == 1
    house.s3.delete_object(Bucket=BUCKET, Key="models/flow/1/package.json")
    wait_until(lambda: not house.state("flow"))
    assert house.server.predict({"instances": ROWS}, "model=flow").status_code == 404
    assert house.server.terminate() == 0


def test_a_new_version_takes_over_once_its_steps_are_there(s3: "S3Client", endpoint: str, tmp_path: Path) -> None:
    environment = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "SLUICE_MODEL_URI": f"s3://{BUCKET}/models/",
        "SLUICE_CACHE_DIR": str(tmp_path / "cache"),
        "SLUICE_VERSION_POLICY": "flow=latest:1",
    }
    with running(tmp_path, **environment) as server:
        server.wait_for_ping(200)
        house = House(server, "", s3, tmp_path, InMemoryModels())
        house.publish_steps("pre", "labels", "post")
        house.publish(write_pipeline(tmp_path / "flow", flow_document(placement="container")))
        wait_until(lambda: house.state("flow").get("state") == "READY")
        house.publish(shift_package(tmp_path / "pre2", "pre", 2, version=2, placement="container"))
        index = s3.get_object(Bucket=BUCKET, Key="models/pre/2/package.json")["Body"].read()
        s3.delete_object(Bucket=BUCKET, Key="models/pre/2/package.json")
        document = flow_document(placement="container", version=2)
        document["pipeline"]["steps"][0]["version"] = 2
        house.publish(write_pipeline(tmp_path / "flow2", document))
        wait_until(lambda: house.loads("flow") == 2)
        assert server.predict({"instances": ROWS}, "model=flow").json()["model"]["version"] == 1
        s3.put_object(Bucket=BUCKET, Key="models/pre/2/package.json", Body=index)
        wait_until(lambda: server.predict({"instances": ROWS}, "model=flow").json()["model"]["version"] == 2)
        wait_until(lambda: server.predict({"instances": ROWS}, "model=flow;version=1").status_code == 404)
