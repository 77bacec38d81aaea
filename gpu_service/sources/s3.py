"""Models below an S3 prefix: `<name>/<version>/`, whole once `package.json` is there, which is written last."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from gpu_service.repository import ModelKey
from gpu_service.sources.source import Found, SourceError
from shared.adapters.aws import aws_errors
from shared.adapters.package_files import check_paths, holds
from shared.adapters.s3_packages import INDEX, S3Packages
from shared.domain.errors import BackendError, DigestMismatch, InvalidPackage
from shared.domain.model import ModelVersion, PackageFile, Placement, digest_of
from shared.domain.signature import Signature

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_INDEX_BYTES = 1024 * 1024
_KEY = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]{0,63})/(?P<version>[1-9][0-9]{0,8})/" + re.escape(INDEX))
_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _IndexFile(msgspec.Struct):
    path: Annotated[str, Meta(min_length=1, max_length=512)]
    size: Annotated[int, Meta(ge=0)]
    sha256: _Sha256


class _Index(msgspec.Struct):
    """What `package.json` must hold; `shared.adapters.s3_packages` writes it."""

    model: str
    version: int
    digest: _Sha256
    placement: str
    files: Annotated[list[_IndexFile], Meta(min_length=1, max_length=1000)]


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

    def __init__(self, client: "S3Client", uri: str, cache: Path, max_package_bytes: int) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._cache = cache
        self._max_package_bytes = max_package_bytes
        self._packages = S3Packages(client, bucket)

    def list(self) -> Sequence[Found]:
        """Every whole package; SourceError if the bucket cannot be listed."""
        found: list[Found] = []
        try:
            with aws_errors(f"The bucket {self._bucket}"):
                pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
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
        folder = self._cache / found.key.name / str(found.key.version) / index.digest
        if folder.exists():
            if holds(version.files, folder):
                return folder
            shutil.rmtree(folder)  # a killed process or a full disk left it so
        self._packages.download(version, folder)
        return folder

    def _read_index(self, found: Found) -> _Index:
        with aws_errors("The package store"):
            body = self._client.get_object(Bucket=self._bucket, Key=found.place + INDEX)["Body"]
            with body:
                content = body.read(MAX_INDEX_BYTES + 1)
        if len(content) > MAX_INDEX_BYTES:
            raise InvalidPackage(f"{INDEX} is larger than {MAX_INDEX_BYTES} bytes.")
        try:
            index = msgspec.json.decode(content, type=_Index)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidPackage(f"{INDEX}: {error}") from None
        if (index.model, index.version) != (found.key.name, found.key.version):
            raise InvalidPackage(f"{INDEX} is that of {index.model} version {index.version}, and lies elsewhere.")
        return index

    def _version(self, index: _Index, found: Found) -> _PolledVersion:
        files = tuple(PackageFile(file.path, file.size, file.sha256) for file in index.files)
        check_paths(files, frozenset({INDEX}))
        if sum(file.size for file in files) > self._max_package_bytes:
            raise InvalidPackage(f"The package has more than {self._max_package_bytes} bytes.")
        if digest_of(files) != index.digest:
            raise DigestMismatch(f"The file list of {INDEX} does not have the digest that it names.")
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
