"""The table that requests look models up in."""

from pathlib import Path

import pytest

from gpu_service.models.errors import ModelEvicted, ModelUnavailable
from gpu_service.models.repository import ModelRepository, State
from gpu_service.models.served_model import ModelKey, ServedModel
from gpu_service.models.sources.source import Found
from shared.domain.errors import BackendError, InvalidPackage, InvalidRequest, ModelNotFound, VersionNotFound
from tests.gpu_service.models.support import FakeServed


def found(name: str, version: int, revision: str = "r") -> Found:
    return Found(ModelKey(name, version), revision, str(Path("/") / name / str(version)))


def serve(repository: ModelRepository, name: str, version: int) -> ServedModel:
    package = found(name, version)
    served = FakeServed(package.key)
    repository.serve(repository.begin(package), served, package)
    return served


@pytest.fixture
def repository() -> ModelRepository:
    return ModelRepository()


def test_models_are_found_by_name_and_version(repository: ModelRepository) -> None:
    first, second, other = serve(repository, "a", 1), serve(repository, "a", 10), serve(repository, "b", 2)
    assert repository.get("a", 1) is first
    assert repository.get("a", 10) is repository.get("a", None) is second
    assert repository.get("b", None) is other
    with pytest.raises(InvalidRequest, match="2 models are served"):
        repository.get(None, None)
    with pytest.raises(ModelNotFound, match="'c'"):
        repository.get("c", None)
    with pytest.raises(VersionNotFound, match="version 3"):
        repository.get("a", 3)
    for nonsense in (0, -1):
        with pytest.raises(VersionNotFound):
            repository.get("a", nonsense)


def test_the_only_model_needs_no_name(repository: ModelRepository) -> None:
    with pytest.raises(ModelUnavailable, match="No model is served"):
        repository.get(None, None)
    first, second = serve(repository, "a", 1), serve(repository, "a", 2)
    assert repository.get(None, None) is second
    assert repository.get(None, 1) is first
    serve(repository, "b", 1)
    entry = repository.entry(ModelKey("b", 1))
    assert entry is not None
    repository.withdraw(entry, "unloaded")
    assert repository.get(None, None) is second


def test_a_name_that_a_caller_made_up_is_cut(repository: ModelRepository) -> None:
    with pytest.raises(ModelNotFound) as error:
        repository.get("x" * 100_000, None)
    assert len(error.value.detail) < 400


def test_what_is_being_loaded_is_not_ready(repository: ModelRepository) -> None:
    entry = repository.begin(found("a", 1))
    for version in (None, 1):
        with pytest.raises(ModelUnavailable, match="being loaded") as error:
            repository.get("a", version)
        assert not isinstance(error.value, ModelEvicted)
    assert not repository.ready("a")
    repository.fail(entry, InvalidPackage("no graph"), refused="r")
    with pytest.raises(ModelUnavailable, match="no graph"):
        repository.get("a", 1)


def test_a_version_that_is_being_loaded_takes_no_requests_from_the_others(repository: ModelRepository) -> None:
    first = serve(repository, "a", 1)
    repository.begin(found("a", 2))
    repository.begin(found("b", 1))
    assert repository.get("a", None) is repository.get(None, None) is first


def test_what_is_loaded_again_is_served_meanwhile(repository: ModelRepository) -> None:
    first = serve(repository, "a", 1)
    entry = repository.begin(found("a", 1, "other"))
    assert repository.get("a", 1) is first
    assert entry.state is State.READY
    repository.fail(entry, BackendError("disk"))
    assert repository.get("a", 1) is first
    assert entry.state is State.READY
    assert repository.serve(entry, FakeServed(entry.key), found("a", 1, "other")) is first


def test_an_evicted_version_stays_the_highest(repository: ModelRepository) -> None:
    first = serve(repository, "a", 1)
    serve(repository, "a", 2)
    entry = repository.entry(ModelKey("a", 2))
    assert entry is not None
    repository.withdraw(entry, "evicted", evicted=True)
    assert repository.ready("a")
    assert repository.ready("a", 2)
    for name in ("a", None):
        with pytest.raises(ModelEvicted) as error:
            repository.get(name, None)
        assert error.value.key == ModelKey("a", 2)
    assert repository.get("a", 1) is first


def test_withdrawn_settled_and_forgotten(repository: ModelRepository) -> None:
    served = serve(repository, "a", 1)
    entry = repository.entry(ModelKey("a", 1))
    assert entry is not None
    assert repository.withdraw(entry, "unloaded") is served
    assert str(entry.state) == "UNLOADING"
    assert not repository.ready("a", 1)
    with pytest.raises(ModelUnavailable, match="unloaded"):
        repository.get("a", 1)
    repository.settle(entry)
    assert str(entry.state) == "UNAVAILABLE"
    assert repository.withdraw(entry, "again") is None
    repository.forget(entry)
    with pytest.raises(ModelNotFound):
        repository.get("a", 1)
    assert repository.entries() == []


def test_readiness(repository: ModelRepository) -> None:
    assert repository.readiness().reason == "The models are being loaded."
    repository.pending(None)
    assert repository.readiness().ready
    entry = repository.begin(found("a", 1), given=True)
    assert repository.readiness().reason == "These models are being loaded: a/1."
    repository.fail(entry, InvalidPackage("no graph"), refused="r")
    readiness = repository.readiness()
    assert not readiness.ready
    assert readiness.failed == {"a/1": "no graph"}
    assert "a/1" in readiness.reason
    later = repository.begin(found("b", 1))
    repository.fail(later, InvalidPackage("no graph"), refused="r")
    assert "b/1" not in repository.readiness().failed
    repository.serve(entry, FakeServed(entry.key), found("a", 1))
    readiness = repository.readiness()
    assert readiness.ready
    assert readiness.models == (ModelKey("a", 1),)
    repository.withdraw(entry, "unloaded")
    assert repository.readiness().ready
