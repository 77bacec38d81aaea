"""The container process polls an S3 prefix."""

from pathlib import Path
from typing import TYPE_CHECKING

from shared.domain.model import Placement
from tests.gpu_service.models.bucket import BUCKET, CREDENTIALS, publish
from tests.gpu_service.server import Server, running, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


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
        assert server.predict({"instances": [[0, 0]]}).status_code == 503
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
