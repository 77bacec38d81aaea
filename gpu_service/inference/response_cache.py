"""Answers that are kept: which requests are the same, and the store of their results.

Two requests are the same if the model must give them the same answer: one model and version, one tenant, and the same
inputs (names, dtypes, shapes, bytes), wanted outputs and parameters. All of it goes through a cryptographic hash, with
every part's length before it: no two different requests have one encoding, and nobody can find two with one key.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.serving import CachePolicy
from shared.domain.signature import Signature
from shared.domain.tensors import Array, Tensors
from shared.domain.unambiguous import of_size, of_text, of_texts, of_value

# What an entry and an array take besides their bytes; measured with tracemalloc, rounded up.
_ENTRY_BYTES = 512
_ARRAY_BYTES = 256
_ELEMENT_BYTES = 48  # of a BYTES tensor: the reference and the object's head


class RequestKeys:
    """Makes the keys of one served model's requests; `digest` is its package's, if known."""

    __slots__ = ("_base", "_dtypes")

    def __init__(self, name: str, version: int, signature: Signature, digest: str = "") -> None:
        self._base = hashlib.sha256()  # which the processors of servers have instructions for
        for text in (name, str(version), digest):
            self._base.update(of_text(text))
        self._dtypes = {spec.name: spec.dtype for spec in signature.inputs}

    def key(self, tenant: str, inputs: Tensors, outputs: tuple[str, ...], parameters: Mapping[str, Any]) -> bytes:
        """32 bytes. `outputs` count in their order; `parameters` are JSON values."""
        hasher = self._base.copy()
        hasher.update(of_text(tenant))
        hasher.update(of_size(len(inputs)))
        for name in sorted(inputs):
            array = inputs[name]
            # The array of a BF16 tensor is one of UINT16, and an image may come as bytes in place of its numbers.
            dtype = DType.BYTES if array.dtype.kind == "O" else self._dtypes[name]
            hasher.update(
                of_text(name) + of_text(dtype.value) + struct.pack(f"<{1 + array.ndim}Q", array.ndim, *array.shape)
            )
            if dtype is DType.BYTES:
                hasher.update(b"".join(of_size(len(value)) + value for value in array.reshape(-1).tolist()))
            else:
                hasher.update(np.ascontiguousarray(array).data)
        hasher.update(of_texts(outputs))
        hasher.update(of_value(parameters))
        return hasher.digest()


class _Entry:
    __slots__ = ("expires", "nbytes", "outputs")

    def __init__(self, outputs: dict[str, Array], nbytes: int, expires: float) -> None:
        self.outputs = outputs
        self.nbytes = nbytes
        self.expires = expires


class ResponseCache:
    """The least recently used answers go first; belongs to one thread. `nbytes` is what it holds, keys included."""

    __slots__ = ("_entries", "_max_bytes", "_ttl", "nbytes")

    def __init__(self, policy: CachePolicy) -> None:
        self._max_bytes = policy.max_bytes
        self._ttl = inf if policy.ttl_s is None else policy.ttl_s
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> dict[str, Array] | None:
        """The outputs kept under `key`, read-only arrays in a dict of the caller's own; None if there are none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return dict(entry.outputs)

    def put(self, key: bytes, outputs: Tensors, now: float) -> None:
        """Keep copies of `outputs`, unless they alone are larger than the cache; `now` as for `get`, in seconds."""
        if key in self._entries:
            self._remove(key)
        nbytes = len(key) + _ENTRY_BYTES + sum(map(_array_bytes, outputs.values()))
        if nbytes > self._max_bytes:
            return
        while self.nbytes + nbytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
        # Copies: an output may be a view that keeps the whole batch in memory.
        self._entries[key] = _Entry({name: _frozen(array) for name, array in outputs.items()}, nbytes, now + self._ttl)
        self.nbytes += nbytes

    def _remove(self, key: bytes) -> None:
        self.nbytes -= self._entries.pop(key).nbytes


def _frozen(array: Array) -> Array:
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def _array_bytes(array: Array) -> int:
    if array.dtype.kind != "O":
        return _ARRAY_BYTES + array.nbytes
    return _ARRAY_BYTES + sum(_ELEMENT_BYTES + len(value) for value in array.reshape(-1).tolist())
