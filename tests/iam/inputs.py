"""Objects in every place that a tenant may have read, and jobs that name them."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from infra.local.aws_client import isolated_session, local_client
from shared.domain.jobs import ObjectRef, new_job_id
from shared.domain.uploads import upload_key
from tests.functions.support import CALLER, Function
from tests.iam.policies import THEIR_BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

JSON = "application/json"
BODY = b'{"instances": [[1, 2]]}'


def s3_client() -> "S3Client":
    """A client for the objects of the test itself."""
    client: S3Client = local_client(isolated_session(), "s3", os.environ["AWS_ENDPOINT_URL"])
    return client


def objects(
    environment: Mapping[str, str], tenant: str, name: str, body: bytes, media_type: str = JSON
) -> tuple[str, list[ObjectRef]]:
    """The id of an upload, and objects with that content in every place, the last of them in another bucket."""
    s3, bucket, upload_id = s3_client(), environment["SLUICE_DATA_BUCKET"], new_job_id()
    s3.create_bucket(Bucket=THEIR_BUCKET)
    s3.put_bucket_versioning(Bucket=THEIR_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    keys = [f"{place}/{tenant}/{name}" for place in ("batch/in", "batch/out", "jobs/out")]
    refs = []
    for where, key in [
        (bucket, upload_key(tenant, upload_id)),
        *((bucket, key) for key in keys),
        (THEIR_BUCKET, f"in/{tenant}/{name}"),
    ]:
        put = s3.put_object(Bucket=where, Key=key, Body=body, ContentType=media_type)
        refs.append(ObjectRef(where, key, put.get("VersionId")))
    return upload_id, refs


def drive_sources(environment: Mapping[str, str], function: Function, model: str) -> None:
    """Hand in jobs: with a small body, with one that is too large for an item, and with all kinds of references."""
    upload_id, refs = objects(environment, CALLER.tenant, f"{new_job_id()}.json", BODY)
    path = f"/v1/models/{model}/jobs"
    bodies = [BODY, BODY + b" " * 100_000, {"upload_id": upload_id}, *({"s3_uri": ref.uri} for ref in refs)]
    answers = [function("POST", path, route="/v1/models/{model}/jobs", body=body) for body in bodies]
    assert [answer.body for answer in answers if answer.status != 202] == []
