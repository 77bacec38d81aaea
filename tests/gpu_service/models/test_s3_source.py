"""The packages of an S3 prefix: listed, fetched, verified, and followed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpu_service.models.served_model import ModelKey
from gpu_service.models.sources.index import INDEX, verify
from gpu_service.models.sources.s3 import S3Source
from gpu_service.models.sources.source import Found, SourceError
from shared.adapters import s3_packages
from shared.adapters.s3_packages import package_document
from shared.domain.errors import DigestMismatch, InvalidPackage
from shared.domain.model import Placement
from tests.gpu_service.models.bucket import BUCKET, publish
from tests.gpu_service.models.support import Factory, House, run, until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def source(s3: "S3Client", tmp_path: Path) -> S3Source:
    return S3Source(s3, f"s3://{BUCKET}/models", tmp_path / "cache", max_package_bytes=10_000)


def only(source: S3Source) -> Found:
    (found,) = source.list()
    return found


def test_a_package_is_fetched_once_and_mended(s3: "S3Client", source: S3Source, tmp_path: Path) -> None:
    version = publish(s3, tmp_path, 1, 1.0)
    found = only(source)
    assert found.key == ModelKey("plus", 1)
    folder = source.fetch(found)
    assert folder is not None
    assert (folder / "model.onnx").stat().st_size == version.files[0].size
    (folder / "model.onnx").write_bytes(b"torn")
    assert source.fetch(found) == folder
    assert (folder / "model.onnx").stat().st_size == version.files[0].size


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"digest": "0" * 64}, DigestMismatch),
        ({"model": "another"}, InvalidPackage),
        ({"version": 2}, InvalidPackage),
        ({"files": []}, InvalidPackage),
        ({"files": [{"path": "../up", "size": 1, "sha256": "0" * 64}]}, InvalidPackage),
        ({"files": [{"path": "/etc/x", "size": 1, "sha256": "0" * 64}]}, InvalidPackage),
        ({"files": [{"path": "model.onnx", "size": 10**15, "sha256": "0" * 64}]}, InvalidPackage),
        ({"files": [{"path": "model.onnx", "size": -1, "sha256": "0" * 64}]}, InvalidPackage),
        ({"files": "all"}, InvalidPackage),
    ],
)
def test_an_index_that_lies(
    s3: "S3Client", source: S3Source, tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    version = publish(s3, tmp_path, 1, 1.0)
    index = json.loads(s3.get_object(Bucket=BUCKET, Key=f"{version.prefix}package.json")["Body"].read())
    s3.put_object(Bucket=BUCKET, Key=f"{version.prefix}package.json", Body=json.dumps(index | change))
    with pytest.raises(error):
        source.fetch(only(source))
    assert not list((tmp_path / "cache").rglob("*"))


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{" + b" " * 2_000_000])
def test_an_index_that_is_none(s3: "S3Client", source: S3Source, body: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key="models/plus/1/package.json", Body=body)
    with pytest.raises(InvalidPackage):
        source.fetch(only(source))


def test_only_packages_are_listed(s3: "S3Client", source: S3Source, tmp_path: Path) -> None:
    for key in ("models/package.json", "models/a/package.json", "models/a/0/package.json", "models/a/1/b/package.json"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    s3.put_object(Bucket=BUCKET, Key="models/../1/package.json", Body=b"{}")
    s3.put_object(Bucket=BUCKET, Key="elsewhere/a/1/package.json", Body=b"{}")
    assert source.list() == []


def test_what_is_for_functions_is_left_alone(s3: "S3Client", source: S3Source, tmp_path: Path) -> None:
    publish(s3, tmp_path, 1, 1.0, placement=Placement.FUNCTION)
    assert source.fetch(only(source)) is None


def test_a_bucket_that_is_not_there(s3: "S3Client", tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no-such-bucket"):
        S3Source(s3, "s3://no-such-bucket/", tmp_path, max_package_bytes=1).list()


def test_only_the_models_asked_for_are_listed(s3: "S3Client", source: S3Source, tmp_path: Path) -> None:
    publish(s3, tmp_path, 1, 1.0)
    publish(s3, tmp_path, 2, 2.0)
    s3.put_object(Bucket=BUCKET, Key="models/plus-more/1/package.json", Body=b"{}")
    assert [found.key for found in source.list("plus")] == [ModelKey("plus", 1), ModelKey("plus", 2)]
    for name in ("plu", "", "../models/plus", "plus/1", "PLUS"):
        assert source.list(name) == []


def test_a_revision_other_than_the_one_listed_is_not_fetched(s3: "S3Client", source: S3Source, tmp_path: Path) -> None:
    version = publish(s3, tmp_path, 1, 1.0)
    found = only(source)
    body = json.dumps(package_document(version) | {"more": 1})
    s3.put_object(Bucket=BUCKET, Key=f"{version.prefix}package.json", Body=body)
    with pytest.raises(InvalidPackage, match="immutable"):
        source.fetch(found)
    assert source.fetch(only(source)) is not None


def test_what_is_discarded_is_deleted_and_can_be_fetched_again(
    s3: "S3Client", source: S3Source, tmp_path: Path
) -> None:
    publish(s3, tmp_path, 1, 1.0)
    found = only(source)
    folder = source.fetch(found)
    assert folder is not None
    source.discard(found)
    assert not folder.exists()
    source.discard(found)
    assert source.fetch(found) == folder


def test_versions_come_and_go_with_the_bucket(s3: "S3Client", source: S3Source, tmp_path: Path) -> None:
    async def test() -> None:
        publish(s3, tmp_path, 1, 1.0)
        async with House(Factory(real=True), source) as house:
            await house.ready()
            assert await house.model("plus").predict(1.0) == 2.0
            second = publish(s3, tmp_path, 2, 5.0)
            await until(lambda: house.served() == {"plus": [1, 2]})
            assert await house.model("plus").predict(1.0) == 6.0
            for name in ("package.json", "model.onnx"):
                s3.delete_object(Bucket=BUCKET, Key=f"{second.prefix}{name}")
            await until(lambda: house.served() == {"plus": [1]})
            await until(lambda: not (tmp_path / "cache/plus/2").exists())
            assert await house.model("plus").predict(1.0) == 2.0

    run(test())


def test_a_model_is_looked_for_in_the_bucket_when_it_is_asked_for(
    s3: "S3Client", source: S3Source, tmp_path: Path
) -> None:
    async def test() -> None:
        async with House(Factory(real=True), source) as house:
            await house.ready()
            publish(s3, tmp_path, 1, 1.0)
            await house.manager.load("plus")
            assert await house.model("plus").predict(1.0) == 2.0

    run(test())


def test_the_index_is_the_one_that_publishing_writes(s3: "S3Client", tmp_path: Path) -> None:
    assert INDEX == s3_packages.INDEX
    version = publish(s3, tmp_path, 1, 1.0)
    folder = tmp_path / "1"
    assert verify(folder) is None
    (folder / INDEX).write_text(json.dumps(package_document(version)))
    index = verify(folder)
    assert index is not None
    assert index.digest == version.digest
