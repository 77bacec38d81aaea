"""Versions and packages for the tests of the adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from shared.domain.dtypes import DType
from shared.domain.model import ModelVersion, PackageFile, Placement, digest_of
from shared.domain.signature import Content, Signature, TensorSpec
from tests.fakes import package_file

SIGNATURE = Signature(
    inputs=(
        TensorSpec("x", DType.FP32, (None, 2), features=("a", "b"), layouts=((1, 2),), minimum=-1.5, maximum=1e6),
        TensorSpec("note", DType.BYTES, (None,), content=Content.TEXT, max_length=64),
    ),
    outputs=(
        TensorSpec("y", DType.FP32, (None, 2), classes=("kaputt", "größer")),
        TensorSpec("label", DType.BYTES, (None,)),
    ),
    max_batch=64,
)
FILES: Mapping[str, bytes] = {
    "model.onnx": bytes(range(256)) * 40,
    "manifest.json": b"{}",
    "data/weights.bin": b"\x00\x01" * 3000,
    "empty": b"",
}


def unique(name: str) -> str:
    """A model name that no other test uses: the stores live as long as the session."""
    return f"{name}-{uuid4().hex[:12]}"


def version_of(
    model: str,
    number: int = 1,
    files: Mapping[str, bytes] = FILES,
    signature: Signature = SIGNATURE,
    metadata: Mapping[str, object] | None = None,
) -> ModelVersion:
    """A version with these files."""
    entries: tuple[PackageFile, ...] = tuple(package_file(path, content) for path, content in sorted(files.items()))
    return ModelVersion(
        model=model,
        version=number,
        digest=digest_of(entries),
        files=entries,
        signature=signature,
        placement=Placement.CONTAINER,
        created_at="2026-11-21T00:00:00+00:00",
        metadata={"metrics": {"auc": 0.99}, "licence": "CC0", "é": [None, True]} if metadata is None else metadata,
    )


def write_files(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """`folder` with these files below it."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """All files below `folder` by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Lossy:
    """A client of DynamoDB whose answers to writes are lost: what it asked for is done, and asked for again.

    As botocore does it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in {"put_item", "update_item"}:
            return call

        def twice(**arguments: Any) -> Any:
            call(**arguments)
            return call(**arguments)

        return twice
