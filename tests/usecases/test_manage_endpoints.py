from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.domain.endpoint.config import BackendChoice, EndpointConfig, ResponseFilter, StoredEndpoint, Variant
from shared.domain.errors import (
    BackendUnavailable,
    FieldError,
    NotFound,
    OutOfRange,
    PreconditionFailed,
    RevisionNotFound,
    TextTooLong,
    VersionNotFound,
)
from shared.usecases.manage_endpoints import ManageEndpoints
from tests.fakes import InMemoryEndpoints, InMemoryModels
from tests.functions.support import published

NOW = 1_763_700_000.9
FIRST = EndpointConfig("pair", variants=(Variant("main", 1),), labels={"prod": 2})


class Kinds:
    """`BackendKinds` with one kind, which has no options."""

    def problems(self, kind: str, options: Mapping[str, Any]) -> Sequence[FieldError]:
        if kind != "plain":
            return [FieldError("/kind", "is unknown")]
        return [FieldError(f"/options/{name}", "is unknown") for name in options]


@pytest.fixture
def store() -> InMemoryEndpoints:
    return InMemoryEndpoints()


@pytest.fixture
def manage(store: InMemoryEndpoints) -> ManageEndpoints:
    models = InMemoryModels(published("pair", 1), published("pair", 2))
    return ManageEndpoints(store, Kinds(), models, lambda: NOW)


def test_a_change_is_stored_with_who_made_it_when_and_why(manage: ManageEndpoints, store: InMemoryEndpoints) -> None:
    assert manage.get("pair") == StoredEndpoint(EndpointConfig("pair"), 0, 0)
    stored, plan = manage.put(FIRST, expected=0, by="key", note="why")
    assert stored == StoredEndpoint(FIRST, 1, 1_763_700_000, "key", "why") == store.get("pair") == manage.get("pair")
    assert [str(change) for change in plan] == [
        "+ variants[main].version = 1",
        '+ variants[main].backend = "auto"',
        "+ variants[main].weight = 100.0",
        "+ labels.prod = 2",
    ]
    second, plan = manage.put(replace(FIRST, timeout_ms=5), expected=None, by="other")
    assert (second.revision, [str(change) for change in plan]) == (2, ["~ timeout_ms: 29000 -> 5"])
    assert [found.revision for found in manage.history("pair")] == [2, 1]
    assert manage.revision("pair", 1) == stored
    assert list(manage.list()) == [second]


def test_what_changes_nothing_makes_no_revision(manage: ManageEndpoints) -> None:
    stored, _ = manage.put(FIRST, expected=0, by="key")
    assert manage.put(FIRST, expected=1, by="other", note="again") == (stored, [])
    with pytest.raises(PreconditionFailed):
        manage.put(FIRST, expected=0, by="other")
    default, plan = manage.put(EndpointConfig("triple"), expected=0, by="key")
    assert (default.revision, len(plan)) == (1, 2)


def test_a_dry_run_changes_nothing_and_refuses_what_would_be_refused(manage: ManageEndpoints) -> None:
    planned, plan = manage.put(FIRST, expected=0, by="key", dry_run=True)
    assert (planned.revision, len(plan)) == (1, 4)
    assert manage.get("pair").revision == 0
    with pytest.raises(PreconditionFailed):
        manage.put(FIRST, expected=3, by="key", dry_run=True)
    with pytest.raises(OutOfRange):
        manage.put(replace(FIRST, sticky="?"), expected=0, by="key", dry_run=True)


def test_whoever_is_slower_is_told(manage: ManageEndpoints, store: InMemoryEndpoints) -> None:
    """Somebody else writes between the read and the write."""

    class Late(InMemoryEndpoints):
        def get(self, endpoint: str) -> StoredEndpoint | None:
            found = store.get(endpoint)
            store.put(StoredEndpoint(replace(FIRST, timeout_ms=7), (found.revision if found else 0) + 1, 1))
            return found

        def put(self, stored: StoredEndpoint) -> None:
            store.put(stored)

    late = replace(manage, endpoints=Late())
    with pytest.raises(PreconditionFailed):
        late.put(FIRST, expected=None, by="key")
    assert manage.get("pair").config.timeout_ms == 7


def test_rolling_back_makes_a_new_revision(manage: ManageEndpoints) -> None:
    manage.put(FIRST, expected=0, by="key")
    manage.put(replace(FIRST, timeout_ms=5), expected=1, by="key")
    with pytest.raises(PreconditionFailed):
        manage.rollback("pair", 1, expected=1, by="key")
    with pytest.raises(RevisionNotFound):
        manage.rollback("pair", 3, expected=2, by="key")
    planned, plan = manage.rollback("pair", 1, expected=2, by="key", dry_run=True)
    assert (planned.config, [str(change) for change in plan]) == (FIRST, ["~ timeout_ms: 5 -> 29000"])
    back, _ = manage.rollback("pair", 1, expected=2, by="me")
    assert back == StoredEndpoint(FIRST, 3, int(NOW), "me", "Back to revision 1") == manage.get("pair")


def test_traffic_is_split_between_published_versions(manage: ManageEndpoints) -> None:
    manage.put(FIRST, expected=0, by="key")
    stored, plan = manage.traffic("pair", {"prod": 0.05}, expected=1, by="key", note="canary")
    assert stored.config.variants == (Variant("main", 1, weight=95.0), Variant("v2", 2, weight=5.0))
    assert "~ variants[main].weight: 100.0 -> 95.0" in map(str, plan)
    with pytest.raises(VersionNotFound):
        manage.traffic("pair", {"3": 0.05}, expected=2, by="key")
    with pytest.raises(OutOfRange, match="highest version"):
        replace(manage, endpoints=InMemoryEndpoints()).traffic("pair", {"2": 0.05}, expected=0, by="key")


def test_nothing_published_is_no_version(manage: ManageEndpoints) -> None:
    with pytest.raises(VersionNotFound):
        manage.traffic("nothing", {"1": 1}, expected=0, by="key")
    assert manage.get("nothing").revision == 0


@pytest.mark.parametrize(
    ("config", "pointers"),
    [
        (replace(FIRST, sticky="?"), ["/sticky"]),
        (replace(FIRST, backends={"x": BackendChoice("strange")}), ["/backends/x/kind"]),
        (replace(FIRST, backends={"x": BackendChoice("plain", {"a": 1})}), ["/backends/x/options/a"]),
        (replace(FIRST, labels={"prod": 3}), ["/labels/prod"]),
        (replace(FIRST, variants=(Variant("main", 7), Variant("b", "prod"))), ["/variants/0/version"]),
        (replace(FIRST, response=ResponseFilter(("z",))), ["/response/outputs/0"]),
    ],
)
def test_what_does_not_fit_is_refused(manage: ManageEndpoints, config: EndpointConfig, pointers: list[str]) -> None:
    with pytest.raises(OutOfRange) as raised:
        manage.put(config, expected=0, by="key")
    assert [field.pointer for field in raised.value.fields] == pointers
    assert manage.get("pair").revision == 0


def test_a_configuration_may_come_before_its_model(manage: ManageEndpoints) -> None:
    early = replace(FIRST, endpoint="later", labels={"prod": 9}, response=ResponseFilter(("z",)))
    assert manage.put(early, expected=0, by="key")[0].revision == 1


def test_names_notes_and_stores_that_fail(manage: ManageEndpoints, store: InMemoryEndpoints) -> None:
    with pytest.raises(NotFound):
        manage.get("../x")
    with pytest.raises(NotFound):
        manage.history("X")
    with pytest.raises(NotFound):
        manage.put(replace(FIRST, endpoint="X"), expected=0, by="key")
    with pytest.raises(TextTooLong):
        manage.put(FIRST, expected=0, by="key", note="x" * 501)
    store.error = BackendUnavailable("away")
    with pytest.raises(BackendUnavailable):
        manage.put(FIRST, expected=0, by="key")
