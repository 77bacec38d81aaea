"""The plan of a run over a file, as it is stored: which parts there are, and what runs them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from shared.domain.batch_formats import Layout, PartSpec
from shared.domain.errors import BackendError

# Two thousand parts, with what their formats add to them.
MAX_BYTES = 32 * 1024 * 1024


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen before the first part was cut: a plan that is made again cuts the same ones.

    `revision` is that of the endpoint's configuration, 0 for the defaults: what becomes of outputs stays the same from
    the first row to the last.
    """

    version: int
    variant: str
    backend: str
    revision: int
    part_rows: int


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`size`, `sha256` (hexadecimal) and `etag` (empty: not known) are the input's; `layout` is `Layout.to_json()`."""

    pin: Pin
    layout: Mapping[str, Any]
    parts: tuple[PartSpec, ...]
    rows: int
    size: int
    sha256: str
    etag: str = ""

    @property
    def of_layout(self) -> Layout:
        """What all parts share."""
        return Layout.from_json(self.layout)


_T = TypeVar("_T")
_pin = msgspec.json.Decoder(Pin)
_plan = msgspec.json.Decoder(BatchPlan)
encode = msgspec.json.Encoder().encode


def read_pin(document: bytes) -> Pin:
    """Read back a stored pin; BackendError for what is damaged."""
    return _read(_pin, document)


def read_plan(document: bytes) -> BatchPlan:
    """Read back a stored plan; BackendError for what is damaged."""
    return _read(_plan, document)


def _read(decoder: msgspec.json.Decoder[_T], document: bytes) -> _T:
    try:
        return decoder.decode(document)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BackendError("The plan of the batch is damaged.") from error
