"""What a graph itself says of its tensors, and the outer signature of a graph that has no manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from shared.adapters.onnx.execution import Execution, GraphTensor
from shared.adapters.onnx.runtime import ort
from shared.adapters.onnx.session import create_session
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidPackage, SluiceError
from shared.domain.signature import Dim, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array

_PROBE_ROWS = 3
_PROBE_ELEMENTS = 1 << 26
_MAX_OPTIONAL = 16
_Shapes = Mapping[str, tuple[int, ...]]


def signature_of(path: Path) -> Signature:
    """The outer signature of the bare graph in a file; InvalidPackage if it cannot be served as it is."""
    return read_signature(create_session(path, threads=1))


def read_signature(session: ort.InferenceSession) -> Signature:
    """The outer signature of a bare graph.

    Inputs that have an initializer are optional. Exporters exist that list every weight as an input: more than
    `_MAX_OPTIONAL` of them are taken for that and left out. Symbolic and unknown dimensions become None.
    The signature is batched if the first axis of every tensor is of any size and carries one common symbol. Many
    exporters name no symbols, or different ones: then a probe run on three rows of zeros must give three rows in every
    output. It also tells the rank of outputs without a shape. A graph that refuses the probe counts as not batched.
    """
    execution = Execution(session)
    for tensor in (*execution.inputs, *execution.outputs):
        if tensor.dtype is None:
            # skl2onnx wraps probabilities into maps unless told not to: the commonest export of a classifier.
            hint = (
                ' Export the classifier with options={"zipmap": False}.' if tensor.type.startswith("seq(map(") else ""
            )
            raise InvalidPackage(
                f"{tensor.name!r} is a {tensor.type}: only tensors of numbers, bools and strings can be served.{hint}"
            )
    if not execution.inputs or not execution.outputs:
        raise InvalidPackage("The graph needs at least one input and one output.")
    may_be_batched = all(tensor.shape and tensor.shape[0] is None for tensor in execution.inputs)
    symbols = {tensor.symbols[0] for tensor in (*execution.inputs, *execution.outputs) if tensor.symbols}
    certain = may_be_batched and len(symbols) == 1 and None not in symbols and _all_ranked(execution.outputs)
    probed = {} if certain else _probe(execution)
    batched = certain or (may_be_batched and _one_symbol(execution.inputs) and _follows_rows(execution.outputs, probed))
    return Signature(
        inputs=(*(_spec(tensor, tensor.shape) for tensor in execution.inputs), *_optional(execution)),
        outputs=tuple(_spec(tensor, _output_shape(tensor, probed)) for tensor in execution.outputs),
        batched=batched,
    )


def zeros(dtype: DType, shape: tuple[Dim, ...], rows: int) -> Array:
    """A tensor of zeros or empty strings: `rows` for a first axis of any size, 1 for every other such axis."""
    sizes = tuple((rows if axis == 0 else 1) if dim is None else dim for axis, dim in enumerate(shape))
    return np.full(sizes, b"", dtype=np.object_) if dtype is DType.BYTES else np.zeros(sizes, NUMPY_DTYPES[dtype])


def _spec(tensor: GraphTensor, shape: tuple[Dim, ...]) -> TensorSpec:
    if tensor.dtype is None:
        raise InvalidPackage(f"{tensor.name!r} is no tensor.")
    return TensorSpec(tensor.name, tensor.dtype, shape)


def _optional(execution: Execution) -> Iterator[TensorSpec]:
    if len(execution.optional) <= _MAX_OPTIONAL:
        for tensor in execution.optional:
            if tensor.dtype is not None:
                yield replace(_spec(tensor, tensor.shape), optional=True)


def _all_ranked(outputs: tuple[GraphTensor, ...]) -> bool:
    return all(tensor.shape and tensor.shape[0] is None for tensor in outputs)


def _one_symbol(inputs: tuple[GraphTensor, ...]) -> bool:
    return len({tensor.symbols[0] for tensor in inputs} - {None}) <= 1


def _follows_rows(outputs: tuple[GraphTensor, ...], probed: _Shapes) -> bool:
    return bool(probed) and all(
        probed[tensor.name][:1] == (_PROBE_ROWS,) and tensor.shape[:1] in ((), (None,)) for tensor in outputs
    )


def _output_shape(tensor: GraphTensor, probed: _Shapes) -> tuple[Dim, ...]:
    """ONNX Runtime gives [] both for a scalar and for an output of unknown rank; the probe tells them apart."""
    return tensor.shape or (None,) * len(probed.get(tensor.name, ()))


def _probe(execution: Execution) -> _Shapes:
    elements = sum(prod(_PROBE_ROWS if dim is None else dim for dim in tensor.shape) for tensor in execution.inputs)
    if elements > _PROBE_ELEMENTS:
        return {}
    feeds = {tensor.name: zeros(tensor.dtype, tensor.shape, _PROBE_ROWS) for tensor in execution.inputs if tensor.dtype}
    try:
        outputs = execution.run([tensor.name for tensor in execution.outputs], feeds)
    except SluiceError:  # zeros need not make sense to a graph; then nothing is learned from it
        return {}
    return {name: array.shape for name, array in outputs.items()}
