"""Clients of the local AWS services."""

import socket
from typing import TYPE_CHECKING

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from tests.conftest import LocalAws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="session")
def dynamodb(local_aws: LocalAws, aws_session: Session) -> "DynamoDBClient":
    return client("dynamodb", session=aws_session, endpoint_url=local_aws.url, max_pool=32)


@pytest.fixture(scope="session")
def s3(local_aws: LocalAws, aws_session: Session) -> "S3Client":
    return client("s3", session=aws_session, endpoint_url=local_aws.url)


@pytest.fixture
def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
