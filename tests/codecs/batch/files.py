"""Files for the tests of batch codecs, and short ways through all steps."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import settings

from shared.codecs.batch.files import inspect, join, part_writer, plan, read
from shared.codecs.batch.ranges import BytesRanges
from shared.codecs.batch.rows import Rows
from shared.domain.batch_formats import Bounds, Layout, PartSpec, RowError, file_type
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors
from tests.codecs.signatures import BOUNDED

FEW = settings(BOUNDED, max_examples=15)
TINY = Bounds(target_bytes=8, target_rows=3)


def takes(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (), batched: bool = True) -> Signature:
    output = TensorSpec("y", DType.FP32, (None, 1) if batched else (1,))
    return Signature(inputs, outputs or (output,), batched=batched, max_batch=2)


def numbers(dtype: DType = DType.FP32, width: int = 2, **more: Any) -> Signature:
    return takes(TensorSpec("x", dtype, (None, width), **more))


class Batch:
    """A file that was planned, its layout having gone through JSON."""

    def __init__(self, name: str, content: bytes, signature: Signature, bounds: Bounds = TINY) -> None:
        self.kind = file_type(name)
        self.signature = signature
        self.file = BytesRanges(content)
        self.layout = Layout.from_json(inspect(self.file, self.kind, signature, bounds).to_json())
        self.stored: dict[int, bytes] = {}
        made = plan(self.file, self.layout, bounds, self.stored.__setitem__)
        self.parts = [PartSpec.from_json(part.to_json()) for part in made]

    def read(self, part: PartSpec, batch_rows: int = 4) -> list[Rows]:
        ranges = BytesRanges(self.stored[part.number]) if self.kind.packed else self.file
        return list(read(ranges, self.layout, part, self.signature, batch_rows))

    def rows(self, batch_rows: int = 4) -> list[Rows]:
        return [rows for part in self.parts for rows in self.read(part, batch_rows)]

    def good(self, name: str = "x", batch_rows: int = 4) -> dict[int, Any]:
        """The values of the good rows by their numbers."""
        values: dict[int, Any] = {}
        for rows in self.rows(batch_rows):
            if not rows.good:
                assert not rows.tensors
                continue
            places = range(rows.count) if rows.positions is None else rows.positions.tolist()
            array: Array = rows.tensors[name] if self.signature.batched else rows.tensors[name][np.newaxis]
            assert len(array) == rows.good
            values |= zip((rows.first_row + place for place in places), array.tolist(), strict=True)
        return values

    def errors(self, batch_rows: int = 4) -> dict[int, RowError]:
        found = [error for rows in self.rows(batch_rows) for error in rows.errors]
        assert len({error.row for error in found}) == len(found)
        return {error.row: error for error in found}

    def answer(self, outputs: Mapping[str, Any], batch_rows: int = 4) -> bytes:
        """The answer whose rows are those of `outputs`, arrays of all rows, at the good rows' numbers."""
        written: list[BytesRanges] = []
        for part in self.parts:
            sink = io.BytesIO()
            writer = part_writer(sink, self.layout, self.signature)
            for rows in self.read(part, batch_rows):
                writer.write(rows, _chosen(outputs, rows, batched=self.signature.batched))
            writer.close()
            written.append(BytesRanges(sink.getvalue()))
        joined = join(written, self.layout, self.signature, sum(part.rows for part in self.parts))
        content = b"".join(joined)
        assert joined.size == len(content)
        return content


def _chosen(outputs: Mapping[str, Any], rows: Rows, *, batched: bool) -> Tensors:
    if not rows.good:
        return {}
    places = np.arange(rows.count) if rows.positions is None else rows.positions
    chosen = {name: array[rows.first_row + places] for name, array in outputs.items()}
    return chosen if batched else {name: array[0] for name, array in chosen.items()}


def check_cover(batch: Batch, rows: int) -> None:
    """The parts hold all rows once, in order, and say how many."""
    first = 0
    for number, part in enumerate(batch.parts):
        assert (part.number, part.first_row) == (number, first)
        assert part.rows > 0
        first += part.rows
    assert first == rows
    at = 0
    for found in batch.rows():
        assert found.first_row == at
        assert found.good + len(found.errors) == found.count
        at += found.count
    assert at == rows
