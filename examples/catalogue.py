"""Which examples there are, and what building them shares.

Light to import, since the up-to-date check runs on every `make`.
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
DEFAULT_OUT = ROOT / "build" / "models"
VERSION = 1
STAMP = "stamp.json"

_SKLEARN = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")

# By example, the packages of the lock whose versions go into what is built.
TOOLS = {
    "tumor": _SKLEARN,
    "digits": _SKLEARN,
    "embed": ("numpy", "onnx", "onnxruntime", "safetensors", "tokenizers"),
}


class BuildFailed(Exception):
    """What a builder needs is not there, or its result is not what it must be; the message is for the user."""


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
