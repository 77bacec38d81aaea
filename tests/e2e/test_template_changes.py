"""What is added to the template works locally with no other change; what is not known stops the start."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.local.aws_client import isolated_session, local_client
from tests.e2e.conftest import ROOT, Sluice, make_sluice

pytestmark = pytest.mark.e2e

ADDED = """
  EchoFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: echo.handler
      CodeUri: echo
      Timeout: 7
      Environment: { Variables: { GREETING: !Sub "hello from ${EchoTable}" } }
      Events:
        Echo: { Type: HttpApi, Properties: { ApiId: !Ref HttpApi, Method: GET, Path: "/echo/{word}" } }
  EchoTable:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
  EchoBucket: { Type: AWS::S3::Bucket }
  EchoQueue: { Type: AWS::SQS::Queue }
"""
HANDLER = """
import os

def handler(event, context):
    word = event["pathParameters"]["word"]
    left = context.get_remaining_time_in_millis()
    return {"word": word, "greeting": os.environ["GREETING"], "in_time": 0 < left <= 7000}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Sluice]:
    """A copy of the project whose template may be changed: the code is linked."""
    for name in ("functions", "shared", "gpu_service", "infra", "build"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "echo").mkdir()
    (tmp_path / "echo" / "echo.py").write_text(HANDLER)
    command = make_sluice(tmp_path / ".sluice")
    yield command
    command.run("down")


def write_template(project: Sluice, added: str) -> None:
    template = (ROOT / "template.yaml").read_text()
    (project.home.parent / "template.yaml").write_text(template.replace("\nResources:\n", f"\nResources:\n{added}\n"))


def test_function_route_table_bucket_and_queue(project: Sluice) -> None:
    write_template(project, ADDED)
    started = project.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    local = project.local
    credential = {"Authorization": f"Bearer {local['api_key']}"}
    answer = httpx.get(local["api_url"] + "/echo/w%C3%B6rd", headers=credential, timeout=30)
    assert answer.json() == {"word": "wörd", "greeting": "hello from sluice-EchoTable", "in_time": True}
    assert httpx.get(local["api_url"] + "/echo/word", timeout=30).status_code == 401
    session, url = isolated_session(), local["aws_endpoint_url"]
    assert "sluice-EchoTable" in local_client(session, "dynamodb", url).list_tables()["TableNames"]
    assert "sluice-echobucket-000000000000" in str(local_client(session, "s3", url).list_buckets()["Buckets"])
    assert "sluice-EchoQueue" in str(local_client(session, "sqs", url).list_queues()["QueueUrls"])


def test_a_resource_type_that_is_not_known_stops_the_start_with_its_name(project: Sluice) -> None:
    write_template(project, "  Cache: { Type: AWS::ElastiCache::ServerlessCache, Properties: { Engine: valkey } }")
    done = project.run("up", "--detach")
    assert done.returncode == 1
    assert "Cache is of type AWS::ElastiCache::ServerlessCache" in done.stderr
