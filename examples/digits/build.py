"""`digits`: a small neural network on scikit-learn's handwritten digits, 8×8 grey values or a picture → 0 to 9."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from examples.catalogue import TOOLS, VERSION
from examples.package import SLUICE, document_of, finish, graph_tensors, tool_versions
from examples.sklearn_graph import save_classifier
from shared.adapters.onnx.package import MODEL_FILE, OnnxPackage
from shared.domain.signature import Content
from shared.schemas.manifest import ImageStep, Manifest

SEED = 0
HELD_OUT = 0.2
SIDE = 8
INK = 16  # the value of a pixel that is all ink; 0 is bare paper
PARAMETERS = {
    "hidden_layer_sizes": (128,),
    "alpha": 0.01,
    "learning_rate_init": 0.005,
    "tol": 0.001,
    "max_iter": 300,
}


@dataclass(frozen=True)
class Data:
    """FP32 rows of 64 pixels from 0 to 16 (ink), targets from 0 to 9, and which rows the model never saw."""

    rows: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


def load() -> Data:
    """The data set with its split."""
    source = load_digits()
    train, held_out = train_test_split(
        np.arange(len(source.data)), test_size=HELD_OUT, random_state=SEED, stratify=source.target
    )
    return Data(source.data.astype(np.float32), source.target.astype(np.int64), train, held_out)


def fit(data: Data) -> Pipeline:
    """The network, fitted on the training rows.

    One thread: the matrices are so small that more of them only wait for one another (11 s instead of 0.4 s), and sums
    that are split differently on another machine would give other bytes.
    """
    model = make_pipeline(MaxAbsScaler(), MLPClassifier(random_state=SEED, **PARAMETERS))
    with threadpool_limits(limits=1):
        return model.fit(data.rows[data.train], data.targets[data.train])


def build(folder: Path) -> None:
    """Write the package into `folder`."""
    data = load()
    save_classifier(fit(data), folder / MODEL_FILE, input_name="pixels", width=SIDE * SIDE)
    finish(folder, _manifest(folder, data), lambda package: _measure(package, data))


def _manifest(folder: Path, data: Data) -> Manifest:
    tensors = graph_tensors(folder)
    pixels = replace(tensors["pixels"], layouts=((SIDE, SIDE),), content=Content.IMAGE, minimum=0.0, maximum=float(INK))
    return Manifest(
        name="digits",
        version=VERSION,
        description="Reads one handwritten digit, given as 8×8 numbers from 0 (paper) to 16 (ink) or as a PNG or JPEG "
        "of dark ink on light paper that fills the frame.",
        signature=document_of(
            inputs=[pixels],
            outputs=[tensors["label"], replace(tensors["probabilities"], classes=tuple(map(str, range(10))))],
            max_batch=1024,
        ),
        # The data count ink, scans count light: a picture as people make it is the data inverted.
        preprocessing=(ImageStep(input="pixels", width=SIDE, height=SIDE, mode="L", scale=INK, invert=True),),
        data={
            "name": "Optical Recognition of Handwritten Digits",
            "source": "UCI Machine Learning Repository, the test set as distributed with scikit-learn (load_digits)",
            "licence": "CC BY 4.0",
            "rows": len(data.rows),
            "split": {"train": len(data.train), "held_out": len(data.held_out), "stratified": True, "seed": SEED},
        },
        lineage={
            "algorithm": "MaxAbsScaler, MLPClassifier",
            "parameters": {**PARAMETERS, "random_state": SEED},
            "tools": tool_versions(TOOLS["digits"]),
        },
        author=SLUICE,
        licence="Apache-2.0",
        example=data.rows[data.held_out[0]].reshape(SIDE, SIDE).tolist(),
    )


def _measure(package: OnnxPackage, data: Data) -> Mapping[str, float]:
    targets = data.targets[data.held_out]
    answers = package.run({"pixels": data.rows[data.held_out]})
    probabilities = answers["probabilities"].astype(np.float64)
    return {
        "accuracy": accuracy_score(targets, answers["label"]),
        "log_loss": log_loss(targets, probabilities / probabilities.sum(axis=1, keepdims=True)),
    }
