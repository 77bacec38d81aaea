"""A quick way for the common bodies of the Open Inference Protocol; `shared.codecs.v2` is the strict one.

Clients repeat all of a request but its numbers. What surrounds these (names, dtypes, shapes, outputs, parameters) is
kept as a frame (`v2_frames`); a later request with the same frame needs only its numbers read. The result is exactly
the strict one, or None: then the strict decoder says what the body holds or what is wrong with it.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from shared.codecs.json_documents import JsonLimits, check_limits
from shared.codecs.quick_numbers import Reader, read_flat, read_nested
from shared.codecs.v2_frames import DATA, NestedPlaces, Parts, frame_of, frames, without_id
from shared.domain.errors import InvalidRequest
from shared.domain.signature import Signature
from shared.domain.tensors import Array
from shared.domain.validation import Inputs

Quick = tuple[Inputs, tuple[str, ...], str, Mapping[str, Any], Mapping[str, bool] | bool]
"""Inputs, requested outputs (empty: all), id, parameters, and which outputs are wanted as binary."""

_MAX_FRAME_BYTES = 1024
_MAX_INPUTS = 16
_MAX_NESTED = 4
_CLOSING = tuple(b"]" * depth for depth in range(_MAX_NESTED + 2))
_UINT8 = np.dtype(np.uint8)
_BOOL = np.dtype(np.bool_)


def quick_v2(body: bytes, header_length: int | None, signature: Signature, limits: JsonLimits) -> Quick | None:
    """What `decode_request` and `to_inputs` would give, or None if that is not certain; never raises InvalidRequest.

    The parameters are read-only, and so are tensors of the binary part: views of `body`.
    """
    if header_length is None or header_length == len(body):
        return _json(body, signature, limits)
    if not 0 < header_length <= min(len(body), _MAX_FRAME_BYTES):
        return None
    return _binary(body, header_length, signature, limits)


def _binary(body: bytes, header_length: int, signature: Signature, limits: JsonLimits) -> Quick | None:
    head = body[:header_length]
    frame = frames.get((id(signature), (head,)))
    if frame is not None and frame.limits is limits:
        request_id = frame.id
    else:
        found = frame_of((head,), body, header_length, signature, limits)
        if found is None:
            return None
        frame, request_id = found
    if len(body) - header_length != frame.nbytes:
        return None
    tensors: dict[str, Array] = {}
    for name, dtype, shape, offset, _ in frame.places:
        array: Array = np.ndarray(shape, dtype, body, header_length + offset)
        if dtype is _BOOL and array.size and array.view(_UINT8).max() > 1:
            return None
        tensors[name] = array
    return Inputs(tensors, frame.locate_flat), frame.outputs, request_id, frame.parameters, frame.binary


def _json(body: bytes, signature: Signature, limits: JsonLimits) -> Quick | None:
    at = body.find(DATA)
    begin = body.find(b"[", at + 6, at + 12)
    if body.startswith(b"[", begin + 1):
        depth = _depth(body, begin)
        end = _end(body, begin, depth)
    else:
        depth = 1
        end = body.find(b"]", begin) + 1
    # One input in a known frame: the commonest request of all. Others, and what is no frame, take the longer way.
    if at >= 0 and 0 < begin < end <= len(body) <= min(end + _MAX_FRAME_BYTES, limits.max_bytes):
        parts: Parts = (body[:begin], body[end:])
        request_id: str | None = None
        frame = frames.get((id(signature), parts))
        if frame is None:
            parts, request_id = without_id(parts)
            frame = frames.get((id(signature), parts))
        if frame is not None and frame.limits is limits and len(body) < frame.sure_bytes:
            ((name, _, shape, _, reader),) = frame.places
            array = _array(body[begin:end], depth, shape, frame.size, reader)
            if array is None:
                return None
            locate = frame.locate_flat if depth == 1 else frame.locate_nested
            found_id = frame.id if request_id is None else request_id
            return Inputs({name: array}, locate), frame.outputs, found_id, frame.parameters, frame.binary
    return _any_json(body, signature, limits)


def _array(text: bytes, depth: int, shape: tuple[int, ...], size: int, reader: Reader | None) -> Array | None:
    """The tensor of a JSON array; None if it is none of this dtype and shape."""
    if reader is None:
        return None
    if depth > 1:
        array = read_nested(text, depth, reader)
        return array if array is not None and array.shape == shape else None
    # A flat list may stand for any shape with as many elements.
    array = read_flat(text, reader)
    return array.reshape(shape) if array is not None and array.size == size else None


def _any_json(body: bytes, signature: Signature, limits: JsonLimits) -> Quick | None:
    split = _split(body)
    if split is None:
        return None
    parts, texts = split
    found = frame_of(parts, body, None, signature, limits)
    if found is None or not (len(body) < found[0].sure_bytes or _within(body, limits)):
        return None
    frame, request_id = found
    tensors: dict[str, Array] = {}
    nested: list[str] = []
    for (text, depth), (name, _, shape, _, reader) in zip(texts, frame.places, strict=True):
        array = _array(text, depth, shape, prod(shape), reader)
        if array is None:
            return None
        if depth > 1:
            nested.append(name)
        tensors[name] = array
    locate = NestedPlaces(frame, nested) if nested else frame.locate_flat
    return Inputs(tensors, locate), frame.outputs, request_id, frame.parameters, frame.binary


def _within(body: bytes, limits: JsonLimits) -> bool:
    try:
        check_limits(body, limits)
    except InvalidRequest:
        return False
    return True


def _split(body: bytes) -> tuple[Parts, list[tuple[bytes, int]]] | None:
    """What lies around the arrays that follow `"data"`, and these arrays with the brackets that each starts with."""
    around: list[bytes] = []
    texts: list[tuple[bytes, int]] = []
    start = size = 0
    at = body.find(DATA, 0, _MAX_FRAME_BYTES)
    while at >= 0:
        begin = body.find(b"[", at + 6, at + 12)
        if begin < 0 or len(texts) == _MAX_INPUTS:
            return None
        depth = _depth(body, begin)
        end = _end(body, begin, depth)
        if end < begin:
            return None
        around.append(body[start:begin])
        texts.append((body[begin:end], depth))
        size += begin - start
        start = end
        at = body.find(DATA, end, end + _MAX_FRAME_BYTES)
    size += len(body) - start
    if not texts or size > _MAX_FRAME_BYTES:
        return None
    around.append(body[start:])
    return tuple(around), texts


def _depth(body: bytes, begin: int) -> int:
    """How many brackets an array starts with."""
    depth = 1
    while depth <= _MAX_NESTED and body.startswith(b"[", begin + depth):
        depth += 1
    return depth


def _end(body: bytes, begin: int, depth: int) -> int:
    """Where an array of numbers ends, -1 if it does not; a wrong guess makes text that is no array."""
    if depth == 1:
        return body.find(b"]", begin) + 1 or -1
    # Numbers hold no quotes, and to look for one byte is far quicker than to look for two.
    quote = body.find(b'"', begin)
    at = body.rfind(_CLOSING[depth], begin, quote if quote >= 0 else len(body))
    return at + depth if at >= 0 else -1
