"""`sluice publish --stack`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.deployment import client, deploy, outputs, template, user_environment
from tests.conftest import LocalAws
from tests.models import add_model


def test_a_stack_by_its_name_gets_the_model(down: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    model = tmp_path / "plus.onnx"
    model.write_bytes(add_model(1.0))
    name = deploy(local_aws, template("https://api.example.com", functions=False))
    result = down("publish", str(model), "--stack", name, "--json", env=user_environment(local_aws))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["created"] is True
    stores = outputs(local_aws, name)
    found = client(local_aws, "dynamodb").query(
        TableName=stores["ModelsTableName"],
        KeyConditionExpression="model = :model",
        ExpressionAttributeValues={":model": {"S": "plus"}},
    )
    assert found["Count"] == 1
    listed = client(local_aws, "s3").list_objects_v2(Bucket=stores["ModelBucketName"])["Contents"]
    assert "models/plus/1/package.json" in [item["Key"] for item in listed]


@pytest.mark.parametrize(
    "arguments", [("--stack", "s", "--table", "t", "--bucket", "b"), ("--profile", "p"), ("--table", "t")]
)
def test_stack_and_stores_exclude_each_other(down: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    model = tmp_path / "plus.onnx"
    model.write_bytes(add_model(1.0))
    result = down("publish", str(model), *arguments)
    assert result.exit_code == 2
    assert "--stack" in result.stderr


def test_a_stack_that_is_not_there_is_named(down: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    model = tmp_path / "plus.onnx"
    model.write_bytes(add_model(1.0))
    result = down("publish", str(model), "--stack", "absent", env=user_environment(local_aws))
    assert result.exit_code == 1
    assert "absent" in result.stderr
