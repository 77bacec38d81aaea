"""Where publishing is put together: the use case, the registry in DynamoDB, the store in S3, the ONNX reader."""

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Final

from botocore.session import Session

from infra.local.aws_client import isolated_session, local_client
from shared.adapters.aws import client
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.s3_packages import S3Packages
from shared.usecases.publish_model import PublishModel

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

OnBytes = Callable[[int], None]
"""Hears how many bytes were sent; negative when a file is read again. Called from several threads."""

# A file of up to 5 GB goes in one call.
_UPLOAD_TIMEOUT_S: Final = 300.0


def publisher(endpoint_url: str, table: str, bucket: str, *, on_bytes: OnBytes | None = None) -> PublishModel:
    """Publishes to the local stack, whatever AWS configuration the user has."""
    session = isolated_session()
    return _assemble(
        local_client(session, "dynamodb", endpoint_url),
        table,
        local_client(session, "s3", endpoint_url, read_timeout_s=_UPLOAD_TIMEOUT_S),
        bucket,
        on_bytes,
    )


def deployed_publisher(
    table: str, bucket: str, *, region: str | None = None, profile: str | None = None, on_bytes: OnBytes | None = None
) -> PublishModel:
    """Publishes to a deployed stack, with the user's AWS configuration; BotoCoreError where that does not suffice."""
    session = Session(profile=profile)
    if region:
        session.set_config_variable("region", region)
    return _assemble(
        client("dynamodb", session=session),
        table,
        client("s3", session=session, read_timeout=_UPLOAD_TIMEOUT_S),
        bucket,
        on_bytes,
    )


def _assemble(
    dynamodb: "DynamoDBClient", table: str, s3: "S3Client", bucket: str, on_bytes: OnBytes | None
) -> PublishModel:
    # ONNX Runtime takes half a second to load: the local stack, which imports this module, starts other things first.
    from shared.adapters.onnx.reader import OnnxPackageReader
    from shared.adapters.pipeline_package import PipelinePackageReader

    if on_bytes:
        _meter(s3, on_bytes)
    models, store = DynamoDBModels(dynamodb, table), S3Packages(s3, bucket)
    return PublishModel(models, store, OnnxPackageReader(), pipelines=PipelinePackageReader())


def _meter(s3: "S3Client", on_bytes: OnBytes) -> None:
    """Count what PutObject reads of files, through botocore's own event before a call."""

    def wrap(params: dict[str, Any], **_: Any) -> None:
        if hasattr(params.get("body"), "read"):
            params["body"] = _Metered(params["body"], on_bytes)

    s3.meta.events.register("before-call.s3.PutObject", wrap)


class _Metered:
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_bytes(len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        before = self._file.tell()
        after = self._file.seek(offset, whence)
        self._on_bytes(after - before)
        return after

    def tell(self) -> int:
        return self._file.tell()
