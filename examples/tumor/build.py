"""`tumor`: gradient boosting on the breast-cancer data of scikit-learn, 30 named numbers → malignant or benign."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

from examples.catalogue import TOOLS, VERSION
from examples.package import SLUICE, document_of, finish, graph_tensors, tool_versions
from examples.sklearn_graph import save_classifier
from shared.adapters.onnx.package import MODEL_FILE, OnnxPackage
from shared.domain.dtypes import DType
from shared.schemas.manifest import LabelStep, Manifest

SEED = 0
HELD_OUT = 0.25
PARAMETERS = {"n_estimators": 200, "max_depth": 2, "learning_rate": 0.1, "subsample": 0.5, "max_features": "sqrt"}


@dataclass(frozen=True)
class Data:
    """FP32 rows as they are served, targets as indices of `classes`, and which rows the model never saw."""

    rows: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


def load() -> Data:
    """The data set with its split; feature names are made good JSON keys."""
    source = load_breast_cancer()
    train, held_out = train_test_split(
        np.arange(len(source.data)), test_size=HELD_OUT, random_state=SEED, stratify=source.target
    )
    return Data(
        rows=source.data.astype(np.float32),
        targets=source.target,
        features=tuple(str(name).replace(" ", "_") for name in source.feature_names),
        classes=tuple(str(name) for name in source.target_names),
        train=train,
        held_out=held_out,
    )


def fit(data: Data) -> GradientBoostingClassifier:
    """The classifier, fitted on the training rows."""
    model = GradientBoostingClassifier(random_state=SEED, **PARAMETERS)
    return model.fit(data.rows[data.train], data.targets[data.train])


def build(folder: Path) -> None:
    """Write the package into `folder`."""
    data = load()
    save_classifier(fit(data), folder / MODEL_FILE, input_name="features", width=len(data.features))
    finish(folder, _manifest(folder, data), lambda package: _measure(package, data))


def _manifest(folder: Path, data: Data) -> Manifest:
    tensors = graph_tensors(folder)
    sample = data.rows[data.held_out[0]]
    return Manifest(
        name="tumor",
        version=VERSION,
        description="Tells malignant from benign breast tumours by 30 measurements of cell nuclei. "
        "An example of a model, not a medical device.",
        signature=document_of(
            inputs=[replace(tensors["features"], features=data.features, minimum=0.0)],
            outputs=[
                replace(tensors["label"], dtype=DType.BYTES),
                replace(tensors["probabilities"], classes=data.classes),
            ],
            max_batch=1024,
        ),
        postprocessing=(LabelStep(source="label", output="label", classes=data.classes),),
        data={
            "name": "Breast Cancer Wisconsin (Diagnostic)",
            "source": "UCI Machine Learning Repository, as distributed with scikit-learn (load_breast_cancer)",
            "licence": "CC BY 4.0",
            "rows": len(data.rows),
            "split": {"train": len(data.train), "held_out": len(data.held_out), "stratified": True, "seed": SEED},
        },
        lineage={
            "algorithm": "GradientBoostingClassifier",
            "parameters": {**PARAMETERS, "random_state": SEED},
            "tools": tool_versions(TOOLS["tumor"]),
        },
        author=SLUICE,
        licence="Apache-2.0",
        # str gives the shortest number that is this FP32 value.
        example={name: float(str(value)) for name, value in zip(data.features, sample, strict=True)},
    )


def _measure(package: OnnxPackage, data: Data) -> Mapping[str, float]:
    targets = data.targets[data.held_out]
    answers = package.run({"features": data.rows[data.held_out]})
    predicted = [data.classes.index(name.decode()) for name in answers["label"].tolist()]
    probabilities = answers["probabilities"].astype(np.float64)
    return {
        "accuracy": accuracy_score(targets, predicted),
        "roc_auc": roc_auc_score(targets, probabilities[:, 1]),
        "log_loss": log_loss(targets, probabilities / probabilities.sum(axis=1, keepdims=True)),
    }
