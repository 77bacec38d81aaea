"""`sluice uploads`: from the command to the S3 of the local AWS services."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from infra.cli.transfers import media_type_of, name_of
from shared.adapters.aws import client
from shared.adapters.s3_objects import S3Objects
from shared.adapters.s3_uploads import S3Uploads
from shared.domain.jobs import ObjectRef, new_job_id
from shared.domain.uploads import NewUpload, Upload, UploadAddress
from shared.schemas.uploads import CreatedUpload, UploadDocument, UploadRequest
from tests.cli.conftest import Cli, Server
from tests.conftest import LocalAws

CONTENT = bytes(range(256)) * 10_000
NEW = NewUpload(len(CONTENT), "application/x-npy", hashlib.sha256(CONTENT).hexdigest(), "my_rows.npy")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my rows.npy"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def s3(local_aws: LocalAws, aws_session: Session) -> Any:
    return client("s3", session=aws_session, endpoint_url=local_aws.url)


@pytest.fixture
def ref(local_aws: LocalAws) -> ObjectRef:
    return ObjectRef(local_aws.stack.resources["DataBucket"].name, f"uploads/cli/{new_job_id()}")


def serve(server: Server, s3: Any, ref: ObjectRef, new: NewUpload = NEW) -> str:
    """Answer as the API does; the id."""
    upload_id = ref.key.rpartition("/")[2]
    url, headers = S3Uploads(lambda: s3).put_url(ref, new, 900)
    created = CreatedUpload.of(UploadAddress(upload_id, url, headers, 2_000_000_000))
    server.on("POST /v1/uploads", created.model_dump(mode="json"), 201)
    s3.put_object(Bucket=ref.bucket, Key=f"{ref.key}-seen", Body=b"x")
    head = S3Objects(lambda: s3).head(ObjectRef(ref.bucket, f"{ref.key}-seen"))
    document = UploadDocument.of(Upload(upload_id, head, 2_000_000_000))
    server.on(f"GET /v1/uploads/{upload_id}", document.model_dump(mode="json"))
    return upload_id


def test_a_file_is_announced_and_goes_to_storage(cli: Cli, server: Server, file: Path, s3: Any, ref: ObjectRef) -> None:
    upload_id = serve(server, s3, ref)
    result = cli("uploads", "put", str(file))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == upload_id
    asked = UploadRequest.model_validate_json(server.requests[0].body)
    assert asked.to_new() == NEW
    assert s3.get_object(Bucket=ref.bucket, Key=ref.key)["Body"].read() == CONTENT
    # Nothing of the content passed the API, and the key did not go to storage.
    assert [request.method for request in server.requests] == ["POST", "GET"]


def test_json_is_the_document_of_the_upload(cli: Cli, server: Server, file: Path, s3: Any, ref: ObjectRef) -> None:
    upload_id = serve(server, s3, ref)
    assert cli.json("uploads", "put", str(file))["upload_id"] == upload_id


def test_what_storage_refuses_is_told(cli: Cli, server: Server, file: Path, s3: Any, ref: ObjectRef) -> None:
    """As when the file was changed while it was sent."""
    serve(server, s3, ref)
    file.write_bytes(CONTENT[::-1])
    result = cli("uploads", "put", str(file))
    assert (result.exit_code, "BadDigest" in result.stderr) == (1, True)
    assert s3.list_objects_v2(Bucket=ref.bucket, Prefix=f"{ref.key}").get("KeyCount") == 1


def test_storage_that_is_away_is_told_without_the_signature(
    cli: Cli, server: Server, file: Path, s3: Any, ref: ObjectRef
) -> None:
    serve(server, s3, ref)
    status, headers, body = server.answers["POST /v1/uploads"]
    away = {**json.loads(body), "url": "http://127.0.0.1:1/b/k?X-Amz-Signature=secret"}
    server.on("POST /v1/uploads", away, status, headers)
    result = cli("uploads", "put", str(file))
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr
    assert "secret" not in result.stderr


def test_files_that_cannot_be_uploaded(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    huge = tmp_path / "huge"
    with huge.open("wb") as sparse:
        sparse.truncate(5 * 1024**3 + 1)
    for path in (empty, huge, tmp_path / "none", tmp_path):
        assert cli("uploads", "put", str(path)).exit_code == 2


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("rows.csv.gz", "rows.csv.gz"),
        ("größe 1.csv", "gr__e_1.csv"),
        (".hidden.csv", "_hidden.csv"),
        ("-x", "_x"),
        ("y" * 200 + ".csv", "y" * 124 + ".csv"),
    ],
)
def test_names_are_those_of_files(given: str, name: str) -> None:
    assert name_of(Path("/somewhere") / given) == name
    UploadRequest(size=1, media_type=media_type_of(Path(given)), sha256="0" * 64, name=name)
