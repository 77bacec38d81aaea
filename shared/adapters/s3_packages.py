"""Model packages in an S3 bucket, below `models/<model>/<version>/`.

`package.json` is written last: `{"model", "version", "digest", "placement", "files": [{"path", "size", "sha256"}]}`.
Whoever polls the bucket, as the container does, takes a version for whole once that object is there, and holds the
files against it.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, FlexibleChecksumError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.package_files import PARTIAL_PREFIX, check_paths, has_bytes
from shared.domain.errors import DigestMismatch, InvalidPackage, VersionConflict
from shared.domain.model import ModelVersion, PackageFile, digest_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

INDEX: Final = "package.json"
# Source: Amazon S3, "Uploading objects": the most that one PutObject takes.
MAX_FILE_BYTES: Final = 5 * 1024**3
_WHAT = "The package store"
_CHUNK = 1024 * 1024
# Who may read objects and not list the bucket is told "access denied" for one that is not there.
# Source: Amazon S3 API, GetObject, "Permissions".
_MISSING = frozenset({"NoSuchKey", "404", "AccessDenied"})


class S3Packages:
    """Implements `shared.domain.ports.PackageStore`; up to `parallel` files travel at once.

    The client's connection pool should hold as many connections.
    """

    def __init__(self, client: "S3Client", bucket: str, *, parallel: int = 8) -> None:
        self._client = client
        self._bucket = bucket
        self._parallel = parallel

    def upload(self, version: ModelVersion, folder: Path) -> None:
        """Store the files, then `package.json`; S3 holds each against its SHA-256.

        An object is written once: one that is there with the same bytes is left, one with others is a VersionConflict,
        so two people who publish the same number at once cannot mix their files. Also raises DigestMismatch for a file
        that changed since `version` was made, InvalidPackage, BackendError.
        """
        check_paths(version.files, frozenset({INDEX}))
        for file in version.files:
            if file.size > MAX_FILE_BYTES:
                raise InvalidPackage(f"{file.path} has {file.size} bytes; a file may have {MAX_FILE_BYTES}.")
        self._each(version.files, lambda file: self._upload_file(version, file, folder))
        body = json.dumps(package_document(version), separators=(",", ":")).encode()
        with aws_errors(_WHAT):
            self._put(version, INDEX, body, sha256(body).hexdigest(), "application/json")

    def download(self, version: ModelVersion, folder: Path) -> None:
        """Write the files below `folder`, which appears whole or not at all and must not exist or be empty.

        Raises DigestMismatch if a file is missing or a byte differs, InvalidPackage, BackendError, and OSError for
        what the disk refuses.
        """
        check_paths(version.files)
        if digest_of(version.files) != version.digest:
            raise DigestMismatch(f"The file list of {_name(version)} does not have the digest of the version.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=PARTIAL_PREFIX, dir=folder.parent))
        try:
            self._each(version.files, lambda file: self._download_file(version, file, partial))
            partial.chmod(0o755)  # mkdtemp makes it private
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _each(self, files: Iterable[PackageFile], work: Callable[[PackageFile], None]) -> None:
        """Do `work` for all files, the largest first; the first error ends it and drops what has not begun."""
        ordered = sorted(files, key=lambda file: -file.size)
        with ThreadPoolExecutor(max_workers=min(self._parallel, max(len(ordered), 1))) as pool:
            try:
                for done in [pool.submit(work, file) for file in ordered]:
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _upload_file(self, version: ModelVersion, file: PackageFile, folder: Path) -> None:
        if not has_bytes(file, folder):
            raise DigestMismatch(f"{file.path} of {_name(version)} changed while it was published, or is gone.")
        with (folder / file.path).open("rb") as body, aws_errors(_WHAT):
            self._put(version, file.path, body, file.sha256, "application/octet-stream")

    def _put(self, version: ModelVersion, path: str, body: Any, digest: str, content_type: str) -> None:
        key = version.prefix + path
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                ContentType=content_type,
                IfNoneMatch="*",
            )
        except ClientError as error:
            if error_code(error) != "PreconditionFailed":
                raise
            stored = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            if stored.get("ChecksumSHA256") != checksum:
                raise VersionConflict(
                    f"{path} of {_name(version)} is stored with other content. Versions are immutable: publish this "
                    "one under the next number."
                ) from None

    def _download_file(self, version: ModelVersion, file: PackageFile, folder: Path) -> None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = sha256(), 0
        with aws_errors(_WHAT):
            try:
                body = self._client.get_object(Bucket=self._bucket, Key=version.prefix + file.path)["Body"]
                with body, target.open("xb") as out:
                    # One byte more than promised is enough to know: a wrong object must not fill the disk.
                    while size <= file.size and (chunk := body.read(min(_CHUNK, file.size + 1 - size))):
                        digest.update(chunk)
                        out.write(chunk)
                        size += len(chunk)
            except ClientError as error:
                if error_code(error) not in _MISSING:
                    raise
                raise DigestMismatch(
                    f"{file.path} of {_name(version)} is missing in the package store, or may not be read."
                ) from error
            except FlexibleChecksumError as error:
                raise _damaged(version, file) from error
        if size != file.size or digest.hexdigest() != file.sha256:
            raise _damaged(version, file)


def package_document(version: ModelVersion) -> dict[str, Any]:
    """What `package.json` holds."""
    return {
        "model": version.model,
        "version": version.version,
        "digest": version.digest,
        "placement": version.placement.value,
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in version.files],
    }


def _damaged(version: ModelVersion, file: PackageFile) -> DigestMismatch:
    return DigestMismatch(f"{file.path} of {_name(version)} does not have the bytes that were published.")


def _name(version: ModelVersion) -> str:
    return f"{version.model} version {version.version}"
