"""Frames: what V2 requests of one client have in common, decoded by the strict decoder once; see `v2_quick`.

A frame of JSON is what is left between the arrays that follow `"data"`. That these are whole values, and not part of
a string or of something else, is proved when the frame is learned: other numbers put in their places must come out as
the tensors' data. The id is left out of a frame in the same way, since many clients send a new one with each request.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from shared.codecs.json_documents import JsonLimits
from shared.codecs.quick_numbers import Reader, reader_of
from shared.codecs.v2 import V2Request, decode_request
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, pointer
from shared.domain.signature import Signature
from shared.domain.tensors import NUMPY_DTYPES

DATA = b'"data"'
_MAX_FRAMES = 512

Parts = tuple[bytes, ...]
_Key = tuple[int, Parts]
_Place = tuple[str, np.dtype[Any], tuple[int, ...], int, Reader | None]  # name, dtype, shape, offset, reader

# An id of these characters stands for itself in JSON, so that frames can leave it out.
_ID = re.compile(rb'"id"[ ]?:[ ]?"([\w.:/+=-]{0,256})"', re.ASCII)
_OTHER_IDS = (b"another-id", b"one-more-id")
_WITHOUT_ID = b"\0id"  # takes the place of the id in the key of a frame; no JSON holds a NUL


class Frame:
    """What requests have in common that differ only in the numbers and the id."""

    __slots__ = (
        "binary",
        "id",
        "limits",
        "locate_nested",
        "names",
        "nbytes",
        "outputs",
        "parameters",
        "places",
        "shapes",
        "signature",
        "size",
        "sure_bytes",
    )

    def __init__(self, request: V2Request, signature: Signature, limits: JsonLimits) -> None:
        self.signature = signature  # keeps its identity, which is part of the key, from being used again
        self.limits = limits
        self.sure_bytes = min(limits.max_bytes, limits.max_values)  # a body has no more values than bytes
        self.names = tuple(request.inputs)
        self.shapes = tuple(tensor.array.shape for tensor in request.inputs.values())
        places: list[_Place] = []
        size = 0
        for name, tensor in request.inputs.items():
            array = tensor.array
            places.append((name, NUMPY_DTYPES[tensor.dtype], array.shape, size, reader_of(tensor.dtype)))
            size += array.nbytes
        self.places = tuple(places)
        self.nbytes = size
        self.size = sum(prod(shape) for shape in self.shapes)
        self.outputs = tuple(request.outputs)
        self.id = request.id
        self.parameters = MappingProxyType(dict(request.parameters))
        self.binary = binary_outputs(request)
        self.locate_nested = NestedPlaces(self, self.names)  # where the data of every tensor is nested

    def locate_flat(self, name: str, index: tuple[int, ...]) -> str:
        """The pointer of an element of data that is one flat list, or of the whole tensor."""
        if name not in self.names:
            return "/inputs"
        position = self.names.index(name)
        if not index:
            return f"/inputs/{position}/shape"
        return f"/inputs/{position}/data/{int(np.ravel_multi_index(index, self.shapes[position]))}"


class NestedPlaces:
    """`locate` where the data of some tensors is nested."""

    __slots__ = ("_frame", "_nested")

    def __init__(self, frame: Frame, nested: Sequence[str]) -> None:
        self._frame = frame
        self._nested = nested

    def __call__(self, name: str, index: tuple[int, ...]) -> str:
        """The pointer of an element, or of the whole tensor."""
        if name not in self._nested or not index:
            return self._frame.locate_flat(name, index)
        return pointer(f"/inputs/{self._frame.names.index(name)}/data", *index)


frames: dict[_Key, Frame] = {}


def binary_outputs(request: V2Request) -> Mapping[str, bool] | bool:
    """Which outputs a request wants as binary: by name, or all of them alike."""
    return request.outputs or request.parameters.get("binary_data_output") is True


def frame_of(
    parts: Parts, body: bytes, header_length: int | None, signature: Signature, limits: JsonLimits
) -> tuple[Frame, str] | None:
    """The frame of a request, known or learned, and the request's id."""
    frame = frames.get((id(signature), parts))
    if frame is not None:
        return (frame, frame.id) if frame.limits is limits or frame.limits == limits else None
    bare, request_id = without_id(parts)
    key = (id(signature), bare)
    frame = frames.get(key)
    if frame is None:
        if not _proved(bare, is_json=header_length is None):
            return None
        frame = _learn(body, header_length, key, signature, limits)
        if frame is None:
            return None
    elif frame.limits is not limits and frame.limits != limits:
        return None
    return frame, frame.id if request_id is None else request_id


def without_id(parts: Parts) -> tuple[Parts, str | None]:
    """The parts, cut where the id stood, and the id; the parts as they are, and None, if there is none to cut."""
    for at, part in enumerate(parts):
        match = _ID.search(part)
        if match is not None:
            begin, end = match.span(1)
            bare = (*parts[:at], part[:begin], _WITHOUT_ID, part[end:], *parts[at + 1 :])
            return bare, match[1].decode("ascii")
    return parts, None


def _proved(bare: Parts, *, is_json: bool) -> bool:
    """Whether the gaps between the parts are the data of all inputs, and the id: other values there must come out."""
    return all(
        _comes_out(bare, other, first, is_json=is_json) for other, first in zip(_OTHER_IDS, (1, 1001), strict=True)
    )


def _comes_out(bare: Parts, other: bytes, first: int, *, is_json: bool) -> bool:
    filled = bytearray(bare[0])
    count = 0
    is_cut = False
    for before, part in pairwise(bare):
        if part == _WITHOUT_ID:
            filled += other
            is_cut = True
            continue
        if before != _WITHOUT_ID:
            filled += b"[%d]" % (first + count)
            count += 1
        filled += part
    try:
        document = orjson.loads(filled)
        if is_json and [entry["data"] for entry in document["inputs"]] != [[first + at] for at in range(count)]:
            return False
        return not is_cut or bool(document["id"] == other.decode("ascii"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False


def _learn(body: bytes, header_length: int | None, key: _Key, signature: Signature, limits: JsonLimits) -> Frame | None:
    """The frame of a body that the strict decoder takes, if its tensors are numbers and its parameters simple."""
    head = body if header_length is None else body[:header_length]
    if header_length is not None and (DATA in head or b"\\" in head):
        return None  # a tensor of the header may be JSON
    try:
        request = decode_request(body, header_length, limits)
        request.to_inputs(signature)
    except InvalidRequest:
        return None
    if any(type(value) not in (str, int, float, bool) for value in request.parameters.values()):
        return None  # others could be changed in place
    if any(tensor.dtype is DType.BYTES for tensor in request.inputs.values()):
        return None
    frame = Frame(request, signature, limits)
    if len(frames) >= _MAX_FRAMES:
        frames.pop(next(iter(frames)), None)
    frames[key] = frame
    return frame
