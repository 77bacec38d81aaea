"""The contract of `JobObjects`, on the fake and on S3; what presigned addresses give to whom."""

from typing import TYPE_CHECKING

import httpx
import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.s3_job_objects import S3JobObjects
from shared.domain.errors import BackendUnavailable, PayloadTooLarge, SourceNotFound
from shared.domain.jobs import ObjectRef, new_job_id
from shared.domain.ports import JobObjects
from tests.conftest import LocalAws
from tests.fakes import MemoryJobObjects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BODY = bytes(range(256)) * 400


def bucket_of(aws: LocalAws) -> str:
    return aws.stack.resources["DataBucket"].name


@pytest.fixture(params=["fake", "s3"])
def objects(request: pytest.FixtureRequest) -> JobObjects:
    if request.param == "fake":
        return MemoryJobObjects()
    s3: S3Client = request.getfixturevalue("s3")
    return S3JobObjects(lambda: s3, bucket_of(request.getfixturevalue("local_aws")))


def test_bodies_and_results_come_back(objects: JobObjects) -> None:
    job_id = new_job_id()
    body = objects.put_body("acme", job_id, BODY, "text/csv")
    one = objects.put_result("acme", job_id, "one", b"1", "text/csv")
    two = objects.put_result("acme", job_id, "two", b"2", "text/csv")
    assert [objects.read(ref, len(BODY)) for ref in (body, one, two)] == [BODY, b"1", b"2"]
    assert body.key == f"jobs/in/acme/{job_id}"
    assert [ref.key for ref in (one, two)] == [f"jobs/out/acme/{job_id}/{owner}" for owner in ("one", "two")]


def test_what_is_too_large_is_not_read(objects: JobObjects) -> None:
    ref = objects.put_body("acme", new_job_id(), BODY, "text/csv")
    with pytest.raises(PayloadTooLarge, match=str(len(BODY))):
        objects.read(ref, len(BODY) - 1)


def test_an_unknown_object_is_told_so(objects: JobObjects) -> None:
    ref = objects.put_body("acme", new_job_id(), BODY, "text/csv")
    for unknown in (ObjectRef(ref.bucket, f"{ref.key}-x"), ObjectRef("no-such-bucket", ref.key)):
        with pytest.raises(SourceNotFound):
            objects.read(unknown, 1_000_000)


def test_the_version_that_was_named_is_read(local_aws: LocalAws, s3: "S3Client") -> None:
    objects = S3JobObjects(lambda: s3, bucket_of(local_aws))
    job_id = new_job_id()
    first = objects.put_body("acme", job_id, b"first", "text/csv")
    second = objects.put_body("acme", job_id, b"second", "text/csv")
    assert first.version_id
    assert (objects.read(first, 10), objects.read(second, 10)) == (b"first", b"second")
    with pytest.raises(SourceNotFound):
        objects.read(ObjectRef(first.bucket, first.key, "00000000-0000-0000-0000-000000000000"), 10)


def test_an_address_gives_the_object_as_a_download(local_aws: LocalAws, s3: "S3Client") -> None:
    objects = S3JobObjects(lambda: s3, bucket_of(local_aws))
    ref = objects.put_result("acme", new_job_id(), "one", BODY, "application/octet-stream")
    objects.put_result("acme", ref.key.split("/")[3], "one", b"another", "text/plain")
    url = objects.url(ref, 60, media_type="text/csv", file_name='../a"b\r\nü.csv')
    assert "X-Amz-Signature" in url
    answer = httpx.get(url)
    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename=".._a_b___.csv"'
    assert httpx.get(url.replace("text%2Fcsv", "text%2Fhtml")).status_code == 403


def test_a_store_that_is_away_is_told_so(aws_session: Session, free_port: int) -> None:
    away = client("s3", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    objects = S3JobObjects(lambda: away, "bucket")
    with pytest.raises(BackendUnavailable):
        objects.put_body("acme", new_job_id(), b"", "text/csv")
    with pytest.raises(BackendUnavailable):
        objects.read(ObjectRef("bucket", "key"), 1)
