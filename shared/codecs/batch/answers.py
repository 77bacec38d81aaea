"""The predictions of a part, written in the order of its rows; each format as its synchronous answer, with errors."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

import numpy as np

from shared.codecs.batch.npy_file import missing_row
from shared.codecs.batch.rows import Rows
from shared.codecs.json_documents import dumps
from shared.codecs.json_tensors import encode_predictions
from shared.domain.batch_formats import Format, RowError
from shared.domain.dtypes import DType
from shared.domain.errors import NotAcceptable
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32

ERROR = "error"


class PartWriter(Protocol):
    """Writes the rows of one part to a file, in order and without gaps."""

    def write(self, rows: Rows, outputs: Tensors) -> None:
        """The outputs `[rows.good, …]` of the good rows (none of them if there is no good row), and the errors."""

    def close(self) -> None:
        """What is still held back; the file itself stays open."""


def check_answer(form: Format, signature: Signature, *, errors_allowed: bool) -> None:
    """Raise NotAcceptable if files of a format cannot hold the outputs of a model."""
    if form in ("csv", "parquet") and any(spec.name == ERROR for spec in signature.outputs):
        raise NotAcceptable(f"An output of this model is called {ERROR!r}, like the column of errors: send JSON Lines.")
    if form != "npy":
        return
    specs = signature.outputs
    if len(specs) != 1 or specs[0].dtype is DType.BYTES or fixed_dims(specs[0], signature) is None:
        raise NotAcceptable("An NPY file holds one output of numbers whose shape is fixed: send JSON Lines or Parquet.")
    if errors_allowed and not specs[0].dtype.is_float:
        raise NotAcceptable(
            f"A row with an error is NaN in an NPY file, which {specs[0].dtype} has not: allow no errors, or send "
            "another format."
        )


def fixed_dims(spec: TensorSpec, signature: Signature) -> tuple[int, ...] | None:
    """The shape of an output for one row; None if it varies."""
    dims = spec.shape[1:] if signature.batched else spec.shape
    sizes = tuple(dim for dim in dims if dim is not None)
    return sizes if len(sizes) == len(dims) else None


def _in_order(good: Iterable[bytes], rows: Rows) -> Iterator[bytes]:
    """The lines of the good rows and, in their places, those of errors."""
    lines = iter(good)
    errors = {error.row - rows.first_row: error for error in rows.errors}
    for at in range(rows.count):
        yield _error_line(errors[at]) if at in errors else next(lines)


class LinesWriter:
    """JSON Lines: a row with an error is `{"error": {"code", "detail", "pointer"}}`."""

    def __init__(self, sink: BinaryIO, signature: Signature) -> None:
        self._sink = sink
        self._signature = signature
        self._template = _template(signature)

    def write(self, rows: Rows, outputs: Tensors) -> None:
        """See `PartWriter`."""
        good = self._lines(outputs, rows.good) if rows.good else []
        self._sink.write(b"".join(_in_order(good, rows) if rows.errors else good))

    def _lines(self, outputs: Tensors, count: int) -> list[bytes]:
        """The lines of predictions; one call of the encoder for each output where that is enough."""
        if self._template is None or not all(outputs[spec.name].size for spec in self._signature.outputs):
            return [dumps(each) + b"\n" for each in encode_predictions(outputs, self._signature)]
        texts: list[list[bytes]] = []
        for spec in self._signature.outputs:
            array = bf16_to_fp32(outputs[spec.name]) if spec.dtype is DType.BF16 else outputs[spec.name]
            rows = dumps(np.ascontiguousarray(array).reshape(count, -1))[2:-2].split(b"],[")
            if spec.classes and array.ndim == 2:
                texts.extend(map(list, zip(*(row.split(b",") for row in rows), strict=True)))
            else:
                texts.append(rows)
        return [self._template % row for row in zip(*texts, strict=True)]

    def close(self) -> None:
        """See `PartWriter`."""


def _template(signature: Signature) -> bytes | None:
    """A line with a place for the numbers of each output, or of each class; None where outputs are no such numbers."""
    parts: list[bytes] = []
    for spec in signature.outputs:
        if not signature.batched or spec.dtype is DType.BYTES or len(spec.shape) > 2:
            return None
        if spec.classes and len(spec.shape) == 2:
            names = (dumps(name).replace(b"%", b"%%") for name in spec.classes)
            text = b"{%s}" % b",".join(name + b":%s" for name in names)
        else:
            text = b"%s" if len(spec.shape) == 1 else b"[%s]"
        parts.append(text if len(signature.outputs) == 1 else dumps(spec.name).replace(b"%", b"%%") + b":" + text)
    return (parts[0] if len(parts) == 1 else b"{%s}" % b",".join(parts)) + b"\n"


def _error_line(error: RowError) -> bytes:
    return dumps({ERROR: {"code": error.code, "detail": error.detail, "pointer": error.pointer}}) + b"\n"


class NpyWriter:
    """The rows' elements alone: the header comes when parts are joined. Little-endian, C order."""

    def __init__(self, sink: BinaryIO, signature: Signature) -> None:
        self._sink = sink
        self._spec = signature.outputs[0]

    def write(self, rows: Rows, outputs: Tensors) -> None:
        """See `PartWriter`; a row with an error is NaN."""
        if rows.errors:
            missing = missing_row(self._spec)
            array: Array = np.empty((rows.count, *missing.shape), missing.dtype)
            array[:] = missing
            if rows.good:
                array[rows.positions] = outputs[self._spec.name]
        else:
            array = outputs[self._spec.name]
        self._sink.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)

    def close(self) -> None:
        """See `PartWriter`."""
