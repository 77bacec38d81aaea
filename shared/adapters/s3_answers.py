"""Stored answers that are too large for an item, in an S3 bucket: `idempotency/<record id>/<owner token>`.

An owner writes below a token of its own, so two of them cannot write over each other; what no record names in the end
goes with the bucket's lifecycle rule. The record, not the bucket, says which bytes are right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX: Final = "idempotency/"
# Who may read objects and not list the bucket is told "access denied" for one that is not there.
# Source: Amazon S3 API, GetObject, "Permissions".
_MISSING = frozenset({"NoSuchKey", "404", "AccessDenied"})


class AnswerLost(Exception):
    """A stored answer cannot be had any more: its object is gone, damaged, or sealed with another secret."""


@dataclass(frozen=True, slots=True)
class AnswerObject:
    """What a record says of its object: `sha256` in hexadecimal, `size` in bytes."""

    key: str
    sha256: str
    size: int


class S3Answers:
    """`client` makes the client when an answer first needs it: most are small. Raises botocore's errors."""

    def __init__(self, client: "Callable[[], S3Client]", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, record_id: str, owner: str, content: bytes) -> AnswerObject:
        """Store `content`."""
        key = f"{PREFIX}{record_id}/{owner}"
        self._client().put_object(Bucket=self._bucket, Key=key, Body=content, ContentType="application/octet-stream")
        return AnswerObject(key, sha256(content).hexdigest(), len(content))

    def get(self, stored: AnswerObject) -> bytes:
        """The content; AnswerLost if there is none or a byte differs."""
        try:
            found = self._client().get_object(Bucket=self._bucket, Key=stored.key)
        except ClientError as error:
            if error_code(error) in _MISSING:
                raise AnswerLost("its object is gone") from error
            raise
        with found["Body"] as body:
            # One byte more than promised is enough to tell that it is another object.
            content = body.read(stored.size + 1)
        if sha256(content).hexdigest() != stored.sha256:
            raise AnswerLost("its object has other bytes")
        return content
