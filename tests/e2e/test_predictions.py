"""First predictions of the three example models, over HTTP through the whole stack."""

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.e2e


def predict(api: httpx.Client, model: str, body: Any) -> dict[str, Any]:
    answer = api.post(f"/v1/models/{model}/predict", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_tumor_takes_numbers_in_order_and_objects_by_feature_name(api: httpx.Client) -> None:
    data = load_breast_cancer()
    rows = data.data[[0, 19, 100]]
    names = api.get("/v1/models/tumor").json()["signature"]["inputs"][0]["features"]
    ordered = predict(api, "tumor", {"instances": rows.tolist()})
    named = predict(api, "tumor", {"instances": [dict(zip(names, row, strict=True)) for row in rows.tolist()]})
    assert ordered["predictions"] == named["predictions"]
    for prediction, target in zip(ordered["predictions"], data.target[[0, 19, 100]], strict=True):
        assert prediction["label"] == data.target_names[target]
        assert set(prediction["probabilities"]) == {"malignant", "benign"}
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert ordered["model"] == {"name": "tumor", "version": 1, "variant": "main", "backend": "function"}
    assert ordered["prediction_id"] != named["prediction_id"]


def test_digits_takes_a_flat_row_a_square_and_an_image(api: httpx.Client) -> None:
    data = load_digits()
    row = data.data[3]
    flat = predict(api, "digits", {"instances": [row.tolist()]})
    square = predict(api, "digits", {"instances": [row.reshape(8, 8).tolist()]})
    assert flat["predictions"] == square["predictions"]
    ink_on_paper = Image.fromarray((255 - row.reshape(8, 8) / 16 * 255).round().astype(np.uint8))
    stream = io.BytesIO()
    ink_on_paper.save(stream, "PNG")
    pictured = predict(api, "digits", {"instances": [{"b64": base64.b64encode(stream.getvalue()).decode()}]})
    assert flat["predictions"][0]["label"] == pictured["predictions"][0]["label"] == int(data.target[3])


def test_embed_runs_in_the_container_and_agrees_with_the_original_model(api: httpx.Client) -> None:
    reference = json.loads((ROOT / "tests/data/embed_reference.json").read_text())
    pair = ["A man is eating food.", "A man is eating a piece of bread."]
    answer = predict(api, "embed", {"instances": pair})
    assert answer["model"]["backend"] == "container"
    first, second = np.array(answer["predictions"])
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ second == pytest.approx(0.7553, abs=1e-4)
    assert first.shape == (384,)
    assert reference


def test_every_answer_tells_its_request_and_a_prediction_its_timing(api: httpx.Client) -> None:
    answer = api.post("/v1/models/embed/predict", json={"instances": ["hello"]}, headers={"X-Request-Id": "abc-123"})
    assert answer.headers["x-request-id"] == "abc-123"
    assert "run;dur=" in answer.headers["server-timing"]
    assert api.get("/health").headers["x-request-id"]
