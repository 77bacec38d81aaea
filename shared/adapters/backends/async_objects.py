"""The objects in S3 through which asynchronous invocations get their inputs and give their answers.

They are looked at by their keys, which SageMaker tells or this module makes up of random bytes: nothing is ever listed.
Who may not list a bucket is told 403 for an object that is not there, so that counts as 404.
"""

import logging
import secrets
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from json import JSONDecoder
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from shared.adapters.aws import error_code
from shared.codecs.content.media import SAGEMAKER_BINARY
from shared.domain.errors import BackendError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from shared.adapters.backends.sagemaker_clients import SteppedClients
    from shared.adapters.backends.sagemaker_wire import Sent

_log = logging.getLogger(__name__)

INPUT_PREFIX: Final = "async/in/"
_MAX_FAILURE_BYTES: Final = 64 * 1024
_NOT_THERE: Final = frozenset({"NoSuchKey", "404", "AccessDenied", "403"})
_LONGEST_HEADER: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """An object that was read."""

    location: str
    stored_type: str
    content: bytes

    @property
    def media_type(self) -> str:
        """The content type of a stored answer, found out where S3 was not told it; BackendError if it cannot be.

        The JSON header of binary V2 ends where its first value does.
        """
        if self.stored_type.startswith((SAGEMAKER_BINARY, "application/json")):
            return self.stored_type
        try:
            _, end = JSONDecoder().raw_decode(self.content[:_LONGEST_HEADER].decode("latin-1"))
        except ValueError as error:
            raise BackendError("The container's answer is in no format of the inference protocol.") from error
        return "application/json" if end == len(self.content) else f"{SAGEMAKER_BINARY};json-header-size={end}"


class AsyncObjects:
    """Inputs go into `bucket` below `async/in/<hash of the tenant>/`; a byte more than `max_response_bytes` is read."""

    def __init__(self, clients: "SteppedClients[S3Client]", bucket: str, max_response_bytes: int) -> None:
        self._clients = clients
        self._bucket = bucket
        self._max_response_bytes = max_response_bytes

    def put(self, sent: "Sent", tenant: str, left_s: float) -> str:
        """Write an input under a key that nobody can guess; its `s3://` address."""
        owner = sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        key = f"{INPUT_PREFIX}{owner}/{secrets.token_hex(24)}"
        client = self._clients.get(left_s)
        client.put_object(Bucket=self._bucket, Key=key, Body=sent.body, ContentType=sent.content_type)
        return f"s3://{self._bucket}/{key}"

    def first_of(self, answer: str, failure: str | None, *, left_s: float) -> Found | None:
        """The answer if it is there, else the failure, else None."""
        client = self._clients.get(left_s)
        found = self._read(client, answer, self._max_response_bytes)
        if found is None and failure is not None:
            found = self._read(client, failure, _MAX_FAILURE_BYTES)
        return found

    def remove(self, *locations: str | None) -> None:
        """Delete objects; what cannot be deleted is left to the bucket's life cycle, and logged."""
        for location in locations:
            if location is None:
                continue
            bucket, key = _place(location)
            try:
                self._clients.get(0).delete_object(Bucket=bucket, Key=key)
            except (BotoCoreError, ClientError):
                _log.warning("an object of an asynchronous invocation is left to the life cycle", exc_info=True)

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def _read(self, client: "S3Client", location: str, limit: int) -> Found | None:
        bucket, key = _place(location)
        try:
            found = client.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error_code(error) in _NOT_THERE:
                return None
            raise
        with closing(found["Body"]) as stream:
            return Found(location, found.get("ContentType", ""), stream.read(limit + 1))


def _place(location: str) -> tuple[str, str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    if not location.startswith("s3://") or not bucket or not key:
        raise BackendError("SageMaker named no object of S3 for the answer.")
    return bucket, key
