"""Tokens that hold and tokens that do not, with real keys and a real HTTP server for them."""

import hashlib
import hmac
import json
from base64 import b32encode
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.adapters.jwks import Jwks
from shared.adapters.jwt_verifier import JwtVerifier
from shared.domain.errors import BackendUnavailable
from shared.domain.jwt_claims import TokenIdentity
from shared.domain.refusals import Refusal, TokenRefused
from tests.adapters.issuer import AUDIENCE, DISCOVERY, JWKS, Issuer, Key, b64, claims, ec_key, rsa_key

NOW = 1_800_000_000.0
RSA, EC, SMALL = rsa_key(), ec_key(), rsa_key("small", 1024)
P384 = ec_key("p384", ec.SECP384R1(), "ES384")


@pytest.fixture(scope="module")
def server() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture
def issuer(server: Issuer) -> Issuer:
    server.publish(RSA.jwk(), EC.jwk(), SMALL.jwk(), P384.jwk())
    server.hits.clear()
    return server


def verifier(issuer: Issuer, *, now: float = NOW, tenant_claim: str = "tenant") -> JwtVerifier:
    keys = Jwks(issuer.url, "", timeout_s=10, now=lambda: now)
    return JwtVerifier(keys, issuer=issuer.url, audience=AUDIENCE, tenant_claim=tenant_claim, now=lambda: now)


def refusal(issuer: Issuer, token: str, now: float = NOW) -> Refusal | None:
    try:
        verifier(issuer, now=now).verify(token)
    except TokenRefused as refused:
        return refused.reason
    return None


def by_hand(header: dict[str, Any], payload: Any, sign: Any = b"") -> str:
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()) if callable(sign) else sign)}"


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_token_makes_its_identity(issuer: Issuer, key: Key) -> None:
    made = verifier(issuer).verify(key.sign(claims(issuer.url, NOW, scope="predict predict:tumor email profile")))
    subject = hashlib.sha256(f"{issuer.url}\nuser-1".encode()).digest()
    assert made == TokenIdentity(
        tenant="acme",
        key_id=f"jwt:{b32encode(subject).decode()[:16].lower()}",
        scopes=frozenset({"predict", "predict:tumor"}),
        expires_at=int(NOW) + 300 + 60,
    )


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\t", "\x1f"])
def test_only_a_space_parts_scopes(issuer: Issuer, space: str) -> None:
    """An issuer that hands out what a client asks for may look for `admin` between spaces only."""
    token = RSA.sign(claims(issuer.url, NOW, scope=f"predict x{space}admin"))
    assert verifier(issuer).verify(token).scopes == frozenset({"predict"})


def test_a_second_token_needs_no_fetch(issuer: Issuer) -> None:
    verify = verifier(issuer).verify
    for key in (RSA, EC, RSA):
        verify(key.sign(claims(issuer.url, NOW)))
    assert issuer.hits == {DISCOVERY: 1, JWKS: 1}


def test_one_of_several_audiences_is_enough(issuer: Issuer) -> None:
    assert refusal(issuer, RSA.sign(claims(issuer.url, NOW, aud=["other", AUDIENCE]))) is None


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS256", "RS512", "PS256", "ES384", "EdDSA"])
def test_no_algorithm_but_two(issuer: Issuer, name: str) -> None:
    header = {"alg": name, "kid": "rsa", "typ": "JWT"}
    for signature in (b"", b"x" * 256):
        assert refusal(issuer, by_hand(header, claims(issuer.url, NOW), signature)) is Refusal.BAD_ALGORITHM
    assert issuer.hits == {}


@pytest.mark.parametrize("header", [{}, {"alg": None}, {"alg": ["RS256"]}, {"alg": {"a": 1}}, {"alg": 1}])
def test_no_algorithm_at_all(issuer: Issuer, header: dict[str, Any]) -> None:
    assert refusal(issuer, by_hand({"kid": "rsa", **header}, claims(issuer.url, NOW))) is Refusal.BAD_ALGORITHM


def test_a_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    """HMAC confusion: the attacker signs with what the issuer publishes."""
    secrets = [RSA.pem(), RSA.pem().strip(), json.dumps(RSA.jwk()).encode(), RSA.jwk()["n"].encode(), b""]
    for secret in secrets:
        for kid in ("rsa", "ec"):
            token = by_hand(
                {"alg": "HS256", "kid": kid},
                claims(issuer.url, NOW),
                lambda signed, secret=secret: hmac.digest(secret, signed, "sha256"),
            )
            assert refusal(issuer, token) is Refusal.BAD_ALGORITHM
            # The same signature under a name that is let through.
            _, payload, signature = token.split(".")
            token = f"{b64({'alg': 'RS256', 'kid': 'rsa'})}.{payload}.{signature}"
            assert refusal(issuer, token) is Refusal.BAD_SIGNATURE


def test_a_key_verifies_its_own_algorithm_only(issuer: Issuer) -> None:
    payload = claims(issuer.url, NOW)
    assert refusal(issuer, RSA.sign(payload, kid="ec")) is Refusal.BAD_ALGORITHM
    assert refusal(issuer, EC.sign(payload, kid="rsa")) is Refusal.BAD_ALGORITHM


def test_the_id_of_another_key_does_not_help(issuer: Issuer) -> None:
    stranger, elliptic = rsa_key("rsa"), ec_key("ec")
    for key in (stranger, elliptic):
        assert refusal(issuer, key.sign(claims(issuer.url, NOW))) is Refusal.BAD_SIGNATURE


def test_keys_that_a_token_brings_along_are_not_used(issuer: Issuer) -> None:
    stranger = rsa_key("stranger")
    issuer.answer("/theirs", {"keys": [stranger.jwk()]})
    brought = {
        "jwk": stranger.jwk(),
        "jku": f"{issuer.url}/theirs",
        "x5u": f"{issuer.url}/theirs",
        "x5c": ["AAAA"],
    }
    assert refusal(issuer, stranger.sign(claims(issuer.url, NOW), **brought)) is Refusal.UNKNOWN_SIGNING_KEY
    assert refusal(issuer, stranger.sign(claims(issuer.url, NOW), kid="rsa", **brought)) is Refusal.BAD_SIGNATURE
    assert issuer.hits["/theirs"] == 0
    assert refusal(issuer, RSA.sign(claims(issuer.url, NOW), **brought)) is None


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("key", [SMALL, P384], ids=["RSA-1024", "P-384"])
def test_weak_and_other_keys_of_the_issuer_verify_nothing(issuer: Issuer, key: Key) -> None:
    signed = key.sign(claims(issuer.url, NOW))
    expected = Refusal.UNKNOWN_SIGNING_KEY if key is SMALL else Refusal.BAD_ALGORITHM
    assert refusal(issuer, signed) is expected


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_what_was_changed_after_signing_is_refused(issuer: Issuer, key: Key) -> None:
    header, payload, signature = key.sign(claims(issuer.url, NOW)).split(".")
    for changed in (
        f"{header}.{b64(claims(issuer.url, NOW, tenant='other'))}.{signature}",
        f"{b64({'alg': key.algorithm, 'kid': key.kid, 'x': 1})}.{payload}.{signature}",
        f"{header}.{payload}.{b64(bytes(len(signature) * 3 // 4))}",
        f"{header}.{payload}.{b64(jwt.utils.base64url_decode(signature)[:-8])}",
        f"{header}.{payload}.",
    ):
        assert refusal(issuer, changed) is Refusal.BAD_SIGNATURE


@pytest.mark.parametrize("zeros", [0, 32, 64])
def test_a_signature_of_zeros_is_none(issuer: Issuer, zeros: int) -> None:
    """ES256 with r = s = 0, which careless verifiers accept."""
    token = by_hand({"alg": "ES256", "kid": "ec"}, claims(issuer.url, NOW), bytes(zeros))
    assert refusal(issuer, token) is Refusal.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example.com"}, Refusal.WRONG_ISSUER),
        ({"iss": ["it"]}, Refusal.WRONG_ISSUER),
        ({"iss": None}, Refusal.BAD_CLAIMS),
        ({"aud": "other"}, Refusal.WRONG_AUDIENCE),
        ({"aud": "sluice2"}, Refusal.WRONG_AUDIENCE),
        ({"aud": ["a", "b"]}, Refusal.WRONG_AUDIENCE),
        ({"aud": {"sluice": 1}}, Refusal.WRONG_AUDIENCE),
        ({"aud": [["sluice"]]}, Refusal.WRONG_AUDIENCE),
        ({"aud": []}, Refusal.BAD_CLAIMS),
        ({"aud": None}, Refusal.BAD_CLAIMS),
        ({"exp": None}, Refusal.BAD_CLAIMS),
        ({"exp": "never"}, Refusal.BAD_CLAIMS),
        ({"exp": str(int(NOW) + 9)}, Refusal.BAD_CLAIMS),
        ({"exp": True}, Refusal.BAD_CLAIMS),
        ({"exp": float("inf")}, Refusal.BAD_CLAIMS),
        ({"exp": float("nan")}, Refusal.BAD_CLAIMS),
        ({"exp": 10**30}, Refusal.BAD_CLAIMS),
        ({"exp": -1}, Refusal.BAD_CLAIMS),
        ({"iat": None}, Refusal.BAD_CLAIMS),
        ({"nbf": "now"}, Refusal.BAD_CLAIMS),
        ({"sub": None}, Refusal.BAD_CLAIMS),
        ({"sub": 7}, Refusal.BAD_CLAIMS),
        ({"sub": ""}, Refusal.BAD_CLAIMS),
        ({"sub": "s" * 256}, Refusal.BAD_CLAIMS),
        ({"tenant": None}, Refusal.BAD_CLAIMS),
        ({"tenant": "Not A Name"}, Refusal.BAD_CLAIMS),
        ({"tenant": ["acme"]}, Refusal.BAD_CLAIMS),
        ({"scope": 7}, Refusal.BAD_CLAIMS),
    ],
)
def test_claims_that_do_not_hold(issuer: Issuer, changes: dict[str, Any], reason: Refusal) -> None:
    made = claims(issuer.url, NOW, **changes)
    # PyJWT would not sign some of these.
    signer = jwt.PyJWS().get_algorithm_by_name("RS256")
    token = by_hand({"alg": "RS256", "kid": "rsa"}, made, lambda signed: signer.sign(signed, RSA.private))
    assert refusal(issuer, token) is reason


@pytest.mark.parametrize(
    ("changes", "skew", "reason"),
    [
        ({"exp": NOW}, 59.9, None),
        ({"exp": NOW}, 60, Refusal.TOKEN_EXPIRED),
        ({"exp": NOW + 0.5}, 60.4, None),
        ({"nbf": NOW}, -60, None),
        ({"nbf": NOW}, -60.1, Refusal.NOT_YET_VALID),
        ({"nbf": NOW + 3600}, 0, Refusal.NOT_YET_VALID),
        ({"iat": NOW}, -60, None),
        ({"iat": NOW}, -60.1, Refusal.NOT_YET_VALID),
    ],
)
def test_clocks_may_differ_by_a_minute(
    issuer: Issuer, changes: dict[str, Any], skew: float, reason: Refusal | None
) -> None:
    base: dict[str, Any] = {"iat": NOW - 3600, "exp": NOW + 3600}
    assert refusal(issuer, RSA.sign(claims(issuer.url, NOW, **(base | changes))), now=NOW + skew) is reason


def test_the_tenant_is_the_claim_that_is_configured(issuer: Issuer) -> None:
    claim = "https://sluice.example/tenant"
    token = RSA.sign(claims(issuer.url, NOW, **{claim: "other"}))
    assert verifier(issuer, tenant_claim=claim).verify(token).tenant == "other"


def test_a_header_that_is_malformed_or_insists_is_refused(issuer: Issuer) -> None:
    payload = claims(issuer.url, NOW)
    signer = jwt.PyJWS().get_algorithm_by_name("RS256")

    def signed(header: dict[str, Any]) -> str:
        return by_hand({"alg": "RS256", **header}, payload, lambda text: signer.sign(text, RSA.private))

    for header in (
        {},
        {"kid": ""},
        {"kid": None},
        {"kid": 5},
        {"kid": ["rsa"]},
        {"kid": "k" * 257},
        {"kid": "rsa", "crit": ["exp"], "exp": 1},
        {"kid": "rsa", "crit": ["b64"], "b64": True},
        {"kid": "rsa", "crit": ["b64"], "b64": False},
        {"kid": "rsa", "b64": False},
        {"kid": "rsa", "crit": []},
        {"kid": "rsa", "crit": None},
    ):
        assert refusal(issuer, signed(header)) is Refusal.MALFORMED, header
    assert refusal(issuer, signed({"kid": "rsa"})) is None


@pytest.mark.parametrize("part", ["", "AAAA", "!!", "e30", "W10", "bnVsbA", "e30=", "W" * 6000, "WyJh" * 1500])
def test_garbage_is_malformed_or_no_algorithm(issuer: Issuer, part: str) -> None:
    assert refusal(issuer, f"{part}.{part}.{part}") in {Refusal.MALFORMED, Refusal.BAD_ALGORITHM}
    signer = jwt.PyJWS().get_algorithm_by_name("RS256")
    text = f"{b64({'alg': 'RS256', 'kid': 'rsa'})}.{part}"
    # A body that the issuer itself signed and that is no JSON object.
    body = f"{text}.{b64(signer.sign(text.encode(), RSA.private))}"
    assert refusal(issuer, body) in {Refusal.MALFORMED, Refusal.BAD_CLAIMS}


def test_deep_nesting_is_malformed(issuer: Issuer) -> None:
    deep = b64(b"[" * 4000)
    assert refusal(issuer, f"{deep}.e30.AAAA") is Refusal.MALFORMED


def test_without_keys_nothing_can_be_told(issuer: Issuer) -> None:
    issuer.answer(JWKS, b"", status=503)
    with pytest.raises(BackendUnavailable):
        refusal(issuer, RSA.sign(claims(issuer.url, NOW)))


def test_a_rotated_key_is_found_and_a_flood_of_ids_is_one_fetch(issuer: Issuer) -> None:
    at = [NOW]
    keys = Jwks(issuer.url, "", timeout_s=10, now=lambda: at[0])
    verify = JwtVerifier(keys, issuer=issuer.url, audience=AUDIENCE, tenant_claim="tenant", now=lambda: at[0]).verify
    verify(RSA.sign(claims(issuer.url, NOW)))
    new = ec_key("new")
    issuer.publish(RSA.jwk(), new.jwk())
    at[0] += 31
    for n in range(20):
        with pytest.raises(TokenRefused):
            verify(new.sign(claims(issuer.url, NOW), kid=f"made up {n}"))
    assert verify(new.sign(claims(issuer.url, NOW))).tenant == "acme"
    assert issuer.hits[JWKS] == 2
