import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from examples.catalogue import ROOT
from examples.embed.build import PAIR_COSINE
from examples.embed.graph import Architecture
from shared.domain.tensors import bytes_tensor
from tests.examples.conftest import Load

REFERENCE = ROOT / "tests" / "data" / "embed_reference.json"
Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return dict(json.loads(REFERENCE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def texts(reference: dict[str, Any]) -> list[str]:
    return [entry["text"] for entry in reference["texts"]]


def embed(load: Load, *texts: str) -> Vectors:
    vectors: Vectors = load("embed").run({"text": bytes_tensor([text.encode() for text in texts])})["embedding"]
    return vectors


def test_every_vector_is_the_original_models(load: Load, reference: dict[str, Any], texts: list[str]) -> None:
    assert len(texts) >= 12
    assert any(entry["tokens"] > reference["max_tokens"] for entry in reference["texts"])
    given = np.concatenate([embed(load, text) for text in texts]).astype(np.float64)
    original = np.array([entry["embedding"] for entry in reference["texts"]])
    assert ((given * original).sum(axis=1) >= 1 - 1e-4).all()
    np.testing.assert_allclose(given, original, atol=1e-5)


def test_the_known_pair(load: Load, reference: dict[str, Any]) -> None:
    first, second = (np.array(entry["embedding"]) for entry in reference["texts"][:2])
    assert first @ second == pytest.approx(PAIR_COSINE, abs=1e-6)
    metrics = load("embed").manifest.metrics
    assert metrics["pair_cosine"] == pytest.approx(0.7553, abs=1e-4)
    assert metrics["pair_cosine_original"] == PAIR_COSINE


def test_a_row_does_not_depend_on_the_rest_of_its_batch(load: Load, texts: list[str]) -> None:
    alone = np.concatenate([embed(load, text) for text in texts])
    np.testing.assert_allclose(embed(load, *texts), alone, atol=1e-5)
    np.testing.assert_allclose(embed(load, *reversed(texts))[::-1], alone, atol=1e-5)


def test_vectors_have_unit_length(load: Load, texts: list[str]) -> None:
    vectors = embed(load, *texts, "", " ", "word " * 4000)
    assert vectors.shape == (len(texts) + 3, 384)
    np.testing.assert_allclose(np.sqrt((vectors**2).sum(axis=1)), np.ones(len(vectors)), atol=1e-5)


def test_text_beyond_the_last_token_is_not_read(load: Load) -> None:
    # 254 words and the two tokens that enclose every text.
    read = "word " * 254
    short, long = embed(load, read, read + "elephants in the rain")
    np.testing.assert_allclose(short, long, atol=1e-6)
    first, second = embed(load, read, "word " * 253 + "elephants in the rain")
    assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize(
    "change", [{"hidden_act": "gelu_new"}, {"model_type": "roberta"}, {"position_embedding_type": "relative_key"}]
)
def test_weights_of_another_architecture_are_refused(change: dict[str, str]) -> None:
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "layer_norm_eps": 1e-12,
    }
    assert Architecture.of_config(config).layers == 6
    with pytest.raises(ValueError, match="not"):
        Architecture.of_config({**config, **change})
