"""A model with features from its package to its outputs: published, asked for by id, run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.onnx.reader import OnnxPackageReader
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.endpoint.config import FeatureSettings
from shared.domain.errors import FeatureMissing, InvalidPackage, UnknownField
from shared.domain.features import EntityKey, FeatureRecord, FeatureValue
from shared.domain.model import ModelVersion
from shared.domain.validation import conform
from shared.usecases.enrich import Enrich
from shared.usecases.publish_model import PublishModel
from tests.fakes import InMemoryFeatures, InMemoryModels, InMemoryPackages
from tests.models import add_model, manifest, tensor, write_package

NOW = 1_800_000_000
PAGE = Path(__file__).parents[3] / "docs/features.md"
# The block as the page shows it.
FEATURES: dict[str, Any] = json.loads(PAGE.read_text(encoding="utf-8").split("```json")[1].split("```")[0])
INPUTS = [tensor("x", "FP32", [-1, 3], features=["age", "amount", "income"], minimum=0)]
OUTPUTS = [tensor("y", "FP32", [-1, 3])]


def package(folder: Path, features: Any, **more: Any) -> Path:
    return write_package(folder, add_model(1, width=3), manifest("risk", 1, INPUTS, OUTPUTS, features=features, **more))


def published(folder: Path, features: Any = FEATURES, **more: Any) -> ModelVersion:
    publish = PublishModel(InMemoryModels(), InMemoryPackages(), OnnxPackageReader(threads=1))
    return publish(package(folder, features, **more)).version


def predict(version: ModelVersion, folder: Path, store: InMemoryFeatures, body: Any) -> Any:
    """A request from its bytes to the outputs, as the predict function does it."""
    decoded = decode_instances(json.dumps(body).encode(), version.caller_signature, JsonLimits())
    inputs = conform(decoded, version.caller_signature)
    enriched = Enrich(store)(version, inputs, "acme", FeatureSettings(), NOW, locate=decoded.locate)
    return OnnxPackage.load(folder, threads=1).run(enriched.inputs)["y"].tolist()


@pytest.fixture
def store() -> InMemoryFeatures:
    store = InMemoryFeatures()
    stored: dict[str, dict[str, FeatureValue]]
    stored = {"c-1": {"age": 30, "yearly_income": 100}, "c-2": {"yearly_income": 200.5}}
    for name, values in stored.items():
        store.put("acme", [FeatureRecord(EntityKey("customer", name), values, NOW)])
    return store


def test_a_model_is_asked_by_the_ids_of_its_entities(tmp_path: Path, store: InMemoryFeatures) -> None:
    version = published(tmp_path)
    rows: list[dict[str, Any]] = [{"x": {"amount": 1}, "customer_id": "c-2"}, {"x": [2], "customer_id": "c-1"}]
    assert predict(version, tmp_path, store, {"instances": rows[:1]}) == [[41, 2, 201.5]]
    assert predict(version, tmp_path, store, {"instances": [{**rows[1], "x": {"amount": 2}}]}) == [[31, 3, 101]]
    by_tensor = {"inputs": {"x": [[5], [6]], "customer_id": ["c-1", "c-2"]}}
    assert predict(version, tmp_path, store, by_tensor) == [[31, 6, 101], [41, 7, 201.5]]
    with pytest.raises(FeatureMissing) as refused:
        predict(version, tmp_path, store, {"instances": [rows[0], {"x": {"amount": 1}, "customer_id": "nobody"}]})
    assert [field.pointer for field in refused.value.fields] == ["/instances/1/customer_id"]
    with pytest.raises(UnknownField):  # what is stored is not the caller's to say
        predict(version, tmp_path, store, {"instances": [{"x": {"amount": 1, "age": 3}, "customer_id": "c-1"}]})


def test_a_model_of_which_everything_is_stored_takes_ids_alone(tmp_path: Path, store: InMemoryFeatures) -> None:
    fields = [
        {"feature": "age", "default": 1},
        {"feature": "amount", "default": 2},
        {"feature": "income", "default": 3},
    ]
    features = {"entity": "id", "sets": [{"name": "customer", "input": "x", "fields": fields}], "example": "c-1"}
    version = published(tmp_path, features)
    assert predict(version, tmp_path, store, {"instances": ["c-1", "nobody"]}) == [[31, 3, 4], [2, 3, 4]]


def test_a_caller_overrides_what_the_manifest_lets_it(tmp_path: Path, store: InMemoryFeatures) -> None:
    fields = [{"feature": "age", "overridable": True, "default": 1}]
    version = published(tmp_path, {"entity": "id", "sets": [{"name": "customer", "input": "x", "fields": fields}]})
    row = {"x": {"amount": 1, "income": 2}, "id": "c-1"}
    assert predict(version, tmp_path, store, {"instances": [row]}) == [[31, 2, 3]]
    assert predict(version, tmp_path, store, {"instances": [{**row, "age": 7}]}) == [[8, 2, 3]]


def test_the_container_takes_full_tensors(tmp_path: Path) -> None:
    """It reads the same package, and the block is none of its business; its example is the model's own."""
    own = {"age": 1, "amount": 2, "income": 3}
    loaded = OnnxPackage.load(package(tmp_path, FEATURES, example=own), threads=1)
    assert [spec.name for spec in loaded.signature.inputs] == ["x"]
    assert loaded.warm_up()
    assert loaded.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({**FEATURES, "example": {"x": {"amount": -1}, "customer_id": "c-1"}}, "no request: /instances/0/x/amount"),
        ({**FEATURES, "example": {"x": {"age": 1, "amount": 1, "income": 1}}}, "no request: /instances/0/customer_id"),
        ({**FEATURES, "entity": None}, "the set 'customer' has no entity"),
        ({"entity": "x", "sets": FEATURES["sets"]}, "fed by the store"),
        ({"entity": "id", "sets": []}, "at least 1 item"),
        ({"entity": "id", "sets": [{"name": "No Set", "fields": [{"feature": "x"}]}]}, "should match pattern"),
        ({"entity": "id", "sets": [{"name": "s", "fields": [{"feature": "size"}]}]}, "no input of the model"),
        ({"entity": "id", "sets": [{"name": "s", "input": "x", "fields": [{"feature": "size"}]}]}, "no 'size' among"),
        (
            {"entity": "id", "sets": [{"name": "s", "input": "x", "fields": [{"feature": "age", "default": [1]}]}]},
            "Input should be",
        ),
        (
            {"entity": "id", "sets": [{"name": "s", "input": "x", "fields": [{"feature": "age", "default": -1.0}]}]},
            "the default of 'age' is below the minimum 0",
        ),
        (
            {"entity": "id", "sets": [{"name": "s", "input": "x", "fields": [{"feature": "age", "ttl": 1}]}]},
            "Extra inputs",
        ),
    ],
)
def test_blocks_that_are_refused_when_they_are_published(tmp_path: Path, features: Any, said: str) -> None:
    with pytest.raises(InvalidPackage) as refused:
        published(tmp_path, features)
    assert said in refused.value.detail
