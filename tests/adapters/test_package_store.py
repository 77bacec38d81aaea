"""The contract of `PackageStore`, on the fake and on S3; then what only S3 can get wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.s3_packages import S3Packages
from shared.domain.errors import (
    BackendError,
    BackendUnavailable,
    DigestMismatch,
    InvalidPackage,
    VersionConflict,
)
from shared.domain.model import PackageFile, digest_of
from shared.domain.ports import PackageStore
from tests.adapters.samples import FILES, read_files, unique, version_of, write_files
from tests.conftest import LocalAws
from tests.fakes import InMemoryPackages

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class _Damage:
    """Writes objects of a store behind its back."""

    def __init__(self, objects: dict[str, bytes] | None, s3: "S3Client | None" = None, bucket: str = "") -> None:
        self._objects, self._s3, self._bucket = objects, s3, bucket

    def put(self, key: str, content: bytes) -> None:
        if self._s3 is not None:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        elif self._objects is not None:
            self._objects[key] = content

    def delete(self, key: str) -> None:
        if self._s3 is not None:
            self._s3.delete_object(Bucket=self._bucket, Key=key)
        elif self._objects is not None:
            del self._objects[key]


@pytest.fixture(params=["fake", "s3"])
def stored(request: pytest.FixtureRequest) -> tuple[PackageStore, _Damage]:
    if request.param == "fake":
        fake = InMemoryPackages()
        return fake, _Damage(fake.objects)
    s3: S3Client = request.getfixturevalue("s3")
    bucket = request.getfixturevalue("local_aws").bucket
    return S3Packages(s3, bucket), _Damage(None, s3, bucket)


@pytest.fixture
def store(stored: tuple[PackageStore, _Damage]) -> PackageStore:
    return stored[0]


@pytest.fixture
def packages(s3: "S3Client", local_aws: LocalAws) -> S3Packages:
    return S3Packages(s3, local_aws.bucket)


def test_a_package_comes_back_byte_for_byte(store: PackageStore, tmp_path: Path) -> None:
    version = version_of(unique("m"))
    store.upload(version, write_files(tmp_path / "from"))
    store.download(version, tmp_path / "new" / "to")
    assert read_files(tmp_path / "new" / "to") == FILES
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["to"]


def test_uploading_again_and_into_an_empty_folder_is_fine(store: PackageStore, tmp_path: Path) -> None:
    version = version_of(unique("m"))
    for _ in range(2):
        store.upload(version, write_files(tmp_path / "from"))
    (tmp_path / "to").mkdir()
    store.download(version, tmp_path / "to")
    assert read_files(tmp_path / "to") == FILES


def test_an_object_is_written_once(store: PackageStore, tmp_path: Path) -> None:
    version = version_of(unique("m"))
    store.upload(version, write_files(tmp_path / "from"))
    other = {**FILES, "model.onnx": b"other bytes"}
    rival = version_of(version.model, files=other)
    with pytest.raises(VersionConflict):
        store.upload(rival, write_files(tmp_path / "rival", other))
    store.download(version, tmp_path / "to")
    assert read_files(tmp_path / "to") == FILES


def test_a_folder_that_holds_something_is_left_alone(store: PackageStore, tmp_path: Path) -> None:
    version = version_of(unique("m"))
    store.upload(version, write_files(tmp_path / "from"))
    write_files(tmp_path / "to", {"mine": b"1"})
    with pytest.raises(OSError, match=r".+"):
        store.download(version, tmp_path / "to")
    assert read_files(tmp_path / "to") == {"mine": b"1"}


@pytest.mark.parametrize("change", ["flip", "shorten", "lengthen", "delete"])
def test_a_damaged_package_is_refused_and_leaves_nothing(
    stored: tuple[PackageStore, _Damage], tmp_path: Path, change: str
) -> None:
    store, damage = stored
    version = version_of(unique("m"))
    store.upload(version, write_files(tmp_path / "from"))
    key, content = version.prefix + "data/weights.bin", FILES["data/weights.bin"]
    if change == "delete":
        damage.delete(key)
    else:
        damage.put(key, {"flip": b"\x01" + content[1:], "shorten": content[:-1], "lengthen": content * 500}[change])
    with pytest.raises(DigestMismatch, match=r"data/weights\.bin"):
        store.download(version, tmp_path / "to" / "folder")
    assert not list((tmp_path / "to").glob("*"))


@pytest.mark.parametrize("change", [b"longer than it was", b"same size!", None])
def test_a_file_that_changed_since_it_was_described_is_not_published(
    store: PackageStore, tmp_path: Path, change: bytes | None
) -> None:
    version = version_of(unique("m"), files={"model.onnx": b"ten bytes!"})
    folder = write_files(tmp_path / "from", {} if change is None else {"model.onnx": change})
    with pytest.raises(DigestMismatch, match=r"model\.onnx"):
        store.upload(version, folder)
    with pytest.raises(DigestMismatch):
        store.download(version, tmp_path / "to")


@pytest.mark.parametrize(
    "path",
    ["../out", "/etc/passwd", "a/../../out", "a\\..\\out", "..", ".", "", "a//b", "a/", "C:x", "a\0b", "a\nb"],
)
def test_no_path_leads_out_of_the_folder(store: PackageStore, tmp_path: Path, path: str) -> None:
    files = (PackageFile(path, 1, "0" * 64),)
    version = replace(version_of(unique("m")), files=files, digest=digest_of(files))
    for work in (store.upload, store.download):
        with pytest.raises(InvalidPackage, match="not a plain relative path"):
            work(version, tmp_path / "to")
    assert not list(tmp_path.iterdir())


def test_clashing_and_reserved_paths_are_refused(store: PackageStore, tmp_path: Path) -> None:
    one = PackageFile("a", 0, "0" * 64)
    for files in ((one, replace(one, path="a/b")), (one, one), (replace(one, path="package.json"),)):
        with pytest.raises(InvalidPackage):
            store.upload(replace(version_of(unique("m")), files=files), tmp_path)


def test_the_index_is_written_last_and_says_what_is_there(
    packages: S3Packages, s3: "S3Client", local_aws: LocalAws, tmp_path: Path
) -> None:
    version = version_of(unique("m"))
    # The smallest file comes last and is broken: whatever was stored before it, there is no index.
    folder = write_files(tmp_path / "from", {**FILES, "empty": b"not empty"})
    with pytest.raises(DigestMismatch):
        packages.upload(version, folder)
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=local_aws.bucket, Key=version.prefix + "package.json")
    packages.upload(version, write_files(tmp_path / "from"))
    index = json.loads(s3.get_object(Bucket=local_aws.bucket, Key=version.prefix + "package.json")["Body"].read())
    assert index == {
        "model": version.model,
        "version": 1,
        "digest": version.digest,
        "placement": "container",
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in version.files],
    }
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=local_aws.bucket, Prefix=version.prefix)["Contents"]]
    assert sorted(keys) == sorted(version.prefix + path for path in [*FILES, "package.json"])


def test_a_file_list_that_is_not_the_digests_is_refused(packages: S3Packages, tmp_path: Path) -> None:
    version = version_of(unique("m"))
    packages.upload(version, write_files(tmp_path / "from"))
    with pytest.raises(DigestMismatch, match="file list"):
        packages.download(replace(version, files=version.files[:1]), tmp_path / "to")


def test_many_files_travel(packages: S3Packages, tmp_path: Path) -> None:
    files = {f"part-{n:02}/data": bytes([n]) * n for n in range(40)}
    version = version_of(unique("many"), files=files)
    packages.upload(version, write_files(tmp_path / "from", files))
    packages.download(version, tmp_path / "to")
    assert read_files(tmp_path / "to") == files


def test_a_missing_bucket_and_a_dead_service_are_told_apart(
    s3: "S3Client", aws_session: Session, free_port: int, tmp_path: Path
) -> None:
    version = version_of(unique("m"))
    with pytest.raises(BackendError, match="NoSuchBucket"):
        S3Packages(s3, "no-such-bucket").download(version, tmp_path / "to")
    dead = client("s3", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        S3Packages(dead, "bucket").download(version, tmp_path / "to")
    assert not list(tmp_path.iterdir())
