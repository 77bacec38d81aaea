"""The issuer's keys: which are taken, how often they are fetched, and what happens while the issuer fails."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.adapters.jwk import signing_key
from shared.adapters.jwks import Jwks
from shared.domain.errors import BackendUnavailable
from shared.domain.issuer_address import is_trusted_url
from tests.adapters.issuer import DISCOVERY, JWKS, Issuer, Key, ec_key, rsa_key

RSA, EC = rsa_key(), ec_key()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        server.publish(RSA.jwk(), EC.jwk())
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keys_of(issuer: Issuer, clock: Clock, *, discover: bool = False, timeout_s: float = 10) -> Jwks:
    return Jwks(issuer.url, "" if discover else issuer.url + JWKS, timeout_s=timeout_s, now=clock)


def found(keys: Jwks, key: Key) -> bool:
    known = keys.find(key.kid)
    return known is not None and known.algorithm == key.algorithm and known.key == key.private.public_key()


@pytest.mark.parametrize("discover", [False, True])
def test_both_algorithms_keys_are_found_with_one_fetch(issuer: Issuer, clock: Clock, discover: bool) -> None:
    keys = keys_of(issuer, clock, discover=discover)
    assert issuer.hits == {}
    for _ in range(3):
        assert found(keys, RSA)
        assert found(keys, EC)
    assert issuer.hits == {JWKS: 1} | ({DISCOVERY: 1} if discover else {})


def test_keys_are_fetched_anew_after_an_hour(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert found(keys, RSA)
    issuer.publish(EC.jwk())
    clock.at += 3599
    assert found(keys, RSA)
    clock.at += 1
    assert keys.find("rsa") is None
    assert issuer.hits[JWKS] == 2


def test_a_flood_of_unknown_ids_is_one_fetch_in_30_seconds(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert found(keys, RSA)
    for n in range(200):
        clock.at += 0.125
        assert keys.find(f"made up {n}") is None
    assert issuer.hits[JWKS] == 1
    clock.at += 5
    for n in range(200):
        assert keys.find(f"made up {n}") is None
    assert issuer.hits[JWKS] == 2


def test_a_new_key_is_found_once_the_pause_is_over(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert found(keys, RSA)
    new = rsa_key("new")
    issuer.publish(RSA.jwk(), new.jwk())
    clock.at += 30
    assert found(keys, new)
    assert issuer.hits[JWKS] == 2


def test_a_flood_while_the_issuer_fails_is_bounded_too(issuer: Issuer, clock: Clock) -> None:
    issuer.answer(JWKS, b"", status=503)
    keys = keys_of(issuer, clock)
    for _ in range(39):  # 4.9 s
        with pytest.raises(BackendUnavailable):
            keys.find("rsa")
        clock.at += 0.125
    assert issuer.hits[JWKS] == 1
    issuer.publish(RSA.jwk())
    clock.at += 0.125
    assert found(keys, RSA)
    issuer.answer(JWKS, b"", status=503)
    clock.at += 30
    for n in range(239):  # 29.9 s
        # The issuer may have made that key since: nobody can tell now.
        with pytest.raises(BackendUnavailable):
            keys.find(f"made up {n}")
        clock.at += 0.125
    assert issuer.hits[JWKS] == 3


def test_the_last_keys_are_good_for_a_day_without_the_issuer(
    issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keys = keys_of(issuer, clock)
    assert found(keys, RSA)
    issuer.stop()
    with caplog.at_level(logging.WARNING, "shared.adapters.jwks"):
        for hours in (1, 12, 10):
            clock.at += hours * 3600
            assert found(keys, RSA)
            assert found(keys, EC)
        assert len(caplog.records) == 3
        clock.at += 3600
        with pytest.raises(BackendUnavailable):
            keys.find("rsa")
    assert [record.fields["keys"] for record in caplog.records] == [2, 2, 2, 0]  # type: ignore[attr-defined]
    issuer.__enter__()
    keys_again = keys_of(issuer, clock)
    issuer.publish(RSA.jwk())
    assert found(keys_again, RSA)


@pytest.mark.parametrize(
    ("path", "body", "status", "headers"),
    [
        (JWKS, b"", 404, {}),
        (JWKS, b"<html>", 200, {}),
        (JWKS, b"[" * 100_000, 200, {}),
        (JWKS, b"\xff\xfe", 200, {}),
        (JWKS, [], 200, {}),
        (JWKS, {}, 200, {}),
        (JWKS, {"keys": {}}, 200, {}),
        (JWKS, {"keys": []}, 200, {}),
        (JWKS, {"keys": [3, None, {"kid": 1}]}, 200, {}),
        (JWKS, {"keys": [RSA.jwk()] * 101}, 200, {}),
        (JWKS, {"keys": [RSA.jwk()], "x": "y" * 262_144}, 200, {}),
        (JWKS, b"{}", 302, {"Location": "/elsewhere"}),
        (JWKS, None, 200, {}),
        (JWKS, json.dumps({"keys": [RSA.jwk()]}).encode(), 200, {"X-Drip": "yes"}),
        (JWKS, b'{"keys": []', 200, {"Content-Length": "5000"}),
        (DISCOVERY, b"", 500, {}),
        (DISCOVERY, {"issuer": "http://127.0.0.1:1"}, 200, {}),
        (DISCOVERY, {"jwks_uri": "http://127.0.0.1:1/jwks"}, 200, {}),
        (DISCOVERY, None, 200, {}),
    ],
)
def test_documents_that_cannot_be_had_or_read_are_the_issuers_failure(
    issuer: Issuer, clock: Clock, path: str, body: Any, status: int, headers: dict[str, str]
) -> None:
    issuer.answer("/elsewhere", {"keys": [RSA.jwk()]})
    issuer.answer(path, body, status, headers)
    keys = keys_of(issuer, clock, discover=path == DISCOVERY, timeout_s=0.3)
    with pytest.raises(BackendUnavailable):
        keys.find("rsa")
    assert issuer.hits[path] == 1
    assert issuer.hits["/elsewhere"] == 0


@pytest.mark.parametrize("address", ["http://example.com/jwks", "file:///etc/passwd", "", 7, None])
def test_a_discovery_document_leads_to_nothing_but_https(issuer: Issuer, clock: Clock, address: Any) -> None:
    issuer.answer(DISCOVERY, {"issuer": issuer.url, "jwks_uri": address})
    with pytest.raises(BackendUnavailable):
        keys_of(issuer, clock, discover=True).find("rsa")


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://login.example.com", True),
        ("https://login.example.com:8443/realms/a?b=c", True),
        ("http://127.0.0.1:9000", True),
        ("http://[::1]:9000/x", True),
        ("http://localhost/x", True),
        ("http://login.example.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("https://user@login.example.com", False),
        ("https://login.example.com#x", False),
        ("https://", False),
        ("https://[", False),
        ("https://a:99999", False),
        ("https://a b", False),
        ("https://é.example", False),
        ("ftp://127.0.0.1", False),
        ("login.example.com", False),
        ("", False),
    ],
)
def test_documents_come_over_https_or_from_this_machine(url: str, trusted: bool) -> None:
    assert is_trusted_url(url) is trusted


@pytest.mark.parametrize(
    ("jwk", "taken"),
    [
        (RSA.jwk(), True),
        (RSA.jwk(alg=None, use=None), True),
        (EC.jwk(alg=None, key_ops=["verify"]), True),
        (RSA.jwk(use="enc"), False),
        (RSA.jwk(key_ops=["encrypt"]), False),
        (RSA.jwk(key_ops=5), False),
        (RSA.jwk(alg="RS512"), False),
        (RSA.jwk(alg="HS256"), False),
        (RSA.jwk(alg="ES256"), False),
        (RSA.jwk(kty="oct", k="AAAA"), False),
        (RSA.jwk(kty=None), False),
        (RSA.jwk(n=None), False),
        (RSA.jwk(n=3), False),
        (RSA.jwk(e="AA"), False),
        (RSA.jwk(n="é"), False),
        (rsa_key(bits=1024).jwk(), False),
        (RSA.jwk(n="_" * 3000), False),
        (EC.jwk(x="AAAA"), False),
        (EC.jwk(crv="P-384"), False),
        (ec_key(curve=ec.SECP384R1(), algorithm="ES384").jwk(alg=None), False),
        (ec_key(curve=ec.SECP256K1(), algorithm="ES256K").jwk(), False),
    ],
)
def test_only_keys_that_verify_rs256_or_es256_are_taken(jwk: dict[str, Any], taken: bool) -> None:
    assert (signing_key(jwk) is not None) is taken


def test_private_members_of_a_key_are_not_read(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(RSA.jwk(d="AAAA", p="AAAA", q="AAAA"), rsa_key("rsa").jwk())
    assert found(keys_of(issuer, clock), RSA)  # the first of an id counts


def test_unusable_keys_of_a_set_do_not_spoil_the_others(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(
        rsa_key("small", 1024).jwk(), {"kty": "oct", "kid": "h", "k": "AAAA"}, EC.jwk(kid="k" * 257), EC.jwk()
    )
    keys = keys_of(issuer, clock)
    assert found(keys, EC)
    assert [keys.find(kid) for kid in ("small", "h", "k" * 257)] == [None] * 3
