"""The media types that are read and written."""

from typing import Final

from shared.adapters.sagemaker_wire import BINARY_JSON

JSON: Final = "application/json"
CSV: Final = "text/csv"
JSON_LINES: Final = "application/jsonlines"
NPY: Final = "application/x-npy"
NPZ: Final = "application/x-npz"
BINARY: Final = "application/octet-stream"
SAGEMAKER_BINARY: Final = BINARY_JSON
PROTOBUF: Final = "application/x-protobuf"

KNOWN: Final = (JSON, CSV, JSON_LINES, NPY, NPZ, BINARY, SAGEMAKER_BINARY, PROTOBUF)

ALIASES: Final = {
    "application/x-ndjson": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/jsonl": JSON_LINES,
    "application/protobuf": PROTOBUF,
}
"""Other names of the types; answers carry the name above."""
