import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.resources import ProvisionError, create_endpoint, implemented_services, provision
from infra.local.stack import StackSpec
from infra.local.template import load_stack
from tests.local.test_aws_services import free_port, running_services

TEMPLATE = """\
    Parameters: {Receives: {Type: Number, Default: 3}}
    Resources:
      Jobs:
        Type: AWS::DynamoDB::Table
        Properties:
          BillingMode: PAY_PER_REQUEST
          AttributeDefinitions:
            - {AttributeName: tenant, AttributeType: S}
            - {AttributeName: job, AttributeType: S}
            - {AttributeName: state, AttributeType: S}
          KeySchema: [{AttributeName: tenant, KeyType: HASH}, {AttributeName: job, KeyType: RANGE}]
          GlobalSecondaryIndexes:
            - IndexName: by-state
              KeySchema: [{AttributeName: state, KeyType: HASH}]
              Projection: {ProjectionType: ALL}
          StreamSpecification: {StreamViewType: NEW_AND_OLD_IMAGES}
          TimeToLiveSpecification: {AttributeName: expires, Enabled: true}
          PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
          SSESpecification: {SSEEnabled: true}
      Drop: {Type: AWS::S3::Bucket, Properties: {VersioningConfiguration: {Status: Enabled}}}
      Work:
        Type: AWS::SQS::Queue
        Properties:
          VisibilityTimeout: 77
          RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: !Ref Receives}
      Dead: {Type: AWS::SQS::Queue, Properties: {MessageRetentionPeriod: 1209600}}
      Ordered: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true, ContentBasedDeduplication: true}}
      News: {Type: AWS::SNS::Topic, Properties: {DisplayName: News}}
      Model:
        Type: AWS::SageMaker::Model
        Properties:
          ExecutionRoleArn: arn:aws:iam::000000000000:role/r
          PrimaryContainer: {Image: local, Environment: {SLUICE_MODEL_URI: !Sub "s3://${Drop}/models/"}}
      Config:
        Type: AWS::SageMaker::EndpointConfig
        Properties:
          ProductionVariants:
            - VariantName: main
              ModelName: !GetAtt Model.ModelName
              InstanceType: ml.g5.xlarge
              InitialInstanceCount: "1"
              InitialVariantWeight: 1
      Endpoint: {Type: AWS::SageMaker::Endpoint, Properties: {EndpointConfigName: !GetAtt Config.EndpointConfigName}}
"""


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    with running_services("http://127.0.0.1:9") as url:
        yield url


def stack_named(name: str, folder: Path, text: str = TEMPLATE) -> StackSpec:
    path = folder / "template.yaml"
    path.write_text(dedent(text))
    return load_stack(path, stack_name=name)


def client(service: str, url: str) -> Any:
    return local_client(isolated_session(), service, url)


def test_everything_is_created_with_its_settings_and_a_second_time_changes_nothing(
    aws_url: str, tmp_path: Path
) -> None:
    stack = stack_named("all", tmp_path)
    lines: list[str] = []
    provision(stack, aws_url, on_progress=lines.append)
    client("dynamodb", aws_url).put_item(
        TableName="all-Jobs", Item={"tenant": {"S": "t"}, "job": {"S": "1"}, "state": {"S": "new"}}
    )
    provision(stack, aws_url, on_progress=lines.append)
    assert len(lines) == 2 * 6
    assert "Drop: bucket all-drop-000000000000" in lines

    dynamodb = client("dynamodb", aws_url)
    table = dynamodb.describe_table(TableName="all-Jobs")["Table"]
    assert table["ItemCount"] == 1
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == ["by-state"]
    assert table["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    ttl = dynamodb.describe_time_to_live(TableName="all-Jobs")["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires")
    found = dynamodb.query(
        TableName="all-Jobs",
        IndexName="by-state",
        KeyConditionExpression="#s = :s",
        ExpressionAttributeNames={"#s": "state"},
        ExpressionAttributeValues={":s": {"S": "new"}},
    )
    assert found["Count"] == 1

    s3 = client("s3", aws_url)
    assert s3.get_bucket_versioning(Bucket="all-drop-000000000000")["Status"] == "Enabled"


def test_queues_redrive_to_the_template_s_queue_and_their_arns_are_the_template_s(aws_url: str, tmp_path: Path) -> None:
    stack = stack_named("queues", tmp_path)
    provision(stack, aws_url, on_progress=lambda _: None)
    sqs = client("sqs", aws_url)

    def attributes(name: str) -> dict[str, str]:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        found: dict[str, str] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return found

    work, dead = attributes("queues-Work"), attributes("queues-Dead")
    assert work["VisibilityTimeout"] == "77"
    assert dead["QueueArn"] == "arn:aws:sqs:us-east-1:000000000000:queues-Dead"
    assert dead["QueueArn"] in work["RedrivePolicy"]
    assert '"maxReceiveCount": 3' in work["RedrivePolicy"].replace('"3"', "3")
    assert dead["MessageRetentionPeriod"] == "1209600"
    assert attributes("queues-Ordered.fifo")["ContentBasedDeduplication"] == "true"
    topics = client("sns", aws_url).list_topics()["Topics"]
    assert {"TopicArn": "arn:aws:sns:us-east-1:000000000000:queues-News"} in topics


def test_the_address_that_ref_gives_for_a_queue_reaches_it(aws_url: str, tmp_path: Path) -> None:
    stack = stack_named(
        "address",
        tmp_path,
        "Resources: {Work: {Type: AWS::SQS::Queue}}\nOutputs: {Url: {Value: !Ref Work}}",
    )
    provision(stack, aws_url, on_progress=lambda _: None)
    sqs = client("sqs", aws_url)
    sqs.send_message(QueueUrl=stack.outputs["Url"], MessageBody="hello")
    (message,) = sqs.receive_message(QueueUrl=stack.outputs["Url"])["Messages"]
    assert message["Body"] == "hello"


SECRETS = """\
    Resources:
      Pepper:
        Type: AWS::SecretsManager::Secret
        Properties: {Description: A key., GenerateSecretString: {PasswordLength: 64, ExcludePunctuation: true}}
      Login:
        Type: AWS::SecretsManager::Secret
        Properties:
          GenerateSecretString:
            SecretStringTemplate: '{"user": "me"}'
            GenerateStringKey: password
            PasswordLength: "20"
      Fixed: {Type: AWS::SecretsManager::Secret, Properties: {Name: given/name, SecretString: known}}
    Outputs: {Pepper: {Value: !Ref Pepper}, Login: {Value: !GetAtt Login.Id}, Fixed: {Value: !Ref Fixed}}
"""


def test_secrets_are_made_once_and_found_by_what_ref_gives(aws_url: str, tmp_path: Path) -> None:
    stack = stack_named("secret", tmp_path, SECRETS)
    secrets = client("secretsmanager", aws_url)

    def values() -> dict[str, str]:
        return {name: secrets.get_secret_value(SecretId=arn)["SecretString"] for name, arn in stack.outputs.items()}

    lines: list[str] = []
    provision(stack, aws_url, on_progress=lines.append)
    first = values()
    provision(stack, aws_url, on_progress=lambda _: None)
    assert values() == first
    assert "Pepper: secret secret-Pepper" in lines

    assert len(first["Pepper"]) == 64
    assert first["Pepper"].isalnum()
    login = json.loads(first["Login"])
    assert (login["user"], len(login["password"])) == ("me", 20)
    assert first["Fixed"] == "known"
    assert stack.outputs["Fixed"] == "arn:aws:secretsmanager:us-east-1:000000000000:secret:given/name-local0"
    assert secrets.describe_secret(SecretId=stack.outputs["Pepper"])["Description"] == "A key."


def test_a_secret_that_is_there_under_another_arn_is_an_error(aws_url: str, tmp_path: Path) -> None:
    client("secretsmanager", aws_url).create_secret(Name="elsewhere", SecretString="kept")
    text = "Resources: {Key: {Type: AWS::SecretsManager::Secret, Properties: {Name: elsewhere}}}"
    with pytest.raises(ProvisionError, match=r"gave Key the ARN .*:secret:elsewhere-.*elsewhere-local0"):
        provision(stack_named("moved", tmp_path, text), aws_url, on_progress=lambda _: None)


LOCKED = """\
    Parameters: {Days: {Type: Number, Default: 30}}
    Resources:
      Vault:
        Type: AWS::S3::Bucket
        Properties:
          ObjectLockEnabled: true
          ObjectLockConfiguration:
            ObjectLockEnabled: Enabled
            Rule: {DefaultRetention: {Mode: GOVERNANCE, Days: !Ref Days}}
      Plain: {Type: AWS::S3::Bucket, Properties: {ObjectLockEnabled: true}}
"""


def test_what_is_in_a_locked_bucket_cannot_be_deleted(aws_url: str, tmp_path: Path) -> None:
    stack = stack_named("locked", tmp_path, LOCKED)
    provision(stack, aws_url, on_progress=lambda _: None)
    s3, bucket = client("s3", aws_url), "locked-vault-000000000000"
    lock = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    retention = lock["Rule"]["DefaultRetention"]
    assert (lock["ObjectLockEnabled"], retention["Mode"], retention["Days"]) == ("Enabled", "GOVERNANCE", 30)
    for name in (bucket, "locked-plain-000000000000"):
        assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"

    written = s3.put_object(Bucket=bucket, Key="head", Body=b"1")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=bucket, Key="head", VersionId=written["VersionId"])
    provision(stack, aws_url, on_progress=lambda _: None)
    assert s3.get_object(Bucket=bucket, Key="head")["Body"].read() == b"1"


def test_the_endpoint_is_in_service_with_its_containers_environment(aws_url: str, tmp_path: Path) -> None:
    stack = stack_named("heavy", tmp_path)
    for _ in range(2):
        assert create_endpoint(stack, aws_url, on_progress=lambda _: None) is True
    sagemaker = client("sagemaker", aws_url)
    assert sagemaker.describe_endpoint(EndpointName="heavy-Endpoint")["EndpointStatus"] == "InService"
    container = sagemaker.describe_model(ModelName="heavy-Model")["PrimaryContainer"]
    assert container["Environment"] == {"SLUICE_MODEL_URI": "s3://heavy-drop-000000000000/models/"}
    (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName="heavy-Config")["ProductionVariants"]
    assert (variant["VariantName"], variant["InitialInstanceCount"]) == ("main", 1)


def test_a_table_that_is_there_with_other_keys_is_an_error(aws_url: str, tmp_path: Path) -> None:
    client("dynamodb", aws_url).create_table(
        TableName="other-Jobs",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    with pytest.raises(ProvisionError, match=r"other-Jobs .* exists already, with other keys"):
        provision(stack_named("other", tmp_path), aws_url, on_progress=lambda _: None)


def test_a_resource_that_the_endpoint_refuses_is_named(aws_url: str, tmp_path: Path) -> None:
    text = "Resources: {Bad: {Type: AWS::S3::Bucket, Properties: {BucketName: No_Such_Name!}}}"
    with pytest.raises(ProvisionError, match=r"did not create Bad \(AWS::S3::Bucket No_Such_Name!\)"):
        provision(stack_named("refused", tmp_path, text), aws_url, on_progress=lambda _: None)


def test_an_endpoint_where_nothing_answers_is_named(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ProvisionError, match=url):
        provision(stack_named("nobody", tmp_path), url, on_progress=lambda _: None)
    with pytest.raises(ProvisionError, match=f"No AWS endpoint answers at {url}"):
        create_endpoint(stack_named("nobody", tmp_path), url, on_progress=lambda _: None)


DYNAMODB_ONLY = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    '''Answers ListTables; anything else as DynamoDB Local does for what it does not know.'''
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        known = self.headers.get("X-Amz-Target", "").startswith("DynamoDB_")
        error = {"__type": "com.amazon.coral.service#UnknownOperationException", "message": ""}
        body = json.dumps({"TableNames": []} if known else error).encode()
        self.send_response(200 if known else 400)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_PUT = do_POST
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def dynamodb_only() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", DYNAMODB_ONLY, str(port)])
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="POST", headers={"X-Amz-Target": "DynamoDB_"}))
            break
        except OSError:
            time.sleep(0.02)
    yield url
    process.kill()
    process.wait()


def test_an_endpoint_without_sagemaker_does_not_stop_the_start(dynamodb_only: str, tmp_path: Path) -> None:
    assert implemented_services(dynamodb_only) == {"dynamodb"}
    lines: list[str] = []
    assert create_endpoint(stack_named("local", tmp_path), dynamodb_only, on_progress=lines.append) is False
    assert "does not implement SageMaker" in lines[0]
    bucket = stack_named("local", tmp_path, "Resources: {Drop: {Type: AWS::S3::Bucket}}")
    with pytest.raises(ProvisionError, match=r"did not create Drop .*does not implement this service"):
        provision(bucket, dynamodb_only, on_progress=lambda _: None)


def test_each_service_may_have_an_endpoint_of_its_own(aws_url: str, dynamodb_only: str, tmp_path: Path) -> None:
    bucket = "Resources: {Drop: {Type: AWS::S3::Bucket}}"
    endpoints = {"dynamodb": dynamodb_only, "s3": aws_url}
    provision(stack_named("split", tmp_path, bucket), endpoints, on_progress=lambda _: None)
    client("s3", aws_url).head_bucket(Bucket="split-drop-000000000000")


def test_the_users_own_aws_configuration_plays_no_part(
    aws_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", dead)
    monkeypatch.setenv("HTTP_PROXY", dead)
    monkeypatch.setenv("http_proxy", dead)
    provision(stack_named("mine", tmp_path), aws_url, on_progress=lambda _: None)
    dynamodb = client("dynamodb", aws_url)
    table = dynamodb.describe_table(TableName="mine-Jobs")["Table"]
    assert table["TableArn"] == "arn:aws:dynamodb:us-east-1:000000000000:table/mine-Jobs"
    credentials = isolated_session().get_credentials()
    assert credentials is not None
    assert credentials.access_key == "local"
