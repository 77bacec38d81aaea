import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from examples.tumor.build import Data, fit
from examples.tumor.build import load as load_data
from tests.examples.conftest import Load

Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data()


@pytest.fixture(scope="module")
def model(data: Data) -> GradientBoostingClassifier:
    return fit(data)


def assert_agrees(load: Load, data: Data, model: GradientBoostingClassifier, rows: Rows) -> None:
    given = [load("tumor").run({"features": part}) for part in np.array_split(rows, max(1, len(rows) // 500))]
    labels = np.concatenate([part["label"] for part in given])
    probabilities = np.concatenate([part["probabilities"] for part in given])
    assert labels.tolist() == [data.classes[target].encode() for target in model.predict(rows)]
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), atol=1e-4, rtol=0)


def test_the_graph_agrees_with_scikit_learn_on_all_rows(
    load: Load, data: Data, model: GradientBoostingClassifier
) -> None:
    assert_agrees(load, data, model, data.rows)


def test_the_graph_agrees_with_scikit_learn_beside_every_threshold(
    load: Load, data: Data, model: GradientBoostingClassifier
) -> None:
    """Thresholds are FP64 in scikit-learn and FP32 in the graph: the neighbours of each must fall on the same sides."""
    rows: list[Rows] = []
    for tree in model.estimators_[:, 0]:
        for feature, threshold in zip(tree.tree_.feature, tree.tree_.threshold, strict=True):
            if feature >= 0:
                near = np.float32(threshold)
                for value in (near, np.nextafter(near, np.float32(-1)), np.nextafter(near, np.float32(1e9))):
                    row = data.rows[len(rows) % len(data.rows)].copy()
                    row[feature] = value
                    rows.append(row)
    assert len(rows) > 1000
    assert_agrees(load, data, model, np.stack(rows))


def test_names_and_metrics(load: Load, data: Data) -> None:
    manifest = load("tumor").manifest
    features = manifest.signature.inputs[0].features
    assert len(features) == 30
    assert features[:2] == ("mean_radius", "mean_texture")
    assert all(name.isidentifier() for name in features)
    assert manifest.signature.outputs[1].classes == ("malignant", "benign")
    labels = load("tumor").run({"features": data.rows[data.held_out]})["label"]
    right = [data.classes[target].encode() for target in data.targets[data.held_out]] == labels
    assert manifest.metrics["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert manifest.metrics["accuracy"] > 0.94
    assert manifest.metrics["roc_auc"] > 0.98
    assert not set(data.train) & set(data.held_out)
