"""Objects of runs over files in S3: read in ranges, written once, and joined without being held."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from botocore.exceptions import BotoCoreError, ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.batch_ports import Stored
from shared.domain.errors import BackendTimeout, BackendUnavailable, PayloadTooLarge, SourceNotFound
from shared.domain.jobs import ObjectRef

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_WHAT: Final = "The store of batches"
# Who may read objects and not list the bucket is told "access denied" for one that is not there.
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "403", "AccessDenied", "405", "MethodNotAllowed"})
_TAKEN: Final = frozenset({"PreconditionFailed", "412"})
_CONFLICT: Final = "ConditionalRequestConflict"
_MIB: Final = 1024 * 1024
# One GET takes as much; while it is worked on, the next one is on its way.
_WINDOW: Final = 4 * _MIB
# Source: Amazon S3 User Guide, "Multipart upload limits": parts have at least 5 MiB, and there are 10,000 at most.
_PIECE: Final = 8 * _MIB
_MOST_PIECES: Final = 9000
_DELETED_AT_ONCE: Final = 1000
_TRIES: Final = 3


class S3Ranges:
    """Implements `shared.codecs.batch.ranges.Ranges`: one version of an object, whatever is written meanwhile."""

    def __init__(self, client: "S3Client", stored: Stored) -> None:
        self._client = client
        self._stored = stored
        self.size = stored.size

    def read(self, offset: int, length: int) -> bytes:
        """One GET of exactly these bytes; SourceNotFound if the object is another by now."""
        if length <= 0:
            return b""
        for _ in range(_TRIES - 1):
            # What breaks while a body is read is not repeated by botocore.
            with suppress(BackendUnavailable, BackendTimeout):
                return self._read(offset, length)
        return self._read(offset, length)

    def stream(self, offset: int, length: int, chunk: int) -> Iterator[bytes]:
        """The bytes in order, in pieces of at most `chunk`; the next ones are fetched meanwhile."""
        end = offset + length
        starts = range(offset, end, _WINDOW)
        with ThreadPoolExecutor(1, thread_name_prefix="ranges") as ahead:
            following = ahead.submit(self.read, offset, min(_WINDOW, length)) if length > 0 else None
            for start in starts:
                assert following is not None  # noqa: S101  # there is one for each start
                window = following.result()
                after = start + _WINDOW
                following = ahead.submit(self.read, after, min(_WINDOW, end - after)) if after < end else None
                if len(window) <= chunk:
                    yield window
                else:
                    yield from (window[at : at + chunk] for at in range(0, len(window), chunk))

    def _read(self, offset: int, length: int) -> bytes:
        ref = self._stored.ref
        request: dict[str, Any] = {"Bucket": ref.bucket, "Key": ref.key}
        request |= {"VersionId": ref.version_id} if ref.version_id else {"IfMatch": self._stored.etag}
        with aws_errors(_WHAT), _missing(ref, _MISSING | _TAKEN):
            answer = self._client.get_object(**request, Range=f"bytes={offset}-{offset + length - 1}")
            with answer["Body"] as body:
                content: bytes = body.read()
        if len(content) != length:
            raise BackendUnavailable(f"{_WHAT} gave {len(content)} of {length} bytes.")
        return content


class S3Batches:
    """Implements `shared.domain.batch_ports.BatchObjects` on the data bucket."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def stat(self, ref: ObjectRef) -> Stored:
        """One HEAD."""
        request: dict[str, Any] = {"Bucket": ref.bucket, "Key": ref.key}
        if ref.version_id:
            request["VersionId"] = ref.version_id
        with aws_errors(_WHAT), _missing(ref):
            head = self._client.head_object(**request)
        return Stored(
            ref=ObjectRef(ref.bucket, ref.key, ref.version_id or _version(head.get("VersionId"))),
            size=head["ContentLength"],
            media_type=head.get("ContentType", ""),
            etag=head["ETag"],
            stored_at=head["LastModified"].timestamp(),
            metadata={name.lower(): value for name, value in head.get("Metadata", {}).items()},
        )

    def ranges(self, stored: Stored) -> S3Ranges:
        """Its content; nothing is read yet."""
        return S3Ranges(self._client, stored)

    def of_key(self, key: str) -> Stored | None:
        """One HEAD."""
        try:
            return self.stat(ObjectRef(self.bucket, key))
        except SourceNotFound:
            return None

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """One GET."""
        with aws_errors(_WHAT):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if error_code(error) in _MISSING:
                    return None
                raise
            with answer["Body"] as body:
                content: bytes = body.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise PayloadTooLarge(f"{key} has more than {max_bytes} bytes.")
        return content

    def put_once(
        self, key: str, body: bytes | BinaryIO, media_type: str, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """One conditional PUT. Source: Amazon S3 User Guide, "Conditional writes"."""
        with aws_errors(_WHAT):
            try:
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,
                    ContentType=media_type,
                    Metadata=dict(metadata or {}),
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if error_code(error) in _TAKEN:
                    return False
                if error_code(error) == _CONFLICT:
                    raise BackendUnavailable(f"{_WHAT} has another write of {key} under way.") from error
                raise
        return True

    def put(self, key: str, body: bytes | BinaryIO, media_type: str) -> None:
        """One PUT."""
        with aws_errors(_WHAT):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=media_type)

    def write(self, key: str, pieces: Iterable[bytes], media_type: str, size_hint: int) -> ObjectRef:
        """A multipart upload of pieces of some MiB, an ordinary PUT for what fits into one; given up where it fails."""
        least = max(_PIECE, -(-size_hint // _MOST_PIECES))
        blocks = _blocks(pieces, least)
        first = next(blocks, b"")
        second = next(blocks, None)
        if second is None:
            self.put(key, first, media_type)
            return ObjectRef(self.bucket, key)
        with aws_errors(_WHAT):
            upload = self._client.create_multipart_upload(Bucket=self.bucket, Key=key, ContentType=media_type)
        where: dict[str, Any] = {"Bucket": self.bucket, "Key": key, "UploadId": upload["UploadId"]}
        done: list[CompletedPartTypeDef] = []
        try:
            for block in chain((first, second), blocks):
                number = len(done) + 1
                with aws_errors(_WHAT):
                    part = self._client.upload_part(**where, PartNumber=number, Body=block)
                done.append({"PartNumber": number, "ETag": part["ETag"]})
            with aws_errors(_WHAT):
                self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
        except BaseException:
            # What stays of it ends with the bucket's rule for broken uploads.
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**where)
            raise
        # Without the version: another worker's, should there be one, has the same bytes.
        return ObjectRef(self.bucket, key)

    def below(self, prefix: str) -> Iterator[Stored]:
        """One call for each thousand."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        with aws_errors(_WHAT):
            for page in pages:
                for found in page.get("Contents", ()):
                    yield Stored(
                        ref=ObjectRef(self.bucket, found["Key"]),
                        size=found["Size"],
                        media_type="",
                        etag=found["ETag"],
                        stored_at=found["LastModified"].timestamp(),
                        metadata={},
                    )

    def remove(self, prefix: str) -> None:
        """Two calls for each thousand; the bucket's rules end the versions that are replaced."""
        keys = iter([stored.ref.key for stored in self.below(prefix)])
        while batch := list(islice(keys, _DELETED_AT_ONCE)):
            with aws_errors(_WHAT):
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if answer.get("Errors"):
                raise BackendUnavailable(f"{_WHAT} did not delete all objects.")


@contextmanager
def _missing(ref: ObjectRef, codes: frozenset[str] = _MISSING) -> Iterator[None]:
    """SourceNotFound for what S3 does not give."""
    try:
        yield
    except ClientError as error:
        if error_code(error) in codes:
            raise SourceNotFound(f"There is no object {ref.uri}, or it cannot be read any more.") from error
        raise


def _version(version_id: str | None) -> str | None:
    """Without versions S3 names none, or calls the only one "null"."""
    return None if version_id in (None, "null") else version_id


def _blocks(pieces: Iterable[bytes], least: int) -> Iterator[bytes]:
    """The same bytes in blocks of at least `least` bytes, the last one excepted."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= least:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
