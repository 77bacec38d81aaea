"""Packages in a bucket, as publishing puts them there."""

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.adapters.s3_packages import S3Packages
from shared.domain.model import ModelVersion, PackageFile, Placement, digest_of
from shared.domain.signature import Signature
from tests.models import add_model, write_package

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "packages"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def package(folder: Path, version: int, amount: float, placement: Placement = Placement.CONTAINER) -> ModelVersion:
    content = (write_package(folder, add_model(amount)) / "model.onnx").read_bytes()
    files = (PackageFile("model.onnx", len(content), sha256(content).hexdigest()),)
    nothing = Signature(inputs=(), outputs=())
    return ModelVersion("plus", version, digest_of(files), files, nothing, placement, "2026-11-21T00:00:00Z")


def publish(s3: "S3Client", folder: Path, version: int, amount: float, **more: Any) -> ModelVersion:
    made = package(folder / str(version), version, amount, **more)
    S3Packages(s3, BUCKET).upload(made, folder / str(version))
    return made
