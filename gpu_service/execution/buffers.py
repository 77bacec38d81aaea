"""Buffers on a device for one combination of shapes, bound to a session."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_service.execution.cancel import GRAPH_ID
from shared.adapters.onnx.execution import ONNX_BFLOAT16, Execution, GraphTensor, bf16_bits
from shared.adapters.onnx.runtime import ort
from shared.domain.dtypes import DType
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors


@dataclass(frozen=True, slots=True)
class Device:
    """Where buffers lie: ONNX Runtime's name of the kind of device, and which of them."""

    kind: str = "cpu"
    number: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Input shapes by name and the outputs that are wanted.

    `bucket` says how many rows a batch is filled up to (0: not at all); `ahead` allocates the outputs whose shape the
    inputs tell.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    bucket: int = 0
    ahead: bool = True


class Buffers:
    """Used by one run at a time: `fill`, `run`, `results`.

    `options` are those of a session that captures CUDA graphs: the number of the graph that these buffers belong to, -1
    for none.
    """

    __slots__ = ("_ahead", "_binding", "_bucket", "_dtypes", "_inputs", "_late", "_outputs", "_session", "options")

    def __init__(self, execution: Execution, device: Device, layout: Layout, graph: int | None = None) -> None:
        self._session = execution.session
        self._binding = execution.session.io_binding()
        inputs = {tensor.name: tensor for tensor in (*execution.inputs, *execution.optional)}
        outputs = {tensor.name: tensor for tensor in execution.outputs}
        self._outputs = layout.outputs
        self._dtypes = {name: outputs[name].dtype for name in layout.outputs}
        self._bucket = layout.bucket
        self.options: ort.RunOptions | None = None
        if graph is not None:
            self.options = ort.RunOptions()
            self.options.add_run_config_entry(GRAPH_ID, str(graph))
        self._inputs: dict[str, ort.OrtValue] = {}
        for name, shape in layout.inputs.items():
            self._inputs[name] = value = _allocate(shape, inputs[name].dtype, device)
            self._binding.bind_ortvalue_input(name, value)
        self._ahead: dict[str, ort.OrtValue] = {}
        self._late: tuple[str, ...] = ()
        sizes = _symbol_sizes([inputs[name] for name in layout.inputs], layout.inputs)
        for name in layout.outputs:
            known = _shape_of(outputs[name], sizes) if layout.ahead else None
            if known is None:
                self._late += (name,)
            else:
                # BF16 is read through its address, so it has to be in the CPU's memory.
                place = Device() if outputs[name].dtype is DType.BF16 else device
                self._ahead[name] = value = _allocate(known, outputs[name].dtype, place)
                self._binding.bind_ortvalue_output(name, value)

    def fill(self, feeds: Tensors) -> None:
        """Copy tensors to the device; rows that are missing are filled with the first one."""
        for name, value in self._inputs.items():
            array = feeds[name]
            if self._bucket and len(array) < self._bucket:
                array = padded(array, self._bucket)
            value.update_inplace(array)

    def run(self, options: ort.RunOptions) -> None:
        """Run the session on what was filled in; raises ONNX Runtime's exceptions."""
        for name in self._late:
            # A result of the last run would be taken for a buffer of this one.
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding, options)

    def results(self, rows: int) -> dict[str, Array]:
        """Copies of the outputs, since the buffers will hold another batch soon; what was filled up is cut off."""
        late: dict[str, ort.OrtValue] = {}
        if self._late:
            # In the order in which they were bound: first those that were allocated ahead.
            late = dict(zip((*self._ahead, *self._late), self._binding.get_outputs(), strict=True))
        results: dict[str, Array] = {}
        for name in self._outputs:
            value = self._ahead.get(name) or late[name]
            array = _to_array(value, self._dtypes[name])
            results[name] = array[:rows] if rows < self._bucket else array
        return results


def _allocate(shape: tuple[int, ...], dtype: DType | None, device: Device) -> ort.OrtValue:
    if dtype is None or dtype is DType.BYTES:
        raise TypeError(f"a tensor of {dtype} has no buffer")
    element = ONNX_BFLOAT16 if dtype is DType.BF16 else NUMPY_DTYPES[dtype].type
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, element, device.kind, device.number)


def _symbol_sizes(tensors: list[GraphTensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {
        symbol: size
        for tensor in tensors
        for symbol, size in zip(tensor.symbols, shapes[tensor.name], strict=False)  # an unknown rank has none
        if symbol is not None
    }


def _shape_of(tensor: GraphTensor, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    """The shape of an output if the inputs tell it; a rank of zero may stand for an unknown one."""
    shape: list[int] = []
    for dim, symbol in zip(tensor.shape, tensor.symbols, strict=True):
        size = dim if dim is not None else sizes.get(symbol or "")
        if size is None or size == 0:
            return None
        shape.append(size)
    return tuple(shape) or None


def _to_array(value: ort.OrtValue, dtype: DType | None) -> Array:
    if dtype is DType.BF16:
        return bf16_bits(value)
    array: Array = value.numpy()
    # On the CPU this is a view of the buffer.
    return array.copy() if value.device_name() == "cpu" else array


def padded(array: Array, rows: int) -> Array:
    """`array` with its first row repeated up to `rows`: values that the graph takes, whatever they mean."""
    filled = np.empty((rows, *array.shape[1:]), dtype=array.dtype)
    filled[: len(array)] = array
    filled[len(array) :] = array[:1]
    return filled
