"""Inputs and outputs in the log line of a prediction: only where the endpoint's settings ask, a sample, names redacted.

What is logged is bounded, so that a line stays one: the first rows, the first numbers of each, the beginning of a text.
"""

from collections.abc import Callable, Mapping, Sequence
from random import SystemRandom
from typing import Any

import msgspec

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import LogSettings
from shared.domain.signature import TensorSpec
from shared.domain.tensors import Array, Tensors, bf16_to_fp32
from shared.domain.used_features import FeatureValues

REDACTED = "[redacted]"
_MAX_ROWS = 8
_MAX_VALUES = 256
_MAX_TEXT = 256
# CloudWatch takes 256 KB a line. A longer one would be no request any more to who reads it, and count for no quota.
_MAX_BYTES = 64 * 1024


class PayloadLog:
    """Adds `inputs` and `outputs` to log lines; `draw` gives a number from 0 to 1."""

    def __init__(self, draw: Callable[[], float] | None = None) -> None:
        # The system's generator: copies of one snapshot would all draw the same from another.
        self._draw = draw or SystemRandom().random

    def add(
        self,
        log: dict[str, Any],
        settings: LogSettings,
        inputs: tuple[Tensors, Sequence[TensorSpec]],
        outputs: tuple[Tensors, Sequence[TensorSpec]],
        features: FeatureValues | None = None,
    ) -> None:
        """Complete a line's members for one prediction by its endpoint's settings, each of the two with its own draw.

        `features` gives the stored features that were used, without those to be redacted: they belong to the inputs.

        A name to be redacted that this model does not have may be a slip of the pen for one that it has: then nothing
        is logged but that name, as `payload_withheld`.
        """
        if not (settings.inputs or settings.outputs):
            return
        redact = frozenset(settings.redact)
        stored = frozenset() if features is None else features.names
        if unknown := redact - _names(*inputs[1], *outputs[1]) - stored:
            log["payload_withheld"] = sorted(unknown)
            return
        if settings.inputs and self._draw() < settings.inputs:
            log["inputs"] = _bounded(loggable(*inputs, redact))
            if features is not None:
                log["feature_values"] = _bounded(features(redact))
        if settings.outputs and self._draw() < settings.outputs:
            log["outputs"] = _bounded(loggable(*outputs, redact))


def _names(*specs: TensorSpec) -> frozenset[str]:
    return frozenset(name for spec in specs for name in (spec.name, *spec.features, *spec.classes))


def _bounded(values: dict[str, Any]) -> dict[str, Any] | str:
    size = len(msgspec.json.encode(values, enc_hook=str))
    return values if size <= _MAX_BYTES else f"[{size} bytes]"


def loggable(tensors: Tensors, specs: Sequence[TensorSpec], redact: frozenset[str]) -> dict[str, Any]:
    """Tensors by name as JSON values; a tensor with named columns as objects, where a column may be redacted alone."""
    by_name = {spec.name: spec for spec in specs}
    return {
        name: REDACTED if name in redact else _tensor(array, by_name.get(name), redact)
        for name, array in tensors.items()
    }


def _tensor(array: Array, spec: TensorSpec | None, redact: frozenset[str]) -> Any:
    if spec is not None and spec.dtype is DType.BF16 and array.dtype.kind == "u":
        array = bf16_to_fp32(array)
    columns = (spec.features or spec.classes) if spec is not None else ()
    if columns and redact & set(columns) and (array.ndim != 2 or array.shape[1] != len(columns)):
        return REDACTED  # which of its values are the columns cannot be told
    rows: Any = array[:_MAX_ROWS] if array.ndim else array
    if columns and array.ndim == 2 and array.shape[1] == len(columns):
        return [_named(columns, row, redact) for row in rows]
    values = [_value(value) for value in rows.ravel()[:_MAX_VALUES].tolist()]
    return values if array.ndim == 1 else {"shape": list(array.shape), "values": values}


def _named(columns: Sequence[str], row: Array, redact: frozenset[str]) -> Mapping[str, Any]:
    named = zip(columns[:_MAX_VALUES], row.tolist(), strict=False)
    return {name: REDACTED if name in redact else _value(value) for name, value in named}


def _value(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"[{len(value)} bytes]"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
