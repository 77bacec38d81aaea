"""One run of a graph: our tensors in, our tensors out, ONNX Runtime's errors made ours.

`BYTES` travel as ONNX string tensors, whose elements are UTF-8 text. BF16 has no NumPy type and goes through OrtValue.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shared.adapters.onnx.runtime import InvalidArgument, ort
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, BackendTimeout, InvalidRequest, SluiceError, WrongDtype, pointer
from shared.domain.signature import Dim
from shared.domain.tensors import Array, Tensors

_DTYPES: Mapping[str, DType] = {
    "tensor(bool)": DType.BOOL,
    "tensor(uint8)": DType.UINT8,
    "tensor(uint16)": DType.UINT16,
    "tensor(uint32)": DType.UINT32,
    "tensor(uint64)": DType.UINT64,
    "tensor(int8)": DType.INT8,
    "tensor(int16)": DType.INT16,
    "tensor(int32)": DType.INT32,
    "tensor(int64)": DType.INT64,
    "tensor(float16)": DType.FP16,
    "tensor(bfloat16)": DType.BF16,
    "tensor(float)": DType.FP32,
    "tensor(double)": DType.FP64,
    "tensor(string)": DType.BYTES,
}
ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16 in onnx.proto


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of a graph: `type` is ONNX's, `dtype` ours (None where we have none).

    `symbols` holds the names of symbolic dimensions, None for fixed and unnamed ones. A tensor of unknown rank looks
    like a scalar.
    """

    name: str
    type: str
    dtype: DType | None
    shape: tuple[Dim, ...]
    symbols: tuple[str | None, ...]


class RunTerminated(BackendTimeout):
    """A run that was stopped from outside, because nobody needs its result any more."""


class Runner(Protocol):
    """Runs a graph on our tensors; may be used from several threads at once."""

    def run(self, outputs: Sequence[str], feeds: Tensors, options: ort.RunOptions | None = None) -> dict[str, Array]:
        """The named outputs; InvalidRequest for what the graph refuses, BackendError, RunTerminated."""


class Execution:
    """A session with what its graph takes and gives; may be used from several threads at once.

    `optional` holds the inputs that have an initializer: a run may leave them out.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self.inputs = tuple(_describe(node) for node in session.get_inputs())
        self.optional = tuple(_describe(node) for node in session.get_overridable_initializers())
        self.outputs = tuple(_describe(node) for node in session.get_outputs())
        self._input_dtypes = {tensor.name: tensor.dtype for tensor in (*self.inputs, *self.optional)}
        self._output_dtypes = {tensor.name: tensor.dtype for tensor in self.outputs}
        dtypes = {*self._input_dtypes.values(), *self._output_dtypes.values()}
        self._by_value = DType.BF16 in dtypes
        self._texts_in = DType.BYTES in self._input_dtypes.values()
        self._texts_out = DType.BYTES in self._output_dtypes.values()
        # Without options ONNX Runtime makes and destroys its own for every run, which takes two microseconds.
        self._options = ort.RunOptions()

    def run(self, outputs: Sequence[str], feeds: Tensors, options: ort.RunOptions | None = None) -> dict[str, Array]:
        """The named outputs; raises InvalidRequest for inputs that the graph refuses, BackendError if it fails.

        RunTerminated if `options.terminate` was set before the end.
        """
        native = self.to_native(feeds)
        chosen = self._options if options is None else options
        try:
            if self._by_value:
                arrays = self._run_values(outputs, native, chosen)
            else:
                arrays = self.session.run(outputs, native, chosen)
        except Exception as error:
            raise run_error(error, options) from error
        results: dict[str, Array] = dict(zip(outputs, arrays, strict=True))
        if self._texts_out:
            for name, array in results.items():
                if self._output_dtypes[name] is DType.BYTES:
                    results[name] = encode_strings(array)
        return results

    def to_native(self, feeds: Tensors) -> Tensors:
        """Tensors as ONNX Runtime takes them: text as `str`, numbers in this machine's byte order."""
        if self._texts_in:
            texts = self._input_dtypes
            feeds = {name: decode_strings(a) if texts[name] is DType.BYTES else a for name, a in feeds.items()}
        for array in feeds.values():
            if not array.dtype.isnative:
                # ONNX Runtime reads the bytes of another byte order as if they were its own.
                return {name: a.astype(a.dtype.newbyteorder("=")) for name, a in feeds.items()}
        return feeds

    def _run_values(self, outputs: Sequence[str], feeds: Tensors, options: ort.RunOptions | None) -> list[Array]:
        values = {name: to_ort_value(array, self._input_dtypes[name]) for name, array in feeds.items()}
        results = self.session.run_with_ort_values(outputs, values, options)
        return [
            bf16_bits(result) if self._output_dtypes[name] is DType.BF16 else result.numpy()
            for name, result in zip(outputs, results, strict=True)
        ]


def run_error(error: Exception, options: ort.RunOptions | None) -> SluiceError:
    """Our error for one that a run raised."""
    if isinstance(error, SluiceError):
        return error
    if options is not None and options.terminate:
        return RunTerminated("The run was stopped: nobody waits for its result any more.")
    if isinstance(error, InvalidArgument):
        return InvalidRequest("The model does not take these values: shapes or indices do not go together.")
    return BackendError("The model failed while it ran.")


def to_ort_value(array: Array, dtype: DType | None, device: str = "cpu", device_id: int = 0) -> ort.OrtValue:
    """A tensor of numbers as ONNX Runtime holds it, BF16 from its bits; on the CPU it shares the array's memory."""
    dense = np.asarray(array, order="C")
    if dtype is DType.BF16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(dense, ONNX_BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(dense, device, device_id)


def _describe(node: ort.NodeArg) -> GraphTensor:
    fixed = [dim if isinstance(dim, int) and dim >= 0 else None for dim in node.shape]
    symbols = [dim if isinstance(dim, str) and dim else None for dim in node.shape]
    return GraphTensor(node.name, node.type, _DTYPES.get(node.type), tuple(fixed), tuple(symbols))


def decode_strings(array: Array) -> Array:
    """BYTES as an object array of `str`, same shape; WrongDtype names the row that is not UTF-8."""
    texts = np.empty(array.shape, dtype=np.object_)
    for index, value in np.ndenumerate(array):
        try:
            texts[index] = value.decode("utf-8")
        except UnicodeDecodeError:
            row = index[0] if index else 0
            raise WrongDtype.at(pointer("/instances", row), "is not UTF-8 text") from None
    return texts


def encode_strings(array: Array) -> Array:
    """The BYTES of an array of `str`, same shape."""
    encoded = np.empty(array.shape, dtype=np.object_)
    for index, value in np.ndenumerate(array):
        encoded[index] = value.encode("utf-8")
    return encoded


def bf16_bits(value: ort.OrtValue) -> Array:
    """The raw bits of a BF16 OrtValue as uint16: its own `numpy()` knows no such type."""
    if value.device_name() != "cpu":
        raise BackendError("A BF16 output is not in the memory of the CPU.")
    bits = np.empty(tuple(value.shape()), dtype=np.uint16)
    ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits
