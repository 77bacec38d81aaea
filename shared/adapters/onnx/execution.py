"""One run of a graph: our tensors in, our tensors out, ONNX Runtime's errors made ours.

`BYTES` travel as ONNX string tensors, whose elements are UTF-8 text. BF16 has no NumPy type and goes through OrtValue.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, InvalidRequest, WrongDtype, pointer
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
_ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16 in onnx.proto


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


class Execution:
    """A session with what its graph takes and gives; may be used from several threads at once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self.inputs = tuple(_describe(node) for node in session.get_inputs())
        self.outputs = tuple(_describe(node) for node in session.get_outputs())
        self._input_dtypes = {tensor.name: tensor.dtype for tensor in self.inputs}
        self._output_dtypes = {tensor.name: tensor.dtype for tensor in self.outputs}

    def run(self, outputs: Sequence[str], feeds: Tensors) -> dict[str, Array]:
        """The named outputs; raises InvalidRequest for inputs that the graph refuses, BackendError if it fails."""
        native = {name: _to_native(array, self._input_dtypes[name]) for name, array in feeds.items()}
        dtypes = [self._output_dtypes[name] for name in outputs]
        try:
            if DType.BF16 in dtypes or DType.BF16 in self._input_dtypes.values():
                arrays = self._run_values(outputs, native)
            else:
                arrays = self.session.run(list(outputs), native)
        except InvalidArgument as error:
            raise InvalidRequest(
                "The model does not take these values: shapes or indices do not go together."
            ) from error
        except Exception as error:
            raise BackendError("The model failed while it ran.") from error
        return {
            name: _encode_strings(array) if dtype is DType.BYTES else array
            for name, array, dtype in zip(outputs, arrays, dtypes, strict=True)
        }

    def _run_values(self, outputs: Sequence[str], feeds: Tensors) -> list[Array]:
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), _ONNX_BFLOAT16)
            if self._input_dtypes[name] is DType.BF16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in feeds.items()
        }
        results = self.session.run_with_ort_values(list(outputs), values)
        return [
            _bf16_bits(result) if self._output_dtypes[name] is DType.BF16 else result.numpy()
            for name, result in zip(outputs, results, strict=True)
        ]


def _describe(node: ort.NodeArg) -> GraphTensor:
    fixed = [dim if isinstance(dim, int) and dim >= 0 else None for dim in node.shape]
    symbols = [dim if isinstance(dim, str) and dim else None for dim in node.shape]
    return GraphTensor(node.name, node.type, _DTYPES.get(node.type), tuple(fixed), tuple(symbols))


def _to_native(array: Array, dtype: DType | None) -> Array:
    if dtype is DType.BYTES:
        return decode_strings(array)
    # ONNX Runtime reads the bytes of another byte order as if they were its own.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


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


def _encode_strings(array: Array) -> Array:
    encoded = np.empty(array.shape, dtype=np.object_)
    for index, value in np.ndenumerate(array):
        encoded[index] = value.encode("utf-8")
    return encoded


def _bf16_bits(value: ort.OrtValue) -> Array:
    """The raw bits of a BF16 OrtValue as uint16: its own `numpy()` knows no such type."""
    if value.device_name() != "cpu":
        raise BackendError("A BF16 output is not in the memory of the CPU.")
    bits = np.empty(tuple(value.shape()), dtype=np.uint16)
    ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits
