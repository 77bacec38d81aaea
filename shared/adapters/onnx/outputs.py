"""What a package gives: graph outputs, their post-processing, and the check against what the manifest promises."""

from collections.abc import Mapping, Sequence

from shared.adapters.onnx.steps.label import Labeler
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array
from shared.schemas.manifest import Manifest


class ContractBroken(BackendError):
    """The model gave outputs that its manifest does not promise."""


class Output:
    """An outer output: the graph output that it comes from, its post-processing, what its manifest promises."""

    __slots__ = ("classes", "dtype", "fixed", "label", "rank", "source", "spec", "state")

    def __init__(self, spec: TensorSpec, source: str, label: Labeler | None = None, *, state: bool = False) -> None:
        self.spec = spec
        self.source = source
        self.label = label
        self.state = state
        self.dtype = NUMPY_DTYPES[spec.dtype]
        self.rank = len(spec.shape)
        self.fixed = tuple((axis, dim) for axis, dim in enumerate(spec.shape) if dim is not None)
        self.classes = len(spec.classes) if spec.dtype is not DType.BYTES else 0

    def check(self, array: Array, rows: int | None) -> None:
        """BackendError unless there are as many `rows` as were given (None: it is no batch).

        ContractBroken if the model gives what its manifest does not promise: callers rely on the contract.
        """
        shape = array.shape
        if rows is not None and not self.state and shape[:1] != (rows,):
            name = self.spec.name
            raise BackendError(f"The model answered {rows} rows with an output {name!r} of shape {list(shape)}.")
        fits = array.dtype == self.dtype and len(shape) == self.rank
        if fits:
            for axis, dim in self.fixed:
                fits = fits and shape[axis] == dim
        if not fits:
            promised = [-1 if dim is None else dim for dim in self.spec.shape]
            raise ContractBroken(
                f"The model answered an output {self.spec.name!r} of type {array.dtype} and shape {list(shape)}; its "
                f"manifest says {self.spec.dtype} and {promised}."
            )
        if self.classes and shape[-1] != self.classes:
            raise ContractBroken(
                f"The model answered {shape[-1]} values for the {self.classes} classes of {self.spec.name!r}."
            )


class OutputPlan:
    """Outer outputs, and the graph outputs that are run for them."""

    __slots__ = ("labelled", "outputs", "sources")

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = outputs
        self.sources = list(dict.fromkeys(output.source for output in outputs))
        self.labelled = any(output.label for output in outputs)


def outputs_of(manifest: Manifest, signature: Signature) -> Mapping[str, Output]:
    """Every output that can be asked for, those of the signature first and in its order."""
    labels = {step.output: step for step in manifest.postprocessing}
    outputs = {spec.name: Output(spec, spec.name) for spec in signature.outputs}
    for state in manifest.serving_policy().state:
        outputs.setdefault(
            state.output, Output(TensorSpec(state.output, state.dtype, state.shape), state.output, state=True)
        )
    for name, step in labels.items():
        outputs[name] = Output(outputs[name].spec, step.source, Labeler(step.classes))
    return outputs
