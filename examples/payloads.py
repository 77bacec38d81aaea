"""Writes the example requests beside the builders: `python -m examples.payloads [--out DIR]`.

The samples are held out: no model was fitted on them. The files are committed, so that a first request needs no Python.
"""

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples.catalogue import ROOT
from examples.digits import build as digits
from examples.embed import build as embed
from examples.tumor import build as tumor

DIGIT = 3
_MAGNIFICATION = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all files below `--out`, in one folder for each example."""
    parser = argparse.ArgumentParser(prog="python -m examples.payloads", description="Write the example requests.")
    parser.add_argument("--out", type=Path, default=ROOT / "examples", help="folder of the examples")
    out: Path = parser.parse_args(arguments).out
    for path, content in payloads().items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        sys.stdout.write(f"{path}\n")
    return 0


def payloads() -> dict[str, bytes]:
    """Content by path below the folder of the examples."""
    features, rows = tumor_rows()
    pixels = digit_pixels()
    picture = png(pixels)
    return {
        "tumor/request.json": _request(*(dict(zip(features, row, strict=True)) for row in rows)),
        "tumor/rows-request.json": _request(*rows),
        "digits/request.json": _request([[int(value) for value in row] for row in pixels]),
        "digits/digit.png": picture,
        "digits/image-request.json": _request({"b64": base64.b64encode(picture).decode()}),
        "embed/request.json": _request(*embed.PAIR),
    }


def digit_pixels() -> npt.NDArray[np.float32]:
    """The first held-out `DIGIT`: FP32 [8, 8] from 0 (paper) to 16 (ink)."""
    data = digits.load()
    row = next(row for row in data.held_out if data.targets[row] == DIGIT)
    pixels: npt.NDArray[np.float32] = data.rows[row].reshape(digits.SIDE, digits.SIDE)
    return pixels


def png(pixels: npt.NDArray[np.float32]) -> bytes:
    """A picture of a digit as people make it: dark ink on white paper, large enough to be seen."""
    grey = (255 - pixels * (255 / digits.INK)).round().astype(np.uint8)
    side = digits.SIDE * _MAGNIFICATION
    stream = BytesIO()
    Image.fromarray(grey).resize((side, side), Image.Resampling.NEAREST).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def tumor_rows() -> tuple[tuple[str, ...], list[list[float]]]:
    """The names of the features, and the first held-out tumour of each class: malignant, benign."""
    data = tumor.load()
    chosen = [next(row for row in data.held_out if data.targets[row] == target) for target in range(len(data.classes))]
    # str gives the shortest number that is this FP32 value.
    return data.features, [[float(str(value)) for value in data.rows[row]] for row in chosen]


def _request(*instances: Any) -> bytes:
    """A body for `POST /v1/models/{model}/predict`, one instance a line."""
    lines = ",\n    ".join(json.dumps(instance, ensure_ascii=False) for instance in instances)
    return f'{{\n  "instances": [\n    {lines}\n  ]\n}}\n'.encode()


if __name__ == "__main__":
    sys.exit(main())
