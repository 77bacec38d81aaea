"""NPY files: rows are along the first axis; each part is a range of the data, which has no header then.

Source: NumPy Enhancement Proposal 1; versions 1 to 3, C order.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from shared.codecs.batch.cutting import Store, content
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.rows import Block, Reason, Rows, misfits, reason, unbounded
from shared.codecs.npy import read_elements, read_header
from shared.domain.batch_formats import Bounds, FileType, PartSpec
from shared.domain.dtypes import DType
from shared.domain.errors import EmptyBatch, InvalidRequest, PayloadTooLarge, WrongShape
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array
from shared.domain.validation import Inputs, check_structure, check_values

_HEAD = 16 << 10  # more than any header that is read
_BLOCK = 4 << 20
_PACKED_PART = 16 << 20


def inspect_npy(ranges: Ranges, kind: FileType, signature: Signature, bounds: Bounds) -> dict[str, Any]:
    """The dtype, the shape and where the data starts; InvalidRequest where the model takes no such rows."""
    if len(signature.required) != 1 or not signature.batched:
        raise InvalidRequest("An NPY file holds rows of a single input; this model takes other ones.")
    spec = signature.required[0]
    head = _head(content(ranges, kind, bounds, chunk=_HEAD))
    dtype, is_fortran, shape, start = read_header(memoryview(head), "")
    if is_fortran and len(shape) > 1:
        raise WrongShape("The array is column-major (Fortran order): its rows are not contiguous. Save it in C order.")
    if not shape:
        raise WrongShape("The array has no axis of rows.")
    if 0 in shape:
        raise EmptyBatch("The file holds no row.")
    if shape[0] > bounds.max_rows:
        raise PayloadTooLarge(f"The file has {shape[0]} rows; the limit is {bounds.max_rows}.")
    row_bytes = prod(shape[1:]) * dtype.itemsize
    if row_bytes > bounds.max_line:
        raise PayloadTooLarge(f"A row has {row_bytes} bytes; the limit is {bounds.max_line}.")
    size = start + shape[0] * row_bytes
    if not kind.packed and size != ranges.size:
        raise WrongShape(f"The file has {ranges.size} bytes; {dtype.str} of shape {list(shape)} takes {size}.")
    sample = read_elements(memoryview(bytes(row_bytes)), dtype, prod(shape[1:]), spec, "")
    check_structure(Inputs({spec.name: sample.reshape(1, *shape[1:])}, lambda _name, _index: ""), unbounded(signature))
    return {"dtype": dtype.str, "shape": list(shape), "start": start}


def plan_npy(
    ranges: Ranges, kind: FileType, details: Mapping[str, Any], bounds: Bounds, store: Store | None
) -> Iterator[PartSpec]:
    """The parts, by arithmetic; of a packed file, by its content."""
    rows, row_bytes = details["shape"][0], _row_bytes(details)
    data = content(ranges, kind, bounds, details["start"]) if store is not None else iter(())
    held = bytearray()
    first = number = 0
    while first < rows:
        growth = bounds.growth(number)
        if store is None:
            target = bounds.part_bytes(ranges.size) * growth
        else:
            target = min(max(bounds.target_bytes, -(-rows * row_bytes * 4 // bounds.max_parts)), _PACKED_PART)
        count = min(max(target // max(row_bytes, 1), 1), bounds.target_rows * growth, rows - first)
        if number >= bounds.max_parts:
            raise PayloadTooLarge(f"The file has more than {bounds.max_parts} parts of {target} bytes.")
        length = count * row_bytes
        offset = details["start"] + first * row_bytes
        if store is not None:
            while len(held) < length:
                held += _next(data, details)
            store(number, bytes(held[:length]))
            del held[:length]
            offset = 0
        yield PartSpec(number, first, count, offset, length)
        first += count
        number += 1
    if held or next(data, b""):
        raise WrongShape(f"The file holds more than an array of shape {details['shape']}.")


def read_npy(
    ranges: Ranges, details: Mapping[str, Any], part: PartSpec, signature: Signature, batch_rows: int
) -> Iterator[Rows]:
    """The rows of a part."""
    reader = _NpyReader(details, signature)
    row_bytes = _row_bytes(details)
    per_block = min(max(_BLOCK // max(row_bytes, 1) // batch_rows, 1) * batch_rows, part.rows)
    offset, row, left = part.offset, part.first_row, part.rows
    while left:
        count = min(per_block, left)
        for block in reader.read(ranges.read(offset, count * row_bytes), count):
            yield from block.batches(row, batch_rows)
            row += block.count
        offset += count * row_bytes
        left -= count


class _NpyReader:
    """The data of rows → tensors."""

    def __init__(self, details: Mapping[str, Any], signature: Signature) -> None:
        self._signature = unbounded(signature)
        self._spec = signature.required[0]
        self._dtype = np.dtype(details["dtype"])
        self._shape = tuple(details["shape"][1:])

    def read(self, data: bytes, count: int) -> Iterator[Block]:
        """The rows in order."""
        view = memoryview(data)
        try:
            flat = read_elements(view, self._dtype, count * prod(self._shape), self._spec, "")
        except InvalidRequest as error:
            if count == 1:
                yield Block(1, {}, {0: reason(error)})
                return
            middle = count // 2
            cut = middle * (len(data) // count)
            yield from self.read(data[:cut], middle)
            yield from self.read(data[cut:], count - middle)
            return
        yield self._checked(flat.reshape(count, *self._shape), count)

    def _checked(self, given: Array, count: int) -> Block:
        """The rows in the signature's shape, without those whose values it does not allow."""
        name = self._spec.name
        wrong = misfits({name: given}, self._signature)
        if wrong is None:
            return Block(count, self._shaped(given), {})
        errors: dict[int, Reason] = {}
        for at in np.flatnonzero(wrong).tolist():
            try:
                check_values({name: given[at : at + 1]}, self._signature, _inside)
                wrong[at] = False
            except InvalidRequest as error:
                errors[at] = reason(error)
        return Block(count, self._shaped(given[~wrong]) if not wrong.all() else {}, errors)

    def _shaped(self, given: Array) -> dict[str, Array]:
        return check_structure(Inputs({self._spec.name: given}), self._signature)


def _inside(_name: str, index: tuple[int, ...]) -> str:
    return "".join(f"/{at}" for at in index[1:])


def output_header(spec: TensorSpec, rows: int) -> bytes:
    """The header of an array of the output's rows, in version 1."""
    wanted = NUMPY_DTYPES[spec.dtype].newbyteorder("<").str
    shape = (rows, *spec.shape[1:])
    text = f"{{'descr': '{wanted}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


def missing_row(spec: TensorSpec) -> Array:
    """What stands for a row without a prediction: NaN in all of its elements, 0 where there is no NaN."""
    dims = [dim or 0 for dim in spec.shape[1:]]
    if spec.dtype is DType.BF16:
        return np.full(dims, 0x7FC0, np.uint16)
    return np.full(dims, np.nan if spec.dtype.is_float else 0, NUMPY_DTYPES[spec.dtype])


def _row_bytes(details: Mapping[str, Any]) -> int:
    return int(prod(details["shape"][1:]) * np.dtype(details["dtype"]).itemsize)


def _next(data: Iterator[bytes], details: Mapping[str, Any]) -> bytes:
    piece = next(data, b"")
    if not piece:
        raise WrongShape(f"The file ends before an array of shape {details['shape']} is whole.")
    return piece


def _head(pieces: Iterator[bytes]) -> bytes:
    head = b""
    while len(head) < _HEAD and (piece := next(pieces, b"")):
        head += piece
    return head[:_HEAD]
