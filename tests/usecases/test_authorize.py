import hashlib
from dataclasses import replace

import pytest

from shared.domain import credentials
from shared.domain.credentials import new_key, parse_authorization
from shared.domain.errors import BackendUnavailable
from shared.domain.ports import ApiKey
from shared.domain.principal import Principal
from shared.usecases.authorize import Authorize, Refusal
from tests.fakes import InMemoryKeys

TEXT, KEY = new_key("acme", frozenset({"predict", "jobs"}), "demo", expires_at=2_000)


def authorize(header: str, *keys: ApiKey, now: float = 1_000.0) -> tuple[Principal | None, Refusal | None]:
    decision = Authorize(InMemoryKeys(*keys), lambda: now)(header)
    return decision.principal, decision.refusal


def test_a_stored_key_makes_its_principal() -> None:
    expected = Principal(tenant="acme", key_id=KEY.key_id, scopes=frozenset({"predict", "jobs"}), plan="demo")
    assert authorize(f"Bearer {TEXT}", KEY) == (expected, None)
    assert authorize(f"bearer  {TEXT}", KEY) == (expected, None)


def test_only_the_hash_of_the_secret_is_stored() -> None:
    prefix, key_id, secret = TEXT.split("_")
    assert (prefix, key_id) == ("sluice", KEY.key_id)
    assert KEY.secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(KEY)
    assert len({new_key("acme", frozenset(), "demo")[0] for _ in range(50)}) == 50


def test_a_parsed_key_does_not_show_its_secret() -> None:
    presented = parse_authorization(f"Bearer {TEXT}")
    assert presented is not None
    assert presented.secret not in repr(presented)
    assert presented.secret == TEXT.split("_")[2]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        TEXT,
        f"Basic {TEXT}",
        f"Bearer {TEXT} ",
        f"Bearer {TEXT}x",
        f"Bearer {TEXT[:-1]}",
        f"Bearer {TEXT.upper()}",
        f"Bearer {TEXT},Bearer {TEXT}",
        f"Bearer{' ' * 200}{TEXT}",
        "Bearer sluice_" + "é" * 16 + "_" + "a" * 52,
        "Bearer " + "x" * 10_000,
    ],
    # The key is made anew in each process: names of the tests must not hold it.
    ids=lambda header: f"{len(header)} characters",
)
def test_what_is_no_key_is_refused_without_asking_the_store(header: str) -> None:
    class NoStore(InMemoryKeys):
        def get(self, key_id: str) -> ApiKey | None:
            raise AssertionError(key_id)

    assert Authorize(NoStore())(header).refusal is Refusal.MALFORMED


def test_an_unknown_key_a_wrong_secret_and_an_expired_key_are_refused() -> None:
    other, _ = new_key("acme", frozenset(), "demo")
    wrong = f"Bearer sluice_{KEY.key_id}_{other.split('_')[2]}"
    assert authorize(f"Bearer {other}", KEY) == (None, Refusal.UNKNOWN_KEY)
    assert authorize(wrong, KEY) == (None, Refusal.WRONG_SECRET)
    assert authorize(f"Bearer {TEXT}", KEY, now=1_999.9)[1] is None
    assert authorize(f"Bearer {TEXT}", KEY, now=2_000) == (None, Refusal.EXPIRED)
    assert authorize(wrong, KEY, now=2_000) == (None, Refusal.WRONG_SECRET)
    assert authorize(f"Bearer {TEXT}", replace(KEY, expires_at=None), now=1e12)[1] is None


def test_an_unknown_key_costs_the_same_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(a: str, b: str) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(credentials, "compare_digest", compare)
    authorize(f"Bearer {TEXT}")
    authorize(f"Bearer {TEXT}", KEY)
    assert compared == [(64, 64), (64, 64)]


def test_a_store_that_fails_lets_nobody_in() -> None:
    class Broken(InMemoryKeys):
        def get(self, key_id: str) -> ApiKey | None:
            raise BackendUnavailable(key_id)

    with pytest.raises(BackendUnavailable):
        Authorize(Broken())(f"Bearer {TEXT}")
