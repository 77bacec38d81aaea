"""The contract of `ModelRegistry`, on the fake and on DynamoDB; then what only DynamoDB can get wrong."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_models import MAX_ITEM_BYTES, DynamoDBModels
from shared.domain.dtypes import DType
from shared.domain.errors import (
    BackendError,
    BackendUnavailable,
    InvalidPackage,
    ModelNotFound,
    VersionConflict,
    VersionNotFound,
)
from shared.domain.features import Feature, FeatureSet, ModelFeatures
from shared.domain.pipeline import Pipeline, Source, Step
from shared.domain.ports import ModelRegistry
from shared.domain.signature import Signature, TensorSpec
from tests.adapters.samples import unique, version_of
from tests.conftest import LocalAws
from tests.fakes import InMemoryModels

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def dynamodb_models(dynamodb: "DynamoDBClient", local_aws: LocalAws) -> DynamoDBModels:
    return DynamoDBModels(dynamodb, local_aws.models_table)


@pytest.fixture(params=["fake", "dynamodb"])
def registry(request: pytest.FixtureRequest) -> ModelRegistry:
    if request.param == "fake":
        return InMemoryModels()
    found: ModelRegistry = request.getfixturevalue("dynamodb_models")
    return found


def test_a_version_comes_back_as_it_was_added(registry: ModelRegistry) -> None:
    version = version_of(unique("m"))
    assert registry.add(version) is True
    assert registry.get(version.model, 1) == version
    assert registry.latest(version.model) == version
    assert registry.versions(version.model) == [version]


def test_features_come_back_with_what_callers_see(registry: ModelRegistry) -> None:
    signature = Signature(
        (TensorSpec("x", DType.FP32, (None, 2), features=("age", "amount")), TensorSpec("n", DType.INT64, (None,))),
        (TensorSpec("y", DType.FP32, (None,)),),
    )
    fields = (
        Feature("age", "x", "age", default=40.0, max_age_s=60),
        Feature("visits", "n", default=0, overridable=True),
    )
    features = ModelFeatures((FeatureSet("customer", "customer_id", fields),), example={"customer_id": "c"})
    version = replace(version_of(unique("m"), signature=signature), features=features)
    registry.add(version)
    found = registry.latest(version.model)
    assert found == version
    assert [spec.name for spec in found.caller_signature.inputs] == ["x", "n", "customer_id"]
    assert found.caller_signature == version.caller_signature
    assert found.caller_signature is found.caller_signature
    assert found.caller_example == {"customer_id": "c"}


def test_a_pipeline_comes_back_with_its_steps(registry: ModelRegistry) -> None:
    steps = (
        Step("pre", "scaler", 3, {"x": Source(None, "values")}, "a" * 64),
        Step("again", "scaler", 3, {"x": Source("pre", "y.1")}, "a" * 64),
        Step("labels", "labels", 12, {"x": Source("again", "y.1"), "other": Source(None, "values")}, "b" * 64),
    )
    made = Pipeline(steps, {"label": Source("labels", "label"), "scaled": Source("pre", "y.1")})
    version = replace(version_of(unique("m")), pipeline=made)
    assert registry.add(version) is True
    assert registry.get(version.model, 1) == version
    assert registry.latest(version.model).pipeline == made
    assert next(found for found in registry.models() if found.model == version.model) == version


def test_latest_is_the_highest_number_not_the_last_added(registry: ModelRegistry) -> None:
    model = unique("m")
    for number in (2, 10, 9):
        registry.add(version_of(model, number))
    assert registry.latest(model).version == 10
    assert [version.version for version in registry.versions(model)] == [10, 9, 2]


def test_the_same_digest_may_be_added_again_and_changes_nothing(registry: ModelRegistry) -> None:
    first = version_of(unique("m"))
    again = version_of(first.model, metadata={"licence": "other"})
    assert registry.add(first) is True
    assert registry.add(again) is False
    assert registry.get(first.model, 1) == first


def test_another_digest_is_a_conflict_and_changes_nothing(registry: ModelRegistry) -> None:
    first = version_of(unique("m"))
    registry.add(first)
    with pytest.raises(VersionConflict, match="published with other content"):
        registry.add(version_of(first.model, files={"model.onnx": b"other"}))
    assert registry.get(first.model, 1) == first


@pytest.mark.parametrize("model", ["", "nowhere", "#latest", "UPPER", "a" * 65, "a/b", "\ud800"])
def test_an_unknown_model_is_not_found(registry: ModelRegistry, model: str) -> None:
    registry.add(version_of(unique("m")))
    for ask in (registry.latest, registry.versions, lambda name: registry.get(name, 1)):
        with pytest.raises(ModelNotFound):
            ask(model)


@pytest.mark.parametrize("number", [2, 0, -1, 10**40])
def test_an_unknown_version_of_a_known_model_is_not_found(registry: ModelRegistry, number: int) -> None:
    version = version_of(unique("m"))
    registry.add(version)
    with pytest.raises(VersionNotFound):
        registry.get(version.model, number)


def test_models_lists_the_highest_version_of_each_by_name(registry: ModelRegistry) -> None:
    prefix = unique("list")
    for model, number in (("b", 1), ("a", 2), ("a", 1), ("b", 3), ("b", 2), ("c", 7)):
        registry.add(version_of(f"{prefix}.{model}", number))
    listed = [version for version in registry.models() if version.model.startswith(prefix)]
    assert listed == [version_of(f"{prefix}.a", 2), version_of(f"{prefix}.b", 3), version_of(f"{prefix}.c", 7)]


def test_of_many_who_add_one_version_with_other_bytes_one_wins(registry: ModelRegistry) -> None:
    model = unique("race")
    candidates = [version_of(model, files={"model.onnx": bytes([n])}) for n in range(12)]

    def add(n: int) -> bool:
        try:
            return registry.add(candidates[n])
        except VersionConflict:
            return False

    with ThreadPoolExecutor(max_workers=12) as pool:
        won = list(pool.map(add, range(12)))
    assert won.count(True) == 1
    assert registry.get(model, 1) == candidates[won.index(True)]


def test_versions_added_at_once_leave_the_highest_in_the_list(registry: ModelRegistry) -> None:
    model = unique("race")
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert all(pool.map(lambda number: registry.add(version_of(model, number)), range(1, 9)))
    assert registry.latest(model).version == 8
    assert [version.version for version in registry.models() if version.model == model] == [8]


def test_an_entry_that_no_item_can_hold_is_refused_with_its_size(dynamodb_models: DynamoDBModels) -> None:
    version = version_of(unique("big"), metadata={"lineage": "é" * (MAX_ITEM_BYTES // 2)})
    with pytest.raises(InvalidPackage, match=r"would have 40\d{4} bytes"):
        dynamodb_models.add(version)
    with pytest.raises(ModelNotFound):
        dynamodb_models.latest(version.model)


def test_the_largest_entry_fits_and_listings_go_over_pages(dynamodb_models: DynamoDBModels) -> None:
    model = unique("pages")
    for number in range(1, 5):
        dynamodb_models.add(version_of(model, number, metadata={"lineage": "x" * (MAX_ITEM_BYTES - 4000)}))
    assert [version.version for version in dynamodb_models.versions(model)] == [4, 3, 2, 1]
    assert dynamodb_models.latest(model).version == 4


def test_adding_again_makes_up_for_a_publisher_that_died_half_way(
    dynamodb_models: DynamoDBModels, dynamodb: "DynamoDBClient", local_aws: LocalAws
) -> None:
    version = version_of(unique("half"))
    dynamodb_models.add(version)
    entry = next(
        item
        for item in dynamodb.scan(TableName=local_aws.models_table)["Items"]
        if item.get("latest_model", {}).get("S") == version.model
    )
    key = {name: entry[name] for name in ("model", "version")}
    dynamodb.delete_item(TableName=local_aws.models_table, Key=key)
    assert version not in dynamodb_models.models()
    assert dynamodb_models.add(version) is False
    assert version in dynamodb_models.models()


def test_metadata_that_is_not_json_is_refused(dynamodb_models: DynamoDBModels) -> None:
    for value in (float("nan"), object()):
        with pytest.raises(InvalidPackage, match="JSON"):
            dynamodb_models.add(version_of(unique("m"), metadata={"x": value}))


def test_an_entry_that_cannot_be_read_is_named(
    dynamodb_models: DynamoDBModels, dynamodb: "DynamoDBClient", local_aws: LocalAws
) -> None:
    model = unique("damaged")
    dynamodb.put_item(TableName=local_aws.models_table, Item={"model": {"S": model}, "version": {"N": "3"}})
    with pytest.raises(InvalidPackage, match=f"{model} version 3"):
        dynamodb_models.latest(model)


def test_a_missing_table_and_a_dead_service_are_told_apart(
    dynamodb: "DynamoDBClient", aws_session: Session, free_port: int
) -> None:
    with pytest.raises(BackendError, match="ResourceNotFoundException"):
        DynamoDBModels(dynamodb, "no-such-table").latest("m")
    dead = client("dynamodb", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        DynamoDBModels(dead, "table").latest("m")
