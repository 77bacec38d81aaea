import hmac
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.domain import credentials
from shared.domain.credentials import PresentedToken, iam_key_id, new_key, parse_authorization
from shared.domain.errors import BackendError, BackendUnavailable
from shared.domain.jwt_claims import TokenIdentity
from shared.domain.plans import DEFAULT_PLAN, OnLimiterFailure, Plan, Rate
from shared.domain.ports import ApiKey
from shared.domain.principal import Principal
from shared.domain.refusals import Refusal, TokenRefused
from shared.domain.tenants import Tenant, day_of, month_of
from shared.usecases.authorize import Authorize, Decision
from tests.fakes import InMemoryKeys, InMemoryTenants

PEPPER = b"pepper"
NOW = datetime(2026, 11, 21, 9, 15, tzinfo=UTC).timestamp()
TEXT, KEY = new_key("acme", frozenset({"predict", "jobs"}), PEPPER, name="ci", expires_at=int(NOW) + 100, now=NOW)
PLAN = Plan("demo", key=Rate(0.5, 3), tenant=Rate(7, 9), daily_quota=10, monthly_quota=100, shards=2,
            on_limiter_failure=OnLimiterFailure.CLOSED)  # fmt: skip
ACME = Tenant("acme", "demo")
ROLE = "arn:aws:iam::123456789012:role/caller"
SESSION = "arn:aws:sts::123456789012:assumed-role/caller/i-0123456789"


def principal(**changes: object) -> Principal:
    made = Principal("acme", KEY.key_id, KEY.scopes, "demo", PLAN.limits, KEY.expires_at)
    return replace(made, **changes)  # type: ignore[arg-type]


class Door:
    """An `Authorize` on fakes that the test can change."""

    def __init__(self, *keys: ApiKey, tenants: InMemoryTenants | None = None) -> None:
        self.keys = InMemoryKeys(*keys)
        self.tenants = tenants or InMemoryTenants(ACME, PLAN)
        self.now = NOW
        self.peppers = 0
        self.identity: TokenIdentity | Refusal | None = None
        self.authorize = Authorize(self.keys, self.tenants, self._pepper, self, lambda: self.now)

    def __call__(self, header: str = f"Bearer {TEXT}") -> tuple[Principal | None, Refusal | None]:
        decision = self.authorize(header)
        return decision.principal, decision.refusal

    def verify(self, token: str) -> TokenIdentity:
        if isinstance(self.identity, TokenIdentity):
            return self.identity
        raise TokenRefused(self.identity or Refusal.BAD_SIGNATURE)

    def _pepper(self) -> bytes:
        self.peppers += 1
        return PEPPER


def test_a_stored_key_makes_its_principal() -> None:
    door = Door(KEY)
    assert door() == (principal(), None)
    assert door(f"bearer  {TEXT}") == (principal(), None)


def test_only_the_keyed_hash_of_the_secret_is_stored() -> None:
    prefix, key_id, secret = TEXT.split("_")
    assert (prefix, key_id) == ("sluice", KEY.key_id)
    assert KEY.secret_hash == hmac.new(PEPPER, secret.encode(), "sha256").hexdigest()
    assert secret not in repr(KEY)
    assert len({new_key("acme", frozenset(), PEPPER, now=0)[0] for _ in range(50)}) == 50


def test_what_is_parsed_does_not_show_its_secret() -> None:
    key, token = parse_authorization(f"Bearer {TEXT}"), parse_authorization("Bearer aaaa.bbbb.cccc")
    assert token == PresentedToken("aaaa.bbbb.cccc")
    assert TEXT.split("_")[2] not in repr(key)
    assert "bbbb" not in repr(token)


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
        "Bearer a.b",
        "Bearer a.b.c.d.e",
        "Bearer .b.c",
        "Bearer a..c",
        "Bearer a.b.c ",
        "Bearer a.b.c\n",
        "Bearer a.b.c, Bearer a.b.c",
        "Bearer é.b.c",
        "Bearer a.b." + "c" * (8 * 1024),
    ],
    # The key is made anew in each process: names of the tests must not hold it.
    ids=lambda header: f"{len(header)} characters",
)
def test_what_is_no_credential_is_refused_without_asking_anyone(header: str) -> None:
    door = Door()
    assert door(header) == (None, Refusal.MALFORMED)
    assert (door.keys.calls, door.tenants.calls, door.peppers) == (0, 0, 0)


def test_an_unknown_key_a_wrong_secret_and_an_expired_key_are_refused() -> None:
    other, _ = new_key("acme", frozenset(), PEPPER, now=NOW)
    door = Door(KEY)
    wrong = f"Bearer sluice_{KEY.key_id}_{other.split('_')[2]}"
    assert door(f"Bearer {other}") == (None, Refusal.UNKNOWN_KEY)
    assert door(wrong) == (None, Refusal.WRONG_SECRET)
    door.now = NOW + 99.9
    assert door()[1] is None
    door.now = NOW + 100
    assert door() == (None, Refusal.EXPIRED)
    assert door(wrong) == (None, Refusal.WRONG_SECRET)
    assert Door(replace(KEY, expires_at=None))() == (principal(expires_at=None), None)


def test_a_key_is_worth_nothing_under_another_pepper() -> None:
    text, key = new_key("acme", frozenset(), b"other", now=NOW)
    assert Door(key)(f"Bearer {text}") == (None, Refusal.WRONG_SECRET)


@pytest.mark.parametrize("stored", ["", "é" * 64, "\ud800", "x" * 64])
def test_a_damaged_hash_agrees_with_no_secret(stored: str) -> None:
    assert Door(replace(KEY, secret_hash=stored))() == (None, Refusal.WRONG_SECRET)


def test_an_unknown_key_costs_the_same_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(credentials, "compare_digest", compare)
    for door in (Door(), Door(KEY)):
        door()
        assert door.peppers == 1
    assert compared == [(64, 64), (64, 64)]


def test_a_revoked_key_is_refused() -> None:
    door = Door(KEY)
    door.keys.revoke(KEY.key_id, int(NOW))
    assert door() == (None, Refusal.REVOKED)
    assert door.tenants.calls == 0


def test_both_keys_of_a_rotation_hold_until_the_overlap_ends() -> None:
    door = Door(KEY)
    text, new = new_key("acme", KEY.scopes, PEPPER, now=NOW)
    door.keys.replace(KEY.key_id, new, int(NOW) + 50)
    door.now = NOW + 49
    assert door() == (principal(expires_at=int(NOW) + 50), None)
    assert door(f"Bearer {text}") == (principal(key_id=new.key_id, expires_at=None), None)
    door.now = NOW + 50
    assert door() == (None, Refusal.EXPIRED)
    assert door(f"Bearer {text}")[1] is None


def test_a_tenant_that_is_suspended_or_unknown_is_refused() -> None:
    door = Door(KEY)
    door.tenants.update(replace(ACME, suspended=True))
    assert door() == (None, Refusal.TENANT_SUSPENDED)
    door.tenants.update(ACME)
    assert door()[1] is None
    assert Door(KEY, tenants=InMemoryTenants(PLAN))() == (None, Refusal.TENANT_UNKNOWN)


@pytest.mark.parametrize(
    ("today", "month", "quota", "until"),
    [
        (9, 99, "", 0),
        (10, 99, "day", datetime(2026, 11, 22, tzinfo=UTC).timestamp()),
        (9, 100, "month", datetime(2026, 12, 1, tzinfo=UTC).timestamp()),
        (10**9, 10**9, "month", datetime(2026, 12, 1, tzinfo=UTC).timestamp()),
    ],
)
def test_a_quota_that_is_used_up_travels_with_the_limits(today: int, month: int, quota: str, until: float) -> None:
    door = Door(KEY)
    door.tenants.used = {("acme", day_of(NOW)): today, ("acme", month_of(NOW)): month, ("other", day_of(NOW)): 10**9}
    expected = PLAN.limits.used_up(quota, int(until)) if quota else PLAN.limits
    assert door() == (principal(limits=expected), None)


def test_a_plan_without_quotas_is_never_used_up_and_one_of_zero_always() -> None:
    door = Door(KEY)
    door.tenants.put_plan(replace(PLAN, daily_quota=None, monthly_quota=None))
    door.tenants.used = {("acme", day_of(NOW)): 10**12, ("acme", month_of(NOW)): 10**12}
    assert door() == (principal(), None)
    door = Door(KEY)
    door.tenants.put_plan(replace(PLAN, daily_quota=0))
    found, _ = door()
    assert found is not None
    assert found.limits.exhausted == "day"


def test_a_plan_is_kept_for_a_minute_and_the_tenant_is_not() -> None:
    door = Door(replace(KEY, expires_at=None))
    door()
    assert door.tenants.calls == 2
    changed = replace(PLAN, key=Rate(1, 1))
    door.tenants.put_plan(changed)
    door.now += 59.9
    assert door() == (principal(expires_at=None), None)
    door.now += 0.1
    assert door() == (principal(expires_at=None, limits=changed.limits), None)
    door.tenants.put_plan(replace(PLAN, name="other"))
    door.tenants.update(replace(ACME, plan="other"))
    assert door() == (principal(expires_at=None, plan="other"), None)


def test_the_default_plan_holds_until_another_is_stored_and_no_other_plan_is_made_up() -> None:
    door = Door(KEY, tenants=InMemoryTenants(replace(ACME, plan=DEFAULT_PLAN.name)))
    assert door() == (principal(plan="default", limits=DEFAULT_PLAN.limits), None)
    door = Door(KEY, tenants=InMemoryTenants(replace(ACME, plan="default"), replace(PLAN, name="default")))
    assert door() == (principal(plan="default"), None)
    with pytest.raises(BackendError, match="plan 'demo'"):
        Door(KEY, tenants=InMemoryTenants(ACME))()


def test_a_token_makes_its_principal_without_the_key_store() -> None:
    door = Door()
    door.identity = TokenIdentity("acme", "jwt:abc", frozenset({"predict"}), int(NOW) + 5)
    expected = Principal("acme", "jwt:abc", frozenset({"predict"}), "demo", PLAN.limits, int(NOW) + 5)
    assert door("Bearer a.b.c") == (expected, None)
    assert (door.keys.calls, door.peppers) == (0, 0)
    door.identity = replace(door.identity, tenant="nobody")
    assert door.authorize("Bearer a.b.c") == Decision("jwt:abc", refusal=Refusal.TENANT_UNKNOWN)


def test_a_token_that_does_not_hold_is_refused_with_its_reason_and_names_nobody() -> None:
    door = Door()
    door.identity = Refusal.WRONG_AUDIENCE
    assert door.authorize("Bearer a.b.c") == Decision(None, refusal=Refusal.WRONG_AUDIENCE)
    assert door.tenants.calls == 0


def test_what_is_not_configured_is_malformed() -> None:
    authorize = Authorize(InMemoryKeys(KEY), InMemoryTenants(ACME, PLAN), None)
    for header in (f"Bearer {TEXT}", "Bearer a.b.c"):
        assert authorize(header) == Decision(None, refusal=Refusal.MALFORMED)


def test_an_iam_caller_is_known_by_its_role_whatever_the_session() -> None:
    bound = ApiKey(f"iam#{ROLE}", "", "acme", frozenset({"predict"}))
    door = Door(bound)
    for arn in (SESSION, SESSION + "2", ROLE):
        decision = door.authorize.by_role(arn)
        assert decision.principal == Principal("acme", bound.key_id, bound.scopes, "demo", PLAN.limits)
    assert door.peppers == 0
    assert door.authorize.by_role(SESSION.replace("caller", "other")).refusal is Refusal.UNKNOWN_KEY
    assert door.authorize.by_role(SESSION.replace("123456789012", "210987654321")).refusal is Refusal.UNKNOWN_KEY
    door.keys.revoke(bound.key_id, int(NOW))
    assert door.authorize.by_role(SESSION).refusal is Refusal.REVOKED


@pytest.mark.parametrize(
    ("arn", "key_id"),
    [
        (SESSION, f"iam#{ROLE}"),
        ("arn:aws:iam::123456789012:role/a/path/caller", f"iam#{ROLE}"),
        ("arn:aws-cn:sts::123456789012:assumed-role/a.b@c=d/xy", "iam#arn:aws-cn:iam::123456789012:role/a.b@c=d"),
        ("arn:aws:sts::123456789012:assumed-role/x/s", None),
        ("arn:aws:iam::123456789012:user/team/jo", "iam#arn:aws:iam::123456789012:user/team/jo"),
        ("arn:aws:iam::123456789012:root", None),
        ("arn:aws:sts::123456789012:federated-user/jo", None),
        ("arn:aws:iam::123456789012:user/" + "p" * 300 + "/jo", None),
        ("arn:aws:sts::123456789012:assumed-role/caller/s/other", None),
        ("arn:aws:sts::١٢٣٤٥٦٧٨٩٠١٢:assumed-role/caller/ss", None),
        (f"x{ROLE}", None),
        (f"{ROLE}\n", None),
        ("", None),
    ],
)
def test_arns_of_roles_and_users_have_a_key_id(arn: str, key_id: str | None) -> None:
    assert iam_key_id(arn) == key_id
    if key_id is None:
        assert Door().authorize.by_role(arn) == Decision(None, refusal=Refusal.MALFORMED)


def test_an_api_key_cannot_name_a_binding() -> None:
    bound = ApiKey(f"iam#{ROLE}", "", "acme", frozenset({"admin"}))
    assert Door(bound)(f"Bearer sluice_iam#{ROLE}_{'a' * 52}") == (None, Refusal.MALFORMED)


def test_stores_that_fail_let_nobody_in() -> None:
    door = Door(KEY)
    door()
    door.tenants.error = BackendUnavailable("tenants")
    with pytest.raises(BackendUnavailable, match="tenants"):
        door()
    door.keys.error = BackendUnavailable("keys")
    with pytest.raises(BackendUnavailable, match="keys"):
        door()
    with pytest.raises(BackendUnavailable, match="keys"):
        door.authorize.by_role(SESSION)

    def no_pepper() -> bytes:
        raise BackendUnavailable("pepper")

    with pytest.raises(BackendUnavailable, match="pepper"):
        Authorize(InMemoryKeys(), InMemoryTenants(), no_pepper)(f"Bearer {TEXT}")
