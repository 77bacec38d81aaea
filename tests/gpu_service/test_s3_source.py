"""Polling of an S3 prefix: the container process against a real HTTP S3 (moto's server)."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from moto.server import ThreadedMotoServer

from gpu_service.repository import ModelKey
from gpu_service.sources.s3 import S3Source
from gpu_service.sources.source import Found, SourceError
from shared.adapters.aws import client
from shared.adapters.s3_packages import S3Packages
from shared.domain.errors import DigestMismatch, InvalidPackage
from shared.domain.model import ModelVersion, PackageFile, Placement, digest_of
from shared.domain.signature import Signature
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, write_package

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "packages"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3Client]":
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    made = client("s3", endpoint_url=endpoint)
    made.create_bucket(Bucket=BUCKET)
    yield made
    for page in made.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            made.delete_object(Bucket=BUCKET, Key=item["Key"])
    made.delete_bucket(Bucket=BUCKET)
    made.close()


def package(folder: Path, version: int, amount: float, placement: Placement = Placement.CONTAINER) -> ModelVersion:
    content = (write_package(folder, add_model(amount)) / "model.onnx").read_bytes()
    files = (PackageFile("model.onnx", len(content), sha256(content).hexdigest()),)
    nothing = Signature(inputs=(), outputs=())
    return ModelVersion("plus", version, digest_of(files), files, nothing, placement, "2026-11-21T00:00:00Z")


def publish(s3: "S3Client", folder: Path, version: int, amount: float, **more: Any) -> ModelVersion:
    made = package(folder / str(version), version, amount, **more)
    S3Packages(s3, BUCKET).upload(made, folder / str(version))
    return made


def environment(endpoint: str, cache: Path) -> dict[str, str]:
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "SLUICE_MODEL_URI": f"s3://{BUCKET}/models/",
        "SLUICE_CACHE_DIR": str(cache),
    }


def served(server: Server) -> list[int]:
    return [model["version"] for model in server.ping().json()["models"]]


def test_versions_are_taken_over_as_they_come(s3: "S3Client", endpoint: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with running(tmp_path, **environment(endpoint, cache)) as server:
        assert server.wait_for_ping(200)["models"] == []
        assert server.predict({"instances": [[0, 0]]}).status_code == 400
        publish(s3, tmp_path, 1, 1.0)
        wait_until(lambda: served(server) == [1])
        assert server.predict({"instances": [[0, 0]]}).json()["predictions"] == [[1, 1]]
        publish(s3, tmp_path, 3, 3.0, placement=Placement.FUNCTION)
        s3.put_object(Bucket=BUCKET, Key="models/plus/4/model.onnx", Body=b"not whole yet")
        broken = publish(s3, tmp_path, 5, 5.0)
        s3.put_object(Bucket=BUCKET, Key=f"{broken.prefix}model.onnx", Body=b"x" * broken.files[0].size)
        publish(s3, tmp_path, 2, 2.0)
        wait_until(lambda: 2 in served(server))
        wait_until(lambda: any(line.get("version") == 5 for line in server.lines()))
        assert server.ping().status_code == 200
        assert 3 not in served(server)
        assert 4 not in served(server)
        assert server.predict({"instances": [[0, 0]]}, "model=plus;version=1").json()["predictions"] == [[1, 1]]
        assert server.predict({"instances": [[0, 0]]}, "model=plus;version=2").json()["predictions"] == [[2, 2]]
        assert server.terminate() == 0


def test_a_broken_model_of_the_first_listing_is_shown(s3: "S3Client", endpoint: str, tmp_path: Path) -> None:
    publish(s3, tmp_path, 1, 1.0)
    s3.put_object(Bucket=BUCKET, Key="models/plus/1/model.onnx", Body=b"other bytes")
    with running(tmp_path, **environment(endpoint, tmp_path / "cache")) as server:
        document = wait_until(lambda: (found := server.ping().json())["status"] == "failed" and found)
        assert server.ping().status_code == 503
        assert "does not have the bytes" in document["failed"]["plus/1"]


def test_a_bucket_that_cannot_be_listed_is_waited_for(s3: "S3Client", endpoint: str, tmp_path: Path) -> None:
    variables = environment(endpoint, tmp_path / "cache") | {"SLUICE_MODEL_URI": "s3://no-such-bucket/models/"}
    with running(tmp_path, **variables) as server:
        document = wait_until(lambda: "listed" in (found := server.ping().json())["reason"] and found)
        assert document["status"] == "loading"
        assert "no-such-bucket" in document["reason"]


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
    version = publish(s3, tmp_path, 1, 1.0, placement=Placement.FUNCTION)
    assert source.fetch(only(source)) is None
    assert replace(version, placement=Placement.CONTAINER) != version


def test_a_bucket_that_is_not_there(s3: "S3Client", tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no-such-bucket"):
        S3Source(s3, "s3://no-such-bucket/", tmp_path, max_package_bytes=1).list()
