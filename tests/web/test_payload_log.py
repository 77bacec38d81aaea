import json
from typing import Any

import numpy as np
import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import LogSettings
from shared.domain.signature import TensorSpec
from shared.domain.tensors import bytes_tensor, fp32_to_bf16
from shared.web.payload_log import REDACTED, PayloadLog, loggable

PAIR = TensorSpec("x", DType.FP32, (None, 2), features=("age", "name_length"))
TEXT = TensorSpec("text", DType.BYTES, (None,))
FREE = TensorSpec("free", DType.FP32, (None, 3))
SCORES = TensorSpec("y", DType.FP32, (None, 2), classes=("left", "right"))


def add(settings: LogSettings, draw: float) -> dict[str, Any]:
    log: dict[str, Any] = {}
    inputs = {"x": np.array([[1, 2]], np.float32)}
    outputs = {"y": np.array([[0.5, 0.5]], np.float32)}
    PayloadLog(lambda: draw).add(log, settings, (inputs, [PAIR]), (outputs, [SCORES]))
    return log


@pytest.mark.parametrize(
    ("settings", "draw", "logged"),
    [
        (LogSettings(), 0.0, set()),
        (LogSettings(inputs=0.5), 0.4, {"inputs"}),
        (LogSettings(inputs=0.5), 0.5, set()),
        (LogSettings(inputs=1, outputs=1), 0.999, {"inputs", "outputs"}),
        (LogSettings(outputs=1), 0.999, {"outputs"}),
    ],
)
def test_payloads_are_logged_only_where_and_as_often_as_asked(
    settings: LogSettings, draw: float, logged: set[str]
) -> None:
    assert set(add(settings, draw)) == logged


def test_named_columns_are_redacted_alone() -> None:
    log = add(LogSettings(inputs=1, outputs=1, redact=("age", "y")), 0.0)
    assert log == {"inputs": {"x": [{"age": REDACTED, "name_length": 2.0}]}, "outputs": {"y": REDACTED}}


def test_columns_that_cannot_be_told_apart_are_all_redacted() -> None:
    image = {"x": np.zeros((1, 2, 1), np.float32)}
    assert loggable(image, [PAIR], frozenset({"age"})) == {"x": REDACTED}
    assert loggable(image, [PAIR], frozenset({"other"})) == {"x": {"shape": [1, 2, 1], "values": [0.0, 0.0]}}


def test_text_is_cut_and_bytes_are_counted() -> None:
    tensors = {"text": bytes_tensor([b"short", b"x" * 1000, b"\xff\xfe"])}
    assert loggable(tensors, [TEXT], frozenset()) == {"text": ["short", "x" * 256 + "…", "[2 bytes]"]}


def test_a_payload_that_would_break_the_line_is_told_by_its_size() -> None:
    """A line over 256 KB is no line of a request any more: who could make one would use up no quota."""
    columns = tuple(f"c{number}" for number in range(100))
    wide = TensorSpec("text", DType.BYTES, (None, 100), features=columns)
    texts = bytes_tensor([b"\x01" * 256] * 800).reshape(8, 100)
    log: dict[str, Any] = {}
    settings = LogSettings(inputs=1, outputs=1)
    PayloadLog(lambda: 0.0).add(log, settings, ({"text": texts}, [wide]), ({"text": texts[:1]}, [wide]))
    assert log["inputs"].endswith(" bytes]")
    assert len(json.dumps(log)) < 256 * 1024
    few = ({"text": texts[:1, :1]}, [FREE])
    PayloadLog(lambda: 0.0).add(log, settings, few, few)
    assert log["inputs"] == {"text": {"shape": [1, 1], "values": ["\x01" * 256]}}


def test_what_is_logged_is_bounded() -> None:
    tensors = {"free": np.ones((1000, 3), np.float32), "x": np.ones((1000, 2), np.float32)}
    logged = loggable(tensors, [FREE, PAIR], frozenset())
    assert logged["free"] == {"shape": [1000, 3], "values": [1.0] * 24}
    assert len(logged["x"]) == 8


def test_bf16_is_logged_as_the_numbers_that_it_holds() -> None:
    spec = TensorSpec("b", DType.BF16, (None,))
    assert loggable({"b": fp32_to_bf16(np.array([1.5], np.float32))}, [spec], frozenset()) == {"b": [1.5]}


def test_a_scalar_is_logged() -> None:
    assert loggable({"s": np.array(3)}, [], frozenset()) == {"s": {"shape": [], "values": [3]}}


def test_a_name_to_be_redacted_that_the_model_has_not_withholds_everything() -> None:
    log = add(LogSettings(inputs=1, outputs=1, redact=("age", "nmae_length")), 0.0)
    assert log == {"payload_withheld": ["nmae_length"]}
