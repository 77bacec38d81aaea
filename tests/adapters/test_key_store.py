"""The contract of `KeyStore`, on the fake and on DynamoDB."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.domain.errors import Conflict, KeyNotFound
from shared.domain.ports import ApiKey, KeyStore
from tests.conftest import ROOT, LocalAws
from tests.fakes import InMemoryKeys

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(params=["fake", "dynamodb"])
def keys(request: pytest.FixtureRequest) -> KeyStore:
    if request.param == "fake":
        return InMemoryKeys()
    client: DynamoDBClient = request.getfixturevalue("dynamodb")
    local_aws: LocalAws = request.getfixturevalue("local_aws")
    return DynamoDBKeys(client, local_aws.keys_table)


def _key(**changes: Any) -> ApiKey:
    scopes = frozenset({"predict", "predict:a.b"})
    key = ApiKey(uuid4().hex, "ab" * 32, f"tenant: Ü {uuid4().hex}", scopes, "label", 1_800_000_000, 1_900_000_000)
    return replace(key, **changes)


def _binding(**changes: Any) -> ApiKey:
    return _key(key_id=f"iam#arn:aws:iam::123456789012:role/{uuid4().hex}", secret_hash="", **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"expires_at": None, "name": ""}, {"scopes": frozenset()}, {"revoked_at": 5, "replaced_by": "other"}],
)
def test_a_key_comes_back_as_it_was_added(keys: KeyStore, changes: dict[str, object]) -> None:
    key = _key(**changes)
    keys.add(key)
    assert keys.get(key.key_id) == key


@pytest.mark.parametrize("key_id", ["nobody", "", "é", "\ud800", "x" * 3000])
def test_an_unknown_key_is_none(keys: KeyStore, key_id: str) -> None:
    assert keys.get(key_id) is None
    with pytest.raises(KeyNotFound):
        keys.revoke(key_id, 1)


def test_a_key_is_never_replaced(keys: KeyStore) -> None:
    key = _key()
    keys.add(key)
    with pytest.raises(Conflict, match="taken"):
        keys.add(replace(key, tenant="other"))
    assert keys.get(key.key_id) == key


def test_an_id_that_could_not_be_found_again_is_refused(keys: KeyStore) -> None:
    old = _key()
    keys.add(old)
    for key_id in ("", "é", "x" * 256):
        with pytest.raises(ValueError, match="ASCII"):
            keys.add(_key(key_id=key_id))
        with pytest.raises(ValueError, match="ASCII"):
            keys.replace(old.key_id, replace(old, key_id=key_id), 1)


def test_of_many_who_add_one_id_one_wins(keys: KeyStore) -> None:
    key_id = uuid4().hex

    def add(n: int) -> bool:
        try:
            keys.add(_key(key_id=key_id, tenant=str(n)))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(max_workers=8) as pool:
        won = list(pool.map(add, range(8)))
    stored = keys.get(key_id)
    assert won.count(True) == 1
    assert stored is not None
    assert stored.tenant == str(won.index(True))


def test_a_tenants_keys_are_its_own(keys: KeyStore) -> None:
    mine = [_key(tenant=f"tenant-{uuid4().hex}")]
    mine += [_key(tenant=mine[0].tenant, revoked_at=5), _key(tenant=mine[0].tenant, expires_at=1)]
    for key in [*mine, _key(), _key(tenant=mine[0].tenant + "x")]:
        keys.add(key)
    assert list(keys.of_tenant(mine[0].tenant)) == sorted(mine, key=lambda key: key.key_id)
    assert list(keys.of_tenant("nobody")) == []
    assert list(keys.of_tenant("")) == []


def test_a_key_is_revoked_once(keys: KeyStore) -> None:
    key = _key()
    keys.add(key)
    revoked = replace(key, revoked_at=1_850_000_000)
    assert keys.revoke(key.key_id, 1_850_000_000) == revoked
    assert keys.revoke(key.key_id, 1_860_000_000) == revoked
    assert keys.get(key.key_id) == revoked


@pytest.mark.parametrize("old_ends", [None, 1_900_000_000])
def test_a_rotation_stores_the_new_key_and_ends_the_old_one(keys: KeyStore, old_ends: int | None) -> None:
    old = _key(expires_at=old_ends)
    new = _key(tenant=old.tenant)
    keys.add(old)
    keys.replace(old.key_id, new, 1_850_000_000)
    assert keys.get(new.key_id) == new
    assert keys.get(old.key_id) == replace(old, expires_at=1_850_000_000, replaced_by=new.key_id)


def test_a_rotation_that_cannot_be_leaves_everything_as_it_was(keys: KeyStore) -> None:
    tenant = f"tenant-{uuid4().hex}"
    usable, revoked = _key(tenant=tenant), _key(tenant=tenant, revoked_at=5)
    rotated = _key(tenant=tenant, replaced_by="other")
    for key in (usable, revoked, rotated):
        keys.add(key)
    new = _key(tenant=tenant)

    for old, made, ends, error in (
        (revoked, new, 6, Conflict),
        (rotated, new, 6, Conflict),
        (usable, new, 1_900_000_001, Conflict),  # later than it ends by itself
        (usable, replace(new, key_id=revoked.key_id), 6, Conflict),  # an id that is taken
        (usable, replace(new, tenant="other"), 6, KeyNotFound),  # another tenant's key
        (usable, replace(new, key_id=usable.key_id), 6, KeyNotFound),
        (_key(tenant=tenant), new, 6, KeyNotFound),
        (replace(usable, key_id="é"), new, 6, KeyNotFound),
    ):
        with pytest.raises(error):
            keys.replace(old.key_id, made, ends)
        assert keys.get(new.key_id) is None
    assert {key.key_id: key for key in keys.of_tenant(tenant)} == {k.key_id: k for k in (usable, revoked, rotated)}


def test_of_many_rotations_of_one_key_one_wins(keys: KeyStore) -> None:
    old = _key()
    keys.add(old)
    made = [_key(tenant=old.tenant) for _ in range(6)]

    def rotate(new: ApiKey) -> bool:
        try:
            keys.replace(old.key_id, new, 1_850_000_000)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(max_workers=6) as pool:
        won = list(pool.map(rotate, made))
    assert won.count(True) == 1
    stored = keys.get(old.key_id)
    assert stored is not None
    assert stored.replaced_by == made[won.index(True)].key_id
    assert {key.key_id for key in keys.of_tenant(old.tenant)} == {old.key_id, stored.replaced_by}


def test_a_binding_replaces_the_one_before_and_nothing_else_may(keys: KeyStore) -> None:
    first = _binding(revoked_at=5)
    second = replace(first, tenant="other", revoked_at=None)
    keys.bind(first)
    assert keys.get(first.key_id) == first
    keys.bind(second)
    assert keys.get(first.key_id) == second
    with pytest.raises(ValueError, match="IAM"):
        keys.bind(_key())


def test_the_key_store_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pydantic", "onnxruntime", "fastapi", "boto3")
    code = f"import sys, shared.adapters.dynamodb_keys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
