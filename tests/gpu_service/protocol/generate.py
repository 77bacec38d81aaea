"""Writes the modules of the protocol's messages: `python -m tests.gpu_service.protocol.generate`."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc  # type: ignore[import-untyped]

FOLDER = Path(__file__).parents[3] / "gpu_service" / "protocol"
NAMES = ("inference", "health")

# A process may have only one file that defines a name in the default pool, and clients in it bring theirs.
_SHARED_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_descriptor_pool.DescriptorPool()"
_HEAD = "# ruff: noqa\n# fmt: off\n# mypy: disable-error-code=type-arg\n"


def generate(target: Path) -> list[str]:
    """Write the modules to a folder; their names."""
    with TemporaryDirectory() as scratch:
        sources = Path(scratch, "gpu_service", "protocol")
        sources.mkdir(parents=True)
        for name in NAMES:
            shutil.copy(FOLDER / f"{name}.proto", sources)
        arguments = [f"--proto_path={sources}", f"--python_out={sources}", f"--pyi_out={sources}"]
        if protoc.main(["protoc", *arguments, *(f"{name}.proto" for name in NAMES)]):
            raise SystemExit(1)
        written = [f"{name}_pb2.{suffix}" for name in NAMES for suffix in ("py", "pyi")]
        for file in written:
            text = (sources / file).read_text("utf-8")
            (target / file).write_text(_HEAD + text.replace(_SHARED_POOL, _OWN_POOL), "utf-8")
    return written


if __name__ == "__main__":
    sys.stdout.write("\n".join(generate(FOLDER)) + "\n")
