"""Addresses of uploads: presigned PUTs that S3 takes with exactly the content that was announced, and once.

Everything that is announced is a signed header: `Content-Length`, `Content-Type`, `x-amz-checksum-sha256` (S3 refuses a
body that does not match), `If-None-Match: *` (S3 refuses a second PUT, so an upload never changes) and the name.
Source: AWS Signature Version 4, "Authenticating Requests: Using Query Parameters".
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.aws import aws_errors
from shared.adapters.s3_objects import NAME_HEADER, NAME_KEY
from shared.domain.jobs import ObjectRef
from shared.domain.uploads import NewUpload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SHA256: Final = "x-amz-checksum-sha256"


class S3Uploads:
    """Implements `shared.domain.ports.UploadAddresses`; `client` makes the client when a request first needs it.

    The address works as long as the credentials of the process do: those of a Lambda function's role last for hours.
    """

    def __init__(self, client: "Callable[[], S3Client]") -> None:
        self._make = client

    @cached_property
    def _client(self) -> "S3Client":
        return self._make()

    def put_url(self, ref: ObjectRef, new: NewUpload, seconds: int) -> tuple[str, Mapping[str, str]]:
        """The address, and the headers to send; made here, without a call. BackendError without credentials."""
        headers = {
            "Content-Length": str(new.size),
            "Content-Type": new.media_type,
            _SHA256: b64encode(bytes.fromhex(new.sha256)).decode(),
            "If-None-Match": "*",
        }
        params: dict[str, Any] = {
            "Bucket": ref.bucket,
            "Key": ref.key,
            "ContentLength": new.size,
            "ContentType": new.media_type,
            "ChecksumSHA256": headers[_SHA256],
            "IfNoneMatch": "*",
        }
        if new.name is not None:
            headers[NAME_HEADER] = new.name
            params["Metadata"] = {NAME_KEY: new.name}
        with aws_errors("The object store"):
            url = self._client.generate_presigned_url("put_object", Params=params, ExpiresIn=seconds)
        return url, headers
