"""What the Open Inference Protocol tells of a server and a model: the same documents from the container and the API.

The names are those of the protocol's JSON and of its messages alike.
Sources: Open Inference Protocol, "Server Metadata", "Model Metadata"; Triton Inference Server, "Model Configuration"
(the platform's name).
"""

from collections.abc import Iterable
from typing import Any, Final

from shared.domain.signature import Signature, TensorSpec
from shared.domain.version import VERSION

PLATFORM: Final = "onnxruntime_onnx"
_SERVER: Final = "sluice"


def server_metadata(extensions: Iterable[str]) -> dict[str, Any]:
    """Name, version and extensions of a server."""
    return {"name": _SERVER, "version": VERSION, "extensions": list(extensions)}


def model_metadata(name: str, versions: Iterable[int], signature: Signature) -> dict[str, Any]:
    """The outer signature of a version, and the versions that are served, the lowest first."""
    return {
        "name": name,
        "versions": [str(version) for version in sorted(versions)],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def dims(shape: Iterable[int | None]) -> list[int]:
    """A shape as the protocol has it: -1 is a dimension of any size."""
    return [-1 if dim is None else dim for dim in shape]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype.value, "shape": dims(spec.shape)}
