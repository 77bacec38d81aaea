"""Predictions as Parquet: the columns of a CSV answer, lists for outputs whose size varies, and `error`."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shared.codecs.batch.answers import ERROR, fixed_dims
from shared.codecs.batch.parquet_file import opened
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.rows import Rows
from shared.codecs.csv_tensors import column_names
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32

_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 8 << 20
_COMPRESSION = "snappy"  # what every reader of Parquet knows


class ParquetPartWriter:
    """A whole Parquet file of one part; rows are collected into row groups of about 8 MiB."""

    def __init__(self, sink: BinaryIO, signature: Signature) -> None:
        from pyarrow import parquet

        self._signature = signature
        self._schema = parquet_schema(signature)
        self._writer = parquet.ParquetWriter(sink, self._schema, compression=_COMPRESSION)
        self._held: list[Any] = []

    def write(self, rows: Rows, outputs: Tensors) -> None:
        """See `PartWriter`."""
        import pyarrow as pa

        good = np.ones(rows.count, np.bool_)
        for error in rows.errors:
            good[error.row - rows.first_row] = False
        columns = [
            column for spec in self._signature.outputs for column in self._columns(spec, outputs.get(spec.name), good)
        ]
        texts: list[str | None] = [None] * rows.count
        for error in rows.errors:
            texts[error.row - rows.first_row] = error.text()
        columns.append(pa.array(texts, pa.string()))
        self._held.append(pa.record_batch(columns, schema=self._schema))
        size = sum(batch.nbytes for batch in self._held)
        if size >= _GROUP_BYTES or sum(batch.num_rows for batch in self._held) >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """See `PartWriter`."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held), row_group_size=_GROUP_ROWS * 2)
            self._held = []

    def _columns(self, spec: TensorSpec, output: Array | None, good: npt.NDArray[np.bool_]) -> Iterator[Any]:
        """The Arrow arrays of an output, null for rows with an error."""
        import pyarrow as pa

        dims = fixed_dims(spec, self._signature)
        kind = _arrow_type(spec.dtype)
        count = int(np.count_nonzero(good))
        if output is not None and not self._signature.batched:
            output = output[np.newaxis]
        if dims is None:
            values = iter([] if output is None else _nested(output, spec))
            nested = [next(values) if is_good else None for is_good in good.tolist()]
            yield pa.array(nested, _list_type(spec, self._signature))
            return
        width = int(np.prod(dims))
        table = np.empty((0, width)) if output is None else _plain(output, spec).reshape(count, width)
        for at in range(width):
            if spec.dtype is DType.BYTES:
                texts = iter([value.decode("utf-8", "replace") for value in table[:, at].tolist()])
                yield pa.array([next(texts) if is_good else None for is_good in good.tolist()], kind)
            elif count == len(good):
                yield pa.array(np.ascontiguousarray(table[:, at]), kind)
            else:
                full = np.zeros(len(good), table.dtype if count else np.float32)
                full[good] = table[:, at]
                yield pa.array(full.astype(kind.to_pandas_dtype()), kind, mask=~good)


def parquet_schema(signature: Signature) -> Any:
    """The Arrow schema of an answer."""
    import pyarrow as pa

    fields: list[tuple[str, Any]] = []
    for spec in signature.outputs:
        dims = fixed_dims(spec, signature)
        if dims is None:
            fields.append((spec.name, _list_type(spec, signature)))
        else:
            kind = _arrow_type(spec.dtype)
            fields.extend((name, kind) for name in column_names(spec, int(np.prod(dims))))
    return pa.schema([*fields, (ERROR, pa.string())])


def join_parquet(parts: Sequence[Ranges], signature: Signature) -> Iterator[bytes]:
    """The parts' row groups as one file, each read and written alone."""
    from pyarrow import parquet

    sink = _Drain()
    writer = parquet.ParquetWriter(sink, parquet_schema(signature), compression=_COMPRESSION)
    for part in parts:
        with opened(part) as file:
            for group in range(file.metadata.num_row_groups):
                writer.write_table(file.read_row_group(group, use_threads=False), row_group_size=_GROUP_ROWS * 2)
                yield sink.drain()
    writer.close()
    yield sink.drain()


class _Drain(io.RawIOBase):
    """A file that is only written to, whose bytes are taken away meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """How many bytes were written."""
        return self._at

    def write(self, data: Any) -> int:
        """See `io.RawIOBase`."""
        piece = bytes(data)
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def drain(self) -> bytes:
        """What was written since the last call."""
        held = b"".join(self._pieces)
        self._pieces.clear()
        return held


def _arrow_type(dtype: DType) -> Any:
    """Arrow's type; FP32 for FP16 and BF16, which many readers of Parquet do not know."""
    import pyarrow as pa

    if dtype is DType.BYTES:
        return pa.string()
    if dtype is DType.BOOL:
        return pa.bool_()
    if dtype.is_float:
        return pa.float64() if dtype is DType.FP64 else pa.float32()
    return pa.type_for_alias(dtype.value.lower())


def _list_type(spec: TensorSpec, signature: Signature) -> Any:
    import pyarrow as pa

    kind = _arrow_type(spec.dtype)
    for _ in spec.shape[1:] if signature.batched else spec.shape:
        kind = pa.list_(kind)
    return kind


def _plain(output: Array, spec: TensorSpec) -> Array:
    if spec.dtype is DType.BF16:
        return bf16_to_fp32(output)
    return output.astype(np.float32) if spec.dtype is DType.FP16 else output


def _nested(output: Array, spec: TensorSpec) -> list[Any]:
    if spec.dtype is not DType.BYTES:
        rows: list[Any] = _plain(output, spec).tolist()
        return rows
    texts = np.array([value.decode("utf-8", "replace") for value in output.ravel().tolist()], np.object_)
    nested: list[Any] = texts.reshape(output.shape).tolist()
    return nested
