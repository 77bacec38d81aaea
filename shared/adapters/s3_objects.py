"""What is known of objects in S3 without reading them."""

from base64 import b64decode
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors
from shared.domain.errors import SourceNotFound
from shared.domain.jobs import ObjectRef
from shared.domain.uploads import ObjectHead

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A HEAD has no body, so S3's code is the status: 404, or 403 where the role may not list the bucket (the same answer as
# for an object that it may not read); 405 for a deleted version, 400 for an object under a key of its owner's (SSE-C).
_UNREADABLE: Final = frozenset({400, 403, 404, 405})
_SHA256_BYTES: Final = 32
NAME_KEY: Final = "name"
NAME_HEADER: Final = f"x-amz-meta-{NAME_KEY}"


class S3Objects:
    """Implements `shared.domain.ports.ObjectStore`; `client` makes the client when a request first needs it."""

    def __init__(self, client: "Callable[[], S3Client]") -> None:
        self._make = client

    @cached_property
    def _client(self) -> "S3Client":
        return self._make()

    def head(self, ref: ObjectRef) -> ObjectHead:
        """One HeadObject; SourceNotFound, BackendError."""
        version: dict[str, Any] = {"VersionId": ref.version_id} if ref.version_id else {}
        with aws_errors("The object store"):
            try:
                found = self._client.head_object(Bucket=ref.bucket, Key=ref.key, ChecksumMode="ENABLED", **version)
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _UNREADABLE:
                    raise SourceNotFound("There is no such object, or it cannot be read.") from error
                raise
        return ObjectHead(
            size=found["ContentLength"],
            media_type=found.get("ContentType") or "application/octet-stream",
            modified_at=found["LastModified"].timestamp(),
            etag=found["ETag"],
            # Without versions S3 names none, or calls the only one "null".
            version_id=None if found.get("VersionId") in {None, "null"} else found["VersionId"],
            sha256=_hex(found.get("ChecksumSHA256")),
            # Where it is lower case whatever was on the way: `Metadata` keeps what case a server gives a header.
            name=found["ResponseMetadata"]["HTTPHeaders"].get(NAME_HEADER),
        )


def _hex(checksum: str | None) -> str | None:
    """A checksum as S3 gives it (base64); that of an object in parts is one over its parts' and ends in their count."""
    if not checksum or "-" in checksum:
        return None
    digest = b64decode(checksum)
    return digest.hex() if len(digest) == _SHA256_BYTES else None
