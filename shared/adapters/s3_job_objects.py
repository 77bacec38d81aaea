"""Bodies and results of jobs that are objects of the data bucket: `jobs/in/…` and `jobs/out/…`."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.errors import PayloadTooLarge, SourceNotFound
from shared.domain.jobs import ObjectRef

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WHAT: Final = "The store of jobs' objects"
# Without s3:ListBucket a missing object is a forbidden one. Source: Amazon S3 API Reference, "GetObject".
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "AccessDenied", "403", "404"})


class S3JobObjects:
    """Implements `shared.domain.ports.JobObjects`; the client, which takes some 50 ms to make, is made when needed.

    Objects go by the bucket's rule for their prefix, a day after the jobs that they belong to.
    """

    def __init__(self, client: "Callable[[], S3Client]", bucket: str) -> None:
        self._make = client
        self._bucket = bucket

    @cached_property
    def _client(self) -> "S3Client":
        return self._make()

    def put_body(self, tenant: str, job_id: str, body: bytes, media_type: str) -> ObjectRef:
        """One PutObject."""
        return self._put(f"jobs/in/{tenant}/{job_id}", body, media_type)

    def put_result(self, tenant: str, job_id: str, owner: str, body: bytes, media_type: str) -> ObjectRef:
        """One PutObject."""
        return self._put(f"jobs/out/{tenant}/{job_id}/{owner}", body, media_type)

    def read(self, ref: ObjectRef, max_bytes: int) -> bytes:
        """One GetObject, of which nothing is read if it is too large."""
        with aws_errors(_WHAT):
            try:
                found = self._client.get_object(**_place(ref))
            except ClientError as error:
                if error_code(error) in _MISSING:
                    raise SourceNotFound(f"There is no object {ref.uri}, or it may not be read.") from error
                raise
            with found["Body"] as body:
                if found["ContentLength"] > max_bytes:
                    raise PayloadTooLarge(f"{ref.uri} has {found['ContentLength']} bytes; the limit is {max_bytes}.")
                return body.read()

    def url(self, ref: ObjectRef, seconds: int, *, media_type: str, file_name: str) -> str:
        """No call: an address with a signature. It ends with the credentials that signed it, if they end before."""
        shown = "".join(
            letter if (letter.isalnum() and letter.isascii()) or letter in "._-" else "_" for letter in file_name
        )
        answer = {
            "ResponseContentType": media_type,
            "ResponseContentDisposition": f'attachment; filename="{shown}"',
        }
        return self._client.generate_presigned_url("get_object", Params={**_place(ref), **answer}, ExpiresIn=seconds)

    def _put(self, key: str, body: bytes, media_type: str) -> ObjectRef:
        with aws_errors(_WHAT):
            put = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=media_type)
        return ObjectRef(self._bucket, key, put.get("VersionId"))


def _place(ref: ObjectRef) -> Any:
    version = {} if ref.version_id is None else {"VersionId": ref.version_id}
    return {"Bucket": ref.bucket, "Key": ref.key, **version}
