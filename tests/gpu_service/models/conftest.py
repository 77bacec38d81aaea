"""A real HTTP S3 (moto's server) with an empty bucket."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from moto.server import ThreadedMotoServer

from shared.adapters.aws import client
from tests.gpu_service.models.bucket import BUCKET, CREDENTIALS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3Client]":
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    made = client("s3", endpoint_url=endpoint)
    made.create_bucket(Bucket=BUCKET)
    yield made
    for page in made.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            made.delete_object(Bucket=BUCKET, Key=item["Key"])
    made.delete_bucket(Bucket=BUCKET)
    made.close()
