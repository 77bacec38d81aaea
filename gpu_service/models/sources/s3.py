"""Models below an S3 prefix: `<name>/<version>/`, whole once `package.json` is there, which is written last."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from gpu_service.models.served_model import ModelKey
from gpu_service.models.sources.index import INDEX, MAX_INDEX_BYTES, PackageIndex, files_of, parse_index
from gpu_service.models.sources.source import Found, SourceError
from shared.adapters.aws import aws_errors, error_code
from shared.adapters.package_files import holds
from shared.adapters.s3_packages import S3Packages
from shared.domain.errors import BackendError, InvalidPackage
from shared.domain.model import ModelVersion, Placement
from shared.domain.signature import Signature

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(rf"(?P<name>{_NAME.pattern})/(?P<version>[1-9][0-9]{{0,8}})/{re.escape(INDEX)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _PolledVersion(ModelVersion):
    """A version that lies below the prefix that is polled; its signature is read from the package once it is here."""

    key_prefix: str

    @property
    def prefix(self) -> str:
        """Where the package lies in the bucket."""
        return self.key_prefix


class S3Source:
    """Polls a prefix of a bucket and keeps what it downloads below `cache`."""

    polled = True
    immutable = True

    def __init__(self, client: "S3Client", uri: str, cache: Path, max_package_bytes: int) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._cache = cache
        self._max_package_bytes = max_package_bytes
        self._packages = S3Packages(client, bucket)

    def list(self, name: str | None = None) -> Sequence[Found]:
        """Every whole package, or those of one model; SourceError if the bucket cannot be listed."""
        if name is not None and not _NAME.fullmatch(name):
            return []
        prefix = self._prefix if name is None else f"{self._prefix}{name}/"
        found: list[Found] = []
        try:
            with aws_errors(f"The bucket {self._bucket}"):
                pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
                for page in pages:
                    for item in page.get("Contents", []):
                        match = _KEY.fullmatch(item["Key"].removeprefix(self._prefix))
                        if match:
                            key = ModelKey(match["name"], int(match["version"]))
                            found.append(Found(key, item["ETag"], item["Key"].removesuffix(INDEX)))
        except BackendError as error:
            raise SourceError(error.detail) from error
        return found

    def fetch(self, found: Found) -> Path | None:
        """Download a package unless the cache has it whole; None if its placement is not the container.

        Raises InvalidPackage, DigestMismatch, BackendError, OSError.
        """
        index = self._read_index(found)
        if index.placement != Placement.CONTAINER:
            return None
        version = self._version(index, found)
        folder = self._folder(found) / index.digest
        if folder.exists():
            if holds(version.files, folder):
                return folder
            shutil.rmtree(folder)  # a killed process or a full disk left it so
        self._packages.download(version, folder)
        return folder

    def discard(self, found: Found) -> None:
        """Delete what was downloaded."""
        folder = self._folder(found)
        if folder.exists():
            shutil.rmtree(folder)

    def _folder(self, found: Found) -> Path:
        return self._cache / found.key.name / str(found.key.version)

    def _read_index(self, found: Found) -> PackageIndex:
        with aws_errors("The package store"):
            try:
                # Only the revision that was listed: what is loaded again must be what was loaded first.
                body = self._client.get_object(Bucket=self._bucket, Key=found.place + INDEX, IfMatch=found.revision)[
                    "Body"
                ]
            except ClientError as error:
                if error_code(error) != "PreconditionFailed":
                    raise
                raise InvalidPackage(f"{INDEX} has changed since it was listed; versions are immutable.") from None
            with body:
                content = body.read(MAX_INDEX_BYTES + 1)
        index = parse_index(content)
        if (index.model, index.version) != (found.key.name, found.key.version):
            raise InvalidPackage(f"{INDEX} is that of {index.model} version {index.version}, and lies elsewhere.")
        return index

    def _version(self, index: PackageIndex, found: Found) -> _PolledVersion:
        files = files_of(index)
        if sum(file.size for file in files) > self._max_package_bytes:
            raise InvalidPackage(f"The package has more than {self._max_package_bytes} bytes.")
        return _PolledVersion(
            model=index.model,
            version=index.version,
            digest=index.digest,
            files=files,
            signature=Signature(inputs=(), outputs=()),
            placement=Placement.CONTAINER,
            created_at="",
            key_prefix=found.place,
        )
