"""Requests whose right answers are known, and which no other request shares."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.faults.stack import ROOT

PACKAGE: Final = ROOT / "build" / "models" / "tumor" / "1"
ROWS: Final = 3
# Answers of different requests differ in one of their rows by that at the least; the same ones differ by far less.
APART: Final = 0.01
TOLERANCE: Final = 0.001
_CLASSES: Final = ("malignant", "benign")


@dataclass(frozen=True, slots=True)
class Question:
    """A body for `/v1/models/…/predict`, and the probability of the first class for each of its rows."""

    body: bytes
    right: tuple[float, ...]

    def is_answered_by(self, document: Any) -> bool:
        """Whether these are this very request's predictions."""
        found = probabilities(document)
        return len(found) == len(self.right) and all(
            abs(one - other) <= TOLERANCE for one, other in zip(found, self.right, strict=True)
        )


def probabilities(document: Any) -> tuple[float, ...]:
    """The probability of the first class in each row of an answer."""
    return tuple(float(row["probabilities"][_CLASSES[0]]) for row in document["predictions"])


def questions(count: int, *, seed: int = 7) -> list[Question]:
    """Distinct ones: between the example's two patients, with noise; answered by ONNX Runtime itself."""
    import onnxruntime

    example = json.loads((ROOT / "examples/tumor/request.json").read_text())["instances"]
    names = list(example[0])
    first, second = (np.array([row[name] for name in names]) for row in example[:2])
    generator = np.random.default_rng(seed)
    share = generator.uniform(-0.1, 1.1, (count * 6 * ROWS, 1))
    noise = generator.normal(1.0, 0.05, (len(share), len(names)))
    rows = np.abs((first + share * (second - first)) * noise).round(6).astype(np.float32)
    session = onnxruntime.InferenceSession(Path(PACKAGE, "model.onnx"), providers=["CPUExecutionProvider"])
    _, answers = session.run(None, {session.get_inputs()[0].name: rows})
    inputs = rows.reshape(-1, ROWS, len(names))
    right = np.asarray(answers, dtype=np.float64)[:, 0].reshape(-1, ROWS)
    chosen: list[int] = []
    for number, values in enumerate(right):
        if not chosen or np.abs(right[chosen] - values).max(axis=1).min() >= APART:
            chosen.append(number)
        if len(chosen) == count:
            return [Question(_body(names, inputs[one]), tuple(map(float, right[one]))) for one in chosen]
    raise RuntimeError(f"Only {len(chosen)} of {count} requests have answers that nobody can take for another's.")


def _body(names: list[str], rows: Any) -> bytes:
    instances = [{name: float(f"{value:.9g}") for name, value in zip(names, row, strict=True)} for row in rows]
    return json.dumps({"instances": instances}).encode()
