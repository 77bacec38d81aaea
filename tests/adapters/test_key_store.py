"""The contract of `KeyStore`, on the fake and on DynamoDB."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shared.adapters.dynamodb_keys import DynamoDBKeys
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
    key = ApiKey(uuid4().hex, "ab" * 32, "tenant: Ü", frozenset({"predict", "predict:a.b"}), "demo", 1_900_000_000)
    return replace(key, **changes)


@pytest.mark.parametrize("changes", [{}, {"expires_at": None}, {"scopes": frozenset()}])
def test_a_key_comes_back_as_it_was_added(keys: KeyStore, changes: dict[str, object]) -> None:
    key = _key(**changes)
    keys.add(key)
    assert keys.get(key.key_id) == key


@pytest.mark.parametrize("key_id", ["nobody", "", "é", "\ud800", "x" * 3000])
def test_an_unknown_key_is_none(keys: KeyStore, key_id: str) -> None:
    assert keys.get(key_id) is None


def test_a_key_is_never_replaced(keys: KeyStore) -> None:
    key = _key()
    keys.add(key)
    with pytest.raises(ValueError, match="taken"):
        keys.add(replace(key, tenant="other"))
    assert keys.get(key.key_id) == key


def test_an_id_that_could_not_be_found_again_is_refused(keys: KeyStore) -> None:
    for key_id in ("", "é", "x" * 256):
        with pytest.raises(ValueError, match="ASCII"):
            keys.add(_key(key_id=key_id))


def test_of_many_who_add_one_id_one_wins(keys: KeyStore) -> None:
    key_id = uuid4().hex

    def add(n: int) -> bool:
        try:
            keys.add(_key(key_id=key_id, tenant=str(n)))
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(max_workers=8) as pool:
        won = list(pool.map(add, range(8)))
    stored = keys.get(key_id)
    assert won.count(True) == 1
    assert stored is not None
    assert stored.tenant == str(won.index(True))


def test_the_key_store_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pydantic", "onnxruntime", "fastapi", "boto3")
    code = f"import sys, shared.adapters.dynamodb_keys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
