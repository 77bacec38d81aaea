"""Who may upload, and what a new upload is given."""

from collections.abc import Mapping

import pytest

from shared.domain.errors import InsufficientScope
from shared.domain.jobs import ObjectRef
from shared.domain.principal import Principal
from shared.domain.uploads import NewUpload, ObjectHead
from shared.usecases.sources import Sources
from shared.usecases.uploads import Uploads
from tests.memory_objects import MemoryObjects

NOW = 1_800_000_000.0
NEW = NewUpload(10, "text/csv", "a" * 64)


class Addresses:
    """Notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[ObjectRef, NewUpload, int]] = []

    def put_url(self, ref: ObjectRef, new: NewUpload, seconds: int) -> tuple[str, Mapping[str, str]]:
        self.asked.append((ref, new, seconds))
        return f"https://{ref.bucket}/{ref.key}", {"Content-Length": str(new.size)}


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def addresses() -> Addresses:
    return Addresses()


@pytest.fixture
def uploads(objects: MemoryObjects, addresses: Addresses) -> Uploads:
    sources = Sources(objects, "data", now=lambda: NOW)
    return Uploads(addresses, sources, "data", 900, now=lambda: NOW)


def caller(*scopes: str) -> Principal:
    return Principal("acme", "k", frozenset(scopes), "default")


@pytest.mark.parametrize("scope", ["predict", "predict:tumor", "jobs"])
def test_an_upload_has_an_id_of_its_own_below_its_tenant(
    uploads: Uploads, addresses: Addresses, objects: MemoryObjects, scope: str
) -> None:
    first, second = (uploads.create(caller(scope), NEW) for _ in range(2))
    assert first.upload_id != second.upload_id
    assert first.expires_at == NOW + 900
    assert addresses.asked[0] == (ObjectRef("data", f"uploads/acme/{first.upload_id}"), NEW, 900)
    objects.put(addresses.asked[0][0], ObjectHead(10, "text/csv", NOW, '"e"'))
    assert uploads.get(caller(scope), first.upload_id).head.size == 10


@pytest.mark.parametrize("scope", ["ingest", "models:write", "webhooks", "admin", "predicted"])
def test_other_scopes_are_refused_before_anything_is_asked(
    uploads: Uploads, addresses: Addresses, objects: MemoryObjects, scope: str
) -> None:
    with pytest.raises(InsufficientScope):
        uploads.create(caller(scope), NEW)
    with pytest.raises(InsufficientScope):
        uploads.get(caller(scope), "0" * 32)
    assert (addresses.asked, objects.asked) == ([], [])
