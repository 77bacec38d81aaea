"""The media types that are read and written. Imports nothing: the catalogue, which has no NumPy, names them too."""

from typing import Final

JSON: Final = "application/json"
CSV: Final = "text/csv"
JSON_LINES: Final = "application/jsonlines"
NPY: Final = "application/x-npy"
NPZ: Final = "application/x-npz"
BINARY: Final = "application/octet-stream"
# Source: Triton Inference Server's SageMaker front, "Binary Tensor Data" content type.
SAGEMAKER_BINARY: Final = "application/vnd.sagemaker-triton.binary+json"
PROTOBUF: Final = "application/x-protobuf"
MULTIPART: Final = "multipart/form-data"  # read by functions only

KNOWN: Final = (JSON, CSV, JSON_LINES, NPY, NPZ, BINARY, SAGEMAKER_BINARY, PROTOBUF)

ALIASES: Final = {
    "application/x-ndjson": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/jsonl": JSON_LINES,
    "application/protobuf": PROTOBUF,
}
"""Other names of the types; answers carry the name above."""


def sagemaker_binary(header_length: int) -> str:
    """SageMaker's content type of a binary body whose JSON header has `header_length` bytes."""
    return f"{SAGEMAKER_BINARY};json-header-size={header_length}"
