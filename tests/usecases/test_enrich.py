"""Features from the store in a request's inputs: fresh ones, defaults, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import FeatureSettings
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BatchTooLarge,
    FeatureMissing,
    FeaturesUnavailable,
    pointer,
)
from shared.domain.features import EntityKey, Feature, FeatureRecord, FeatureSet, ModelFeatures
from shared.domain.model import ModelVersion, Placement
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import bytes_tensor
from shared.usecases.enrich import Enrich, T
from tests.fakes import InMemoryFeatures

NOW = 1_800_000_000.0
SETTINGS = FeatureSettings()
SIGNATURE = Signature(
    (
        TensorSpec("x", DType.FP32, (None, 3), features=("age", "amount", "income"), maximum=1e6),
        TensorSpec("visits", DType.INT64, (None,)),
        TensorSpec("segment", DType.BYTES, (None,)),
    ),
    (TensorSpec("y", DType.FP32, (None, 1)),),
    max_batch=500,
)
FEATURES = ModelFeatures(
    (
        FeatureSet(
            "customer",
            "customer_id",
            (Feature("age", "x", "age", default=40.0, max_age_s=3600), Feature("income", "x", "income")),
        ),
        FeatureSet(
            "shop",
            "customer_id",
            (Feature("n", "visits", default=0), Feature("segment", "segment", default="none", overridable=True)),
        ),
    )
)


def version(features: ModelFeatures | None = FEATURES, signature: Signature = SIGNATURE) -> ModelVersion:
    return ModelVersion(
        "m", 1, "0" * 64, (), signature, Placement.FUNCTION, "2026-11-21T00:00:00+00:00", features=features
    )


def sent(*entities: str, **more: Any) -> dict[str, Any]:
    x = np.arange(len(entities), dtype=np.float32).reshape(-1, 1)
    return {"x": x, "customer_id": bytes_tensor([entity.encode() for entity in entities]), **more}


def locate(name: str, index: tuple[int, ...]) -> str:
    return pointer("/instances", *(index or (0,)), name)


@pytest.fixture
def store() -> InMemoryFeatures:
    store = InMemoryFeatures()
    put(store, "customer", "ann", age=30, income=10.5)
    put(store, "customer", "bob", age=50, income=20)
    put(store, "shop", "ann", n=3, segment="gold")
    return store


def put(store: InMemoryFeatures, set_: str, entity: str, *, at: float = NOW - 60, **values: Any) -> None:
    store.put("acme", [FeatureRecord(EntityKey(set_, entity), values, int(at))])


def test_a_model_without_features_is_left_alone(store: InMemoryFeatures) -> None:
    given = {"x": np.zeros((1, 3))}
    enriched = Enrich(store)(version(None), given, "acme", SETTINGS, NOW)
    assert (enriched.inputs, enriched.used, enriched.values(), store.reads) == (given, None, {}, [])


def test_rows_get_the_features_of_their_entities(store: InMemoryFeatures) -> None:
    enriched = Enrich(store)(version(), sent("ann", "bob", "ann"), "acme", SETTINGS, NOW)
    assert enriched.inputs["x"].tolist() == [[30, 0, 10.5], [50, 1, 20], [30, 2, 10.5]]
    assert enriched.inputs["visits"].tolist() == [3, 0, 3]
    assert enriched.inputs["segment"].tolist() == [b"gold", b"none", b"gold"]
    # One read, of each entity once, for what the model needs.
    (read,) = store.reads
    assert read == (
        "acme",
        tuple(EntityKey(set_, entity) for set_ in ("customer", "shop") for entity in ("ann", "bob")),
        ("age", "income", "n", "segment"),
    )
    assert enriched.used == {
        "sets": {
            "customer#customer_id": {"entities": 2, "found": 4, "oldest_s": 60},
            "shop#customer_id": {"entities": 2, "found": 2, "missing": 2, "oldest_s": 60},
        }
    }


def test_another_tenants_features_are_not_there(store: InMemoryFeatures) -> None:
    with pytest.raises(FeatureMissing):
        Enrich(store)(version(), sent("ann"), "other", SETTINGS, NOW)


def test_what_is_too_old_gives_way_to_its_default(store: InMemoryFeatures) -> None:
    put(store, "customer", "ann", at=NOW - 3601, age=30, income=10.5)
    enriched = Enrich(store)(version(), sent("ann", "bob"), "acme", SETTINGS, NOW)
    assert enriched.inputs["x"][:, 0].tolist() == [40, 50]
    assert enriched.used is not None
    assert enriched.used["sets"]["customer#customer_id"] == {"entities": 2, "found": 3, "stale": 1, "oldest_s": 3601}
    # The endpoint's limit holds where the manifest has no stricter one.
    strict = replace(SETTINGS, max_age_s=59)
    with pytest.raises(FeatureMissing, match="no value younger than 59 s for the feature 'income'"):
        Enrich(store)(version(), sent("bob"), "acme", strict, NOW)
    lax = replace(SETTINGS, max_age_s=31_536_000)
    assert Enrich(store)(version(), sent("ann"), "acme", lax, NOW).inputs["x"][0, 0] == 40


def test_what_has_ended_is_not_there(store: InMemoryFeatures) -> None:
    key = EntityKey("customer", "ann")
    for expires_at, there in ((NOW + 1, True), (NOW, False)):
        store.put("acme", [FeatureRecord(key, {"income": 1}, int(NOW), int(expires_at))])
        if there:
            Enrich(store)(version(), sent("ann"), "acme", SETTINGS, NOW)
        else:
            with pytest.raises(FeatureMissing):
                Enrich(store)(version(), sent("ann"), "acme", SETTINGS, NOW)


def test_what_is_missing_is_named_by_row(store: InMemoryFeatures) -> None:
    with pytest.raises(FeatureMissing) as refused:
        Enrich(store)(version(), sent("ann", "eve", "bob", "dan"), "acme", SETTINGS, NOW, locate=locate)
    assert [field.pointer for field in refused.value.fields] == ["/instances/1/customer_id", "/instances/3/customer_id"]
    assert "no feature 'income' is stored for this entity in 'customer'" in refused.value.detail
    assert "eve" not in refused.value.detail


def test_a_caller_may_send_what_is_overridable(store: InMemoryFeatures) -> None:
    given = sent("ann", segment=bytes_tensor([b"own"]))
    assert Enrich(store)(version(), given, "acme", SETTINGS, NOW).inputs["segment"].tolist() == [b"own"]
    assert "segment" not in store.reads[0][2]
    only = ModelFeatures((FeatureSet("shop", "customer_id", (FEATURES.sets[1].features[1],)),))
    given = {**given, "x": np.zeros((1, 3), np.float32), "visits": np.zeros(1, np.int64)}
    enriched = Enrich(store)(version(only), given, "acme", SETTINGS, NOW)
    assert (enriched.used, len(store.reads)) == ({"sets": {}}, 1)


def test_ids_may_be_the_models_own_integers(store: InMemoryFeatures) -> None:
    signature = replace(SIGNATURE, inputs=(SIGNATURE.inputs[1], TensorSpec("user", DType.INT64, (None,))))
    features = ModelFeatures((FeatureSet("shop", "user", (Feature("n", "visits"),)),))
    put(store, "shop", "-7", n=9)
    enriched = Enrich(store)(version(features, signature), {"user": np.array([-7])}, "acme", SETTINGS, NOW)
    assert {name: array.tolist() for name, array in enriched.inputs.items()} == {"visits": [9], "user": [-7]}


def test_one_set_by_two_ids(store: InMemoryFeatures) -> None:
    fields = (Feature("income", "x", "age"),), (Feature("income", "x", "income"),)
    features = ModelFeatures(tuple(FeatureSet("customer", by, own) for by, own in zip("ab", fields, strict=True)))
    given: dict[str, Any] = {
        "x": np.zeros((1, 1), np.float32),
        "visits": np.zeros(1, np.int64),
        "segment": bytes_tensor([b""]),
        "a": bytes_tensor([b"ann"]),
        "b": bytes_tensor([b"bob"]),
    }
    enriched = Enrich(store)(version(features), given, "acme", SETTINGS, NOW)
    assert enriched.inputs["x"].tolist() == [[10.5, 0, 20]]
    assert enriched.values().keys() == {"customer#a", "customer#b"}


def test_more_entities_than_one_read_takes(store: InMemoryFeatures) -> None:
    names = [f"e{at}" for at in range(51)]
    for name in names:
        put(store, "customer", name, income=1)
    Enrich(store)(version(), sent(*names[:50], *names[:50]), "acme", SETTINGS, NOW)
    with pytest.raises(BatchTooLarge, match="names 102 different entities in all sets; the limit of a request is 100"):
        Enrich(store)(version(), sent(*names), "acme", SETTINGS, NOW)
    assert len(store.reads) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"age": "old"}, "'age' that 'customer' holds for instance 1 is not a number"),
        ({"income": 1e6 + 1}, "'income' that 'customer' holds for instance 1 is above the maximum"),
        ({"income": 1e39}, "does not fit into FP32"),
    ],
)
def test_a_stored_value_that_does_not_fit_is_no_fault_of_the_caller(
    store: InMemoryFeatures, values: dict[str, Any], said: str
) -> None:
    put(store, "customer", "bob", **{"age": 1, "income": 1, **values})
    with pytest.raises(BackendError, match=said) as failed:
        Enrich(store)(version(), sent("ann", "bob"), "acme", SETTINGS, NOW)
    assert failed.value.fields == ()


# ------------------------------------------------------------------ a store that fails
ALL_DEFAULTS = ModelFeatures(
    (replace(FEATURES.sets[0], features=tuple(replace(each, default=7) for each in FEATURES.sets[0].features)),)
)
REST: dict[str, Any] = {"visits": np.zeros(1, np.int64), "segment": bytes_tensor([b""])}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FeaturesUnavailable("down"), FeaturesUnavailable),
        (BackendTimeout("late"), BackendTimeout),
        (BackendRejected("no"), FeaturesUnavailable),
    ],
)
def test_a_failing_store(store: InMemoryFeatures, error: Exception, raised: type[Exception]) -> None:
    store.error = error
    defaults = FeatureSettings(on_failure="defaults")
    given = sent("ann", **REST)
    enriched = Enrich(store)(version(ALL_DEFAULTS), given, "acme", defaults, NOW)
    assert enriched.inputs["x"].tolist() == [[7, 0, 7]]
    assert enriched.used == {
        "sets": {"customer#customer_id": {"entities": 1, "found": 0, "missing": 2}},
        "failed": getattr(error, "code", None),
    }
    with pytest.raises(raised):
        Enrich(store)(version(ALL_DEFAULTS), given, "acme", SETTINGS, NOW)
    with pytest.raises(raised):  # one of the features has no default
        Enrich(store)(version(), sent("ann"), "acme", defaults, NOW)


def test_a_store_that_hangs_leaves_time_for_the_model_where_defaults_do(store: InMemoryFeatures) -> None:
    allowed: list[float] = []

    class Hangs:
        def __call__(self, call: Callable[[], T], seconds: float, /) -> T:
            allowed.append(seconds)
            raise BackendTimeout("late")

    enrich = Enrich(store, Hangs())
    defaults = FeatureSettings(on_failure="defaults")
    made = enrich(version(ALL_DEFAULTS), sent("ann", **REST), "acme", defaults, NOW, deadline_s=1.0)
    assert made.inputs["x"].tolist() == [[7, 0, 7]]
    with pytest.raises(BackendTimeout):
        enrich(version(), sent("ann"), "acme", defaults, NOW, deadline_s=1.0)
    assert allowed == [0.5, 1.0]


# ------------------------------------------------------------------ the record
def test_what_was_used_can_be_logged(store: InMemoryFeatures) -> None:
    put(store, "shop", "bob", n=1, segment="s" * 300)
    enriched = Enrich(store)(version(), sent("ann", "bob", "ann"), "acme", SETTINGS, NOW)
    values = enriched.values()
    assert values["customer#customer_id"]["rows"] == [
        {"entity": "ann", "at": NOW - 60, "features": {"age": 30, "income": 10.5}, "defaulted": []},
        {"entity": "bob", "at": NOW - 60, "features": {"age": 50, "income": 20}, "defaulted": []},
    ]
    assert values["shop#customer_id"]["rows"][1]["features"]["segment"] == "s" * 256 + "…"
    # The digest is of the whole text.
    put(store, "shop", "bob", n=1, segment="s" * 299)
    again = Enrich(store)(version(), sent("ann", "bob", "ann"), "acme", SETTINGS, NOW).values()
    assert again["customer#customer_id"] == values["customer#customer_id"]
    assert again["shop#customer_id"]["rows"] == values["shop#customer_id"]["rows"]
    assert again["shop#customer_id"]["sha256"] != values["shop#customer_id"]["sha256"]


def test_what_is_redacted_is_neither_shown_nor_part_of_the_digest(store: InMemoryFeatures) -> None:
    digests = set()
    for income in (1, 2):
        put(store, "customer", "ann", age=30, income=income)
        enriched = Enrich(store)(version(), sent("ann"), "acme", SETTINGS, NOW)
        values = enriched.values(["income", "customer_id"])["customer#customer_id"]
        (row,) = values["rows"]
        assert (row["entity"], row["features"]) == ("[redacted]", {"age": 30, "income": "[redacted]"})
        digests.add(values["sha256"])
    assert len(digests) == 1


def test_the_record_is_bounded(store: InMemoryFeatures) -> None:
    names = [f"e{at}" for at in range(20)]
    for name in names:
        put(store, "customer", name, income=1)
    values = Enrich(store)(version(), sent(*names), "acme", SETTINGS, NOW).values()["customer#customer_id"]
    assert (len(values["rows"]), values["more"]) == (8, 12)
    assert values["rows"][0]["defaulted"] == ["age"]
