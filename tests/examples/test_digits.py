import base64
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from examples.digits.build import Data, fit
from examples.digits.build import load as load_data
from examples.payloads import digit_pixels, png
from tests.examples.conftest import Load, answer


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data()


def pictures(*images: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode()


def test_the_graph_agrees_with_scikit_learn_on_all_rows(load: Load, data: Data) -> None:
    model = fit(data)
    given = load("digits").run({"pixels": data.rows})
    np.testing.assert_array_equal(given["label"], model.predict(data.rows))
    np.testing.assert_allclose(given["probabilities"], model.predict_proba(data.rows), atol=1e-4, rtol=0)


def test_held_out_accuracy(load: Load, data: Data) -> None:
    labels = load("digits").run({"pixels": data.rows[data.held_out]})["label"]
    accuracy = np.mean(labels == data.targets[data.held_out])
    assert accuracy >= 0.97
    assert load("digits").manifest.metrics["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_flat_rows_squares_and_pictures_get_the_same_label(load: Load, data: Data) -> None:
    rows = data.rows[data.held_out]
    package = load("digits")
    flat = answer(package, json.dumps({"instances": rows.tolist()}).encode())
    square = answer(package, json.dumps({"instances": rows.reshape(-1, 8, 8).tolist()}).encode())
    pictured = answer(package, pictures(*(png(row.reshape(8, 8)) for row in rows)))
    np.testing.assert_array_equal(flat["probabilities"], square["probabilities"])
    np.testing.assert_array_equal(flat["label"], pictured["label"])
    np.testing.assert_allclose(flat["probabilities"], pictured["probabilities"], atol=0.02)


def test_a_jpeg_in_colour_of_another_size(load: Load) -> None:
    stream = BytesIO()
    Image.open(BytesIO(png(digit_pixels()))).convert("RGB").resize((200, 200)).save(stream, "JPEG", quality=85)
    assert answer(load("digits"), pictures(stream.getvalue()))["label"].tolist() == [3]
