"""The outputs of a batch whose requests have one row each: what is alike for all of them is worked out once."""

from collections.abc import Iterator, Mapping

import numpy as np

from shared.codecs.json_documents import dumps
from shared.domain.tensors import Array, Tensors


class BatchRows:
    """The outputs of a batch, `[rows, …]` each. `frame` is for the encoder: what surrounds the numbers of every row."""

    __slots__ = ("_texts", "frame", "outputs")

    def __init__(self, outputs: Tensors) -> None:
        self.outputs = outputs
        self.frame: object = None
        self._texts: list[tuple[bytes, ...]] | None = None

    def texts(self) -> list[tuple[bytes, ...]]:
        """By row, the numbers of each output as JSON, row-major and without brackets; the outputs must hold numbers.

        One call of the encoder for a batch, where one for each row would take longer than the encoding itself.
        """
        if self._texts is None:
            columns = [_rows_as_json(array) for array in self.outputs.values()]
            self._texts = list(zip(*columns, strict=True))
        return self._texts


class RowOutputs(Mapping[str, Array]):
    """The outputs of one row of a batch, `[1, …]` each; views, made when they are asked for."""

    __slots__ = ("batch", "row")

    def __init__(self, batch: BatchRows, row: int) -> None:
        self.batch = batch
        self.row = row

    def __getitem__(self, name: str) -> Array:
        array: Array = self.batch.outputs[name][self.row : self.row + 1]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch.outputs)

    def __len__(self) -> int:
        return len(self.batch.outputs)


def _rows_as_json(array: Array) -> list[bytes]:
    rows = len(array)
    if not array.size:
        return [b""] * rows
    return dumps(np.ascontiguousarray(array).reshape(rows, -1))[2:-2].split(b"],[")
