"""What the builders share: the signature of a graph, and the manifest beside it.

Builders are deterministic: the same sources and tools give the same bytes, since the digest of a version is taken over
the files of its package. So no times, no paths and nothing of the machine goes into a manifest.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from shared.adapters.onnx.execution import Execution
from shared.adapters.onnx.graph import signature_of
from shared.adapters.onnx.package import MANIFEST_FILE, MODEL_FILE, OnnxPackage
from shared.adapters.onnx.session import create_session
from shared.domain.signature import Signature, TensorSpec
from shared.schemas.manifest import Manifest, SignatureDocument

SLUICE = "Sluice"
_THREADS = 2
_DECIMALS = 6


def graph_tensors(folder: Path) -> Mapping[str, TensorSpec]:
    """Inputs and outputs of the package's graph by name, with the dtypes and shapes that the graph gives them."""
    signature = signature_of(folder / MODEL_FILE)
    return {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}


def tool_versions(names: Sequence[str]) -> dict[str, str]:
    """Installed versions by distribution name."""
    return {name: version(name) for name in sorted(names)}


def document_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch: int) -> SignatureDocument:
    """The manifest's signature of a batched model."""
    return SignatureDocument.from_signature(Signature(tuple(inputs), tuple(outputs), max_batch=max_batch))


def finish(folder: Path, manifest: Manifest, measure: Callable[[OnnxPackage], Mapping[str, float]]) -> None:
    """Write the manifest with what `measure` finds on the package, loaded as it will be served.

    Raises InvalidPackage if manifest and graph disagree or the model cannot predict the manifest's example.
    """
    package = OnnxPackage(manifest, Execution(create_session(folder / MODEL_FILE, threads=_THREADS)), folder)
    package.warm_up()
    metrics = {name: round(float(value), _DECIMALS) for name, value in measure(package).items()}
    document = manifest.model_copy(update={"metrics": metrics}).model_dump_json(indent=2, exclude_none=True)
    (folder / MANIFEST_FILE).write_text(document + "\n", encoding="utf-8")
