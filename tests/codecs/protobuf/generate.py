"""Writes the modules of the protocol's messages: `python -m tests.codecs.protobuf.generate`."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[3]
FOLDERS = {"inference": ROOT / "shared" / "codecs" / "protobuf", "health": ROOT / "gpu_service" / "protocol"}

# A process may have only one file that defines a name in the default pool, and clients in it bring theirs.
_SHARED_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_descriptor_pool.DescriptorPool()"
_HEAD = "# ruff: noqa\n# fmt: off\n# mypy: disable-error-code=type-arg\n"


def generate() -> dict[Path, str]:
    """The text of each module, by the file that it belongs in."""
    with TemporaryDirectory() as scratch:
        for name, folder in FOLDERS.items():
            shutil.copy(folder / f"{name}.proto", scratch)
        arguments = [f"--proto_path={scratch}", f"--python_out={scratch}", f"--pyi_out={scratch}"]
        if protoc.main(["protoc", *arguments, *(f"{name}.proto" for name in FOLDERS)]):
            raise SystemExit(1)
        return {
            folder / file: _HEAD + Path(scratch, file).read_text("utf-8").replace(_SHARED_POOL, _OWN_POOL)
            for name, folder in FOLDERS.items()
            for file in (f"{name}_pb2.py", f"{name}_pb2.pyi")
        }


if __name__ == "__main__":
    for path, text in generate().items():
        path.write_text(text, "utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
