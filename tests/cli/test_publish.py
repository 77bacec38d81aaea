"""`sluice publish` into real (local) AWS services."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infra.local.aws_client import isolated_session, local_client
from infra.packages import publisher
from shared.domain.model import ModelVersion, Placement
from tests.cli.conftest import Cli
from tests.conftest import LocalAws
from tests.models import add_model, label_package, write_package


@pytest.fixture
def name() -> str:
    return f"m{uuid4().hex[:12]}"


def published(aws: LocalAws, name: str) -> ModelVersion:
    return publisher(aws.url, aws.models_table, aws.bucket).registry.latest(name)


def stored(aws: LocalAws, version: ModelVersion) -> dict[str, bytes]:
    s3 = local_client(isolated_session(), "s3", aws.url)
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=aws.bucket, Prefix=version.prefix)["Contents"]]
    bodies = {key: s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read() for key in keys}
    return {key.removeprefix(version.prefix): body for key, body in bodies.items()}


def external_model(path: Path, data: str, elements: int = 300) -> None:
    """`y = x + weights`; FP32 [n, elements], the weights in the file `data` beside the model."""
    weights = np.arange(elements, dtype=np.float32)
    tensor = numpy_helper.from_array(weights, "weights")
    onnx.external_data_helper.set_external_data(tensor, data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    shape: list[str | int | None] = ["n", elements]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "weights"], ["y"])], "test", [x], [y], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    target = path.parent / data
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(weights.tobytes())


def test_a_bare_model_gets_a_manifest_and_version_1(
    publishing: Cli, local_aws: LocalAws, tmp_path: Path, name: str
) -> None:
    graph = add_model()
    (tmp_path / "model.onnx").write_bytes(graph)
    done = publishing.json("publish", str(tmp_path / "model.onnx"), "--name", name)
    version = published(local_aws, name)
    assert (done["model"], done["version"], done["created"], done["placement"]) == (name, 1, True, "function")
    assert (done["digest"], done["size"]) == (version.digest, version.size)
    assert [(spec.name, spec.shape) for spec in version.signature.inputs] == [("x", (None, 2))]
    objects = stored(local_aws, version)
    assert objects.keys() == {"model.onnx", "manifest.json", "package.json"}
    assert objects["model.onnx"] == graph
    assert json.loads(objects["manifest.json"])["name"] == name
    assert {file.path: file.sha256 for file in version.files}["model.onnx"] == sha256(graph).hexdigest()


def test_the_same_model_is_not_published_twice_another_is_the_next_version(
    publishing: Cli, local_aws: LocalAws, tmp_path: Path, name: str
) -> None:
    model = tmp_path / f"{name.upper()}.onnx"  # the name comes from the file's
    model.write_bytes(add_model(1))
    assert publishing("publish", str(model)).exit_code == 0
    again = publishing("publish", str(model))
    assert again.exit_code == 0
    assert f"{name} version 1 was published already" in again.stdout
    model.write_bytes(add_model(2))
    assert publishing.json("publish", str(model))["version"] == 2
    assert published(local_aws, name).version == 2


def test_a_version_is_immutable(publishing: Cli, local_aws: LocalAws, tmp_path: Path, name: str) -> None:
    model = tmp_path / "a.onnx"
    model.write_bytes(add_model(1))
    arguments = ("publish", str(model), "--name", name, "--version", "7")
    assert publishing.json(*arguments)["created"] is True
    assert publishing.json(*arguments)["created"] is False
    model.write_bytes(add_model(2))
    refused = publishing(*arguments, "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "published with other content" in refused.stderr
    assert stored(local_aws, published(local_aws, name))["model.onnx"] == add_model(1)


def test_a_package_is_published_as_its_manifest_says(
    publishing: Cli, local_aws: LocalAws, tmp_path: Path, name: str
) -> None:
    package = label_package(tmp_path / "package", name, 4)
    result = publishing("publish", str(package))
    assert result.exit_code == 0, result.stderr
    assert f"{name} version 4 is published" in result.stdout
    version = published(local_aws, name)
    assert version.metadata["metrics"] == {"accuracy": 1.0}
    assert version.signature.output_names == ("label", "scores")
    assert publishing.json("publish", str(package))["created"] is False


def test_external_data_travels_and_counts(publishing: Cli, local_aws: LocalAws, tmp_path: Path, name: str) -> None:
    model = tmp_path / "a" / "big.onnx"
    external_model(model, "weights/part.bin")
    (model.parent / "notes.txt").write_text("not part of the model")
    assert publishing.json("publish", str(model), "--name", name)["created"] is True
    version = published(local_aws, name)
    assert [file.path for file in version.files] == ["manifest.json", "model.onnx", "weights/part.bin"]
    assert stored(local_aws, version)["weights/part.bin"] == (model.parent / "weights/part.bin").read_bytes()
    assert publishing.json("publish", str(model), "--name", name)["created"] is False
    (model.parent / "weights/part.bin").write_bytes(bytes(1200))  # other weights, the same graph
    assert publishing.json("publish", str(model), "--name", name)["version"] == 2


def test_a_large_model_goes_to_the_container(publishing: Cli, local_aws: LocalAws, tmp_path: Path, name: str) -> None:
    model = tmp_path / "large.onnx"
    external_model(model, "large.data", elements=12_500_001)
    assert publishing.json("publish", str(model), "--name", name)["placement"] == "container"
    assert published(local_aws, name).placement is Placement.CONTAINER


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot be loaded"), (b"not a model", "cannot be loaded"), (add_model()[:-20], "cannot be loaded")],
)
def test_a_broken_model_is_refused(publishing: Cli, tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    result = publishing("publish", str(tmp_path / "broken.onnx"), "--name", name)
    assert result.exit_code == 1
    assert said in result.stderr
    assert str(tmp_path) not in result.stderr
    assert "Traceback" not in result.stderr


def test_data_outside_of_the_models_folder_is_refused(publishing: Cli, tmp_path: Path, name: str) -> None:
    external_model(tmp_path / "a" / "m.onnx", "../secret.bin")
    result = publishing("publish", str(tmp_path / "a" / "m.onnx"), "--name", name)
    assert result.exit_code == 1
    assert "secret.bin" in result.stderr


def test_a_package_without_or_with_a_wrong_manifest_is_refused(publishing: Cli, tmp_path: Path, name: str) -> None:
    bare = write_package(tmp_path / "bare", add_model())
    result = publishing("publish", str(bare))
    assert result.exit_code == 1
    assert "no manifest.json" in result.stderr
    wrong = write_package(tmp_path / "wrong", add_model(), {"name": name, "version": 0})
    result = publishing("publish", str(wrong))
    assert result.exit_code == 1
    assert "manifest.json: " in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-file.onnx",),
        (".", "--name", "x"),
        (".", "--table", "x"),
        (".", "--profile", "x"),
    ],
)
def test_wrong_usage_exits_with_2(publishing: Cli, arguments: tuple[str, ...]) -> None:
    assert publishing("publish", *arguments).exit_code == 2


def test_a_name_that_is_none_is_refused(publishing: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(add_model())
    result = publishing("publish", str(tmp_path / "a.onnx"), "--name", "../x")
    assert result.exit_code == 1
    assert "'../x'" in result.stderr


def test_without_a_stack_it_exits_with_3(down: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(add_model())
    result = down("publish", str(tmp_path / "a.onnx"))
    assert result.exit_code == 3
    assert "sluice up" in result.stderr


def test_a_deployed_stack_is_reached_with_the_users_own_credentials(
    down: Cli, local_aws: LocalAws, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.onnx").write_bytes(add_model())
    (tmp_path / "config").write_text(
        f"[profile other]\nregion = us-east-1\nendpoint_url = {local_aws.url}\n"
        "aws_access_key_id = mine\naws_secret_access_key = mine\n"
    )
    environment = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_EC2_METADATA_DISABLED": "true", "PATH": "/usr/bin"}
    command = [sys.executable, "-m", "infra.cli.main", "publish", str(tmp_path / "a.onnx"), "--name", name, "--json"]
    target = ["--table", local_aws.models_table, "--bucket", local_aws.bucket]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *target, *more], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    done = run("--profile", "other")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["created"] is True
    unknown = run("--profile", "nobody")
    assert unknown.returncode == 2
    assert "nobody" in unknown.stderr
    assert "Traceback" not in unknown.stderr
