"""Heads of objects, and addresses of uploads, on the S3 of the local AWS services."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import httpx
import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.s3_objects import S3Objects
from shared.adapters.s3_uploads import S3Uploads
from shared.domain.errors import BackendUnavailable, SourceNotFound
from shared.domain.jobs import ObjectRef
from shared.domain.ports import ObjectStore
from shared.domain.uploads import NewUpload, ObjectHead
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.memory_objects import MemoryObjects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BODY = b"a,b\n1,2\n"
DIGEST = hashlib.sha256(BODY)
NEW = NewUpload(len(BODY), "text/csv; charset=utf-8", DIGEST.hexdigest(), "orders.csv")
SIGNED = "content-length;content-type;host;if-none-match;x-amz-checksum-sha256;x-amz-meta-name"

Put = Callable[[ObjectRef], str | None]


@pytest.fixture
def bucket(local_aws: LocalAws) -> str:
    """The data bucket: it has versions."""
    return local_aws.stack.resources["DataBucket"].name


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, s3: "S3Client") -> tuple[ObjectStore, Put]:
    """A store, and what puts `BODY` there; it gives the version."""
    if request.param == "s3":

        def put(ref: ObjectRef) -> str | None:
            put = s3.put_object(
                Bucket=ref.bucket,
                Key=ref.key,
                Body=BODY,
                ContentType="text/csv",
                ChecksumAlgorithm="SHA256",
                Metadata={"name": "n"},
            )
            return put.get("VersionId")

        return S3Objects(lambda: s3), put
    memory, versions = MemoryObjects(), iter("abc")

    def remember(ref: ObjectRef) -> str | None:
        version = next(versions)
        head = ObjectHead(len(BODY), "text/csv", time.time(), '"e"', version, DIGEST.hexdigest(), "n")
        memory.put(ref, head)
        return version

    return memory, remember


def test_a_head_is_of_the_newest_version_or_of_the_one_that_is_named(
    store: tuple[ObjectStore, Put], bucket: str
) -> None:
    objects, put = store
    ref = ObjectRef(bucket, f"batch/in/{unique('t')}/größe 1+1.csv")
    with pytest.raises(SourceNotFound):
        objects.head(ref)
    first, second = put(ref), put(ref)
    found = objects.head(ref)
    assert (found.size, found.media_type, found.sha256, found.name) == (8, "text/csv", DIGEST.hexdigest(), "n")
    assert abs(found.modified_at - time.time()) < 60
    assert found.version_id == second
    assert objects.head(ObjectRef(ref.bucket, ref.key, first)).version_id == first
    with pytest.raises(SourceNotFound):
        objects.head(ObjectRef(ref.bucket, ref.key, "11111111-1111-4111-8111-111111111111"))
    with pytest.raises(SourceNotFound):
        objects.head(ObjectRef(unique("no-bucket"), "k"))


def test_a_bucket_without_versions_names_none(s3: "S3Client") -> None:
    name = unique("plain")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"")
    found = S3Objects(lambda: s3).head(ObjectRef(name, "k"))
    assert (found.version_id, found.size, found.name, found.sha256) == (None, 0, None, None)


def test_a_store_that_is_away_is_no_missing_object(aws_session: Session, free_port: int) -> None:
    away = client("s3", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable):
        S3Objects(lambda: away).head(ObjectRef("b", "k"))


def address(s3: "S3Client", bucket: str, new: NewUpload = NEW) -> tuple[ObjectRef, str, dict[str, str]]:
    ref = ObjectRef(bucket, f"uploads/{unique('t')}/u")
    url, headers = S3Uploads(lambda: s3).put_url(ref, new, 900)
    return ref, url, dict(headers)


def test_all_that_is_announced_is_a_signed_header(s3: "S3Client", bucket: str) -> None:
    _, url, headers = address(s3, bucket)
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-SignedHeaders"] == [SIGNED]
    assert query["X-Amz-Expires"] == ["900"]
    # And none of it a parameter, which would bind nothing.
    assert {name for name in query if not name.startswith("X-Amz-")} == set()
    assert headers == {
        "Content-Length": "8",
        "Content-Type": "text/csv; charset=utf-8",
        "x-amz-checksum-sha256": b64encode(DIGEST.digest()).decode(),
        "If-None-Match": "*",
        "x-amz-meta-name": "orders.csv",
    }


@pytest.mark.parametrize(
    ("region", "host"),
    [("us-east-1", "data.s3.amazonaws.com"), ("eu-central-1", "data.s3.eu-central-1.amazonaws.com")],
)
def test_addresses_on_aws_name_the_region_s_host_and_are_signed_in_the_same_way(region: str, host: str) -> None:
    """In us-east-1 botocore would presign with version 2 of the signature, elsewhere for a host that redirects."""
    session = Session()
    session.set_credentials("AKIAEXAMPLE", "secret", "token")
    session.set_config_variable("region", region)
    on_aws = client("s3", session=session)
    url = urlsplit(S3Uploads(lambda: on_aws).put_url(ObjectRef("data", "uploads/acme/u"), NEW, 900)[0])
    assert (url.scheme, url.netloc, url.path) == ("https", host, "/uploads/acme/u")
    query = parse_qs(url.query)
    assert query["X-Amz-SignedHeaders"] == [SIGNED]
    assert query["X-Amz-Security-Token"] == ["token"]


def test_the_announced_content_is_taken_once(s3: "S3Client", bucket: str) -> None:
    ref, url, headers = address(s3, bucket)
    assert httpx.put(url, content=BODY, headers=headers).status_code == 200
    head = S3Objects(lambda: s3).head(ref)
    assert (head.size, head.media_type, head.sha256, head.name) == (8, NEW.media_type, NEW.sha256, "orders.csv")
    again = httpx.put(url, content=BODY, headers=headers)
    assert (again.status_code, "PreconditionFailed" in again.text) == (412, True)
    assert S3Objects(lambda: s3).head(ref).version_id == head.version_id


@pytest.mark.parametrize(
    ("changed", "content", "status", "code"),
    [
        ({"Content-Length": "7"}, BODY[:7], 403, "SignatureDoesNotMatch"),
        ({"Content-Length": "9"}, BODY + b"\n", 403, "SignatureDoesNotMatch"),
        ({"Content-Type": "text/html"}, BODY, 403, "SignatureDoesNotMatch"),
        ({"x-amz-checksum-sha256": b64encode(bytes(32)).decode()}, BODY, 403, "SignatureDoesNotMatch"),
        ({"x-amz-meta-name": "x.html"}, BODY, 403, "SignatureDoesNotMatch"),
        ({"If-None-Match": "x"}, BODY, 403, "SignatureDoesNotMatch"),
        ({}, BODY[::-1], 400, "BadDigest"),
        ({"x-amz-meta-more": "x"}, BODY, 403, "AccessDenied"),
    ],
)
def test_other_content_is_refused(
    s3: "S3Client", bucket: str, changed: dict[str, str], content: bytes, status: int, code: str
) -> None:
    ref, url, headers = address(s3, bucket)
    refused = httpx.put(url, content=content, headers={**headers, **changed})
    assert (refused.status_code, f"<Code>{code}</Code>" in refused.text) == (status, True)
    with pytest.raises(SourceNotFound):
        S3Objects(lambda: s3).head(ref)


def test_an_address_ends(s3: "S3Client", bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.now(UTC) - timedelta(seconds=901))
    _, url, headers = address(s3, bucket)
    refused = httpx.put(url, content=BODY, headers=headers)
    assert (refused.status_code, "Request has expired" in refused.text) == (403, True)


def test_an_address_is_for_one_key(s3: "S3Client", bucket: str) -> None:
    ref, url, headers = address(s3, bucket)
    elsewhere = url.replace(ref.key, f"uploads/{unique('t')}/u")
    assert httpx.put(elsewhere, content=BODY, headers=headers).status_code == 403


def test_a_name_may_be_left_out(s3: "S3Client", bucket: str) -> None:
    new = NewUpload(NEW.size, NEW.media_type, NEW.sha256)
    ref, url, headers = address(s3, bucket, new)
    assert httpx.put(url, content=BODY, headers=headers).status_code == 200
    assert S3Objects(lambda: s3).head(ref).name is None
