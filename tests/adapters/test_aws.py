"""The client factory: bounds, endpoints; and the status of an endpoint."""

from typing import Any
from uuid import uuid4

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.backends.sagemaker_realtime import endpoint_status
from shared.adapters.backends.sagemaker_wire import decode_attributes, encode_attributes
from shared.domain.errors import BackendUnavailable
from tests.conftest import LocalAws


def test_every_client_is_bounded(aws_session: Session) -> None:
    bounded = client("dynamodb", session=aws_session, connect_timeout=0.5, read_timeout=1.5, retries=1, max_pool=3)
    config: Any = bounded.meta.config  # the stubs do not name the options
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (0.5, 1.5, 3)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}
    assert config.tcp_keepalive is True


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"])
def test_an_endpoint_in_the_environment_counts_unless_it_is_empty(
    aws_session: Session, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv(variable, "")
    assert client("dynamodb", session=aws_session).meta.endpoint_url == "https://dynamodb.us-east-1.amazonaws.com"
    assert client("dynamodb", session=aws_session, endpoint_url="").meta.endpoint_url.startswith("https://")
    monkeypatch.setenv(variable, "http://127.0.0.1:1234")
    assert client("dynamodb", session=aws_session).meta.endpoint_url == "http://127.0.0.1:1234"
    chosen = client("dynamodb", session=aws_session, endpoint_url="http://127.0.0.1:5678")
    assert chosen.meta.endpoint_url == "http://127.0.0.1:5678"


def test_buckets_are_in_the_path_where_the_endpoint_is_not_awss(
    aws_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://localhost:4566")
    local = client("s3", session=aws_session).generate_presigned_url("get_object", {"Bucket": "some", "Key": "k"})
    assert local.startswith("http://localhost:4566/some/k?")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    real = client("s3", session=aws_session).generate_presigned_url("get_object", {"Bucket": "some", "Key": "k"})
    assert real.startswith("https://some.s3.")


def test_the_status_of_an_endpoint(local_aws: LocalAws, aws_session: Session, free_port: int) -> None:
    sagemaker = client("sagemaker", session=aws_session, endpoint_url=local_aws.url)
    name = f"endpoint-{uuid4().hex[:8]}"
    assert endpoint_status(sagemaker, name) == "Missing"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::000000000000:role/r")
    variant = {"VariantName": "main", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])  # type: ignore[list-item]
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert endpoint_status(sagemaker, name) == "InService"
    dead = client("sagemaker", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable):
        endpoint_status(dead, name)


def test_attributes_survive_the_way() -> None:
    attributes = {"model": "m", "tenant": "a;b=c %", "empty": ""}
    assert decode_attributes(encode_attributes(attributes)) == attributes
    assert decode_attributes(" Model = m ;x;model=other;;tenant=a%3Bb") == {"model": "m", "tenant": "a;b"}
