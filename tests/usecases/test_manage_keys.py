from dataclasses import replace

import pytest

from shared.domain.credentials import PresentedKey, matches, parse_authorization
from shared.domain.errors import Conflict, KeyNotFound, OutOfRange, SluiceError, TenantNotFound, TextTooLong
from shared.domain.plans import Plan, Rate
from shared.domain.ports import ApiKey
from shared.domain.tenants import Tenant
from shared.usecases.authorize import Authorize
from shared.usecases.manage_keys import ManageKeys, role_key_id
from tests.fakes import InMemoryKeys, InMemoryTenants

NOW = 1_800_000_000
DAY = 86_400
SMALL = Plan("small", key=Rate(1, 1), tenant=Rate(1, 1), max_keys=2)
ROLE = "arn:aws:iam::123456789012:role/caller"


class Clock:
    def __init__(self) -> None:
        self.at = float(NOW)

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> InMemoryKeys:
    return InMemoryKeys()


@pytest.fixture
def tenants() -> InMemoryTenants:
    return InMemoryTenants(Tenant("acme", "default"), Tenant("tiny", "small"), Tenant("lost", "gone"), SMALL)


@pytest.fixture
def manage(keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock) -> ManageKeys:
    return ManageKeys(keys, tenants, lambda: b"pepper", clock)


def opens(text: str, keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock) -> bool:
    return Authorize(keys, tenants, lambda: b"pepper", now=clock)(f"Bearer {text}").principal is not None


def test_a_new_key_opens_and_only_its_hash_is_kept(
    manage: ManageKeys, keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock
) -> None:
    made = manage.create("acme", ["predict:tumor", "jobs", "jobs"], name="laptop", expires_at=NOW + DAY)
    stored = keys.get(made.key.key_id)
    assert stored == made.key
    assert (stored.tenant, stored.scopes, stored.name) == ("acme", frozenset({"predict:tumor", "jobs"}), "laptop")
    assert (stored.created_at, stored.expires_at, stored.revoked_at) == (NOW, NOW + DAY, None)
    presented = parse_authorization(f"Bearer {made.text}")
    assert isinstance(presented, PresentedKey)
    assert matches(presented, stored, b"pepper")
    assert presented.secret not in repr(stored) + repr(made)
    assert opens(made.text, keys, tenants, clock)


@pytest.mark.parametrize(
    ("scopes", "place"),
    [
        ([], "/scopes"),
        (["predict"] * 101, "/scopes"),
        (["root"], "/scopes/0"),
        (["predict", "predict admin"], "/scopes/1"),
        (["predict", " jobs"], "/scopes/1"),
        (["admin\n"], "/scopes/0"),
        (["predict:"], "/scopes/0"),
        (["predict:Tumor"], "/scopes/0"),
        (["predict:" + "a" * 65], "/scopes/0"),
        ([""], "/scopes/0"),
    ],
)
def test_scopes_that_there_are_not(manage: ManageKeys, scopes: list[str], place: str) -> None:
    for work in (lambda: manage.create("acme", scopes), lambda: manage.bind_role(ROLE, "acme", scopes)):
        with pytest.raises(OutOfRange) as caught:
            work()
        assert caught.value.fields[0].pointer == place
    assert manage.of_tenant("acme") == []


@pytest.mark.parametrize("expires_at", [NOW, NOW - 1, 0, NOW + 3651 * DAY])
def test_an_expiry_lies_ahead_and_not_too_far(manage: ManageKeys, expires_at: int) -> None:
    with pytest.raises(OutOfRange) as caught:
        manage.create("acme", ["predict"], expires_at=expires_at)
    assert caught.value.fields[0].pointer == "/expires_at"


def test_a_label_has_a_bound(manage: ManageKeys) -> None:
    assert manage.create("acme", ["predict"], name="n" * 64).key.name == "n" * 64
    with pytest.raises(TextTooLong):
        manage.create("acme", ["predict"], name="n" * 65)


@pytest.mark.parametrize("tenant", ["nobody", "", "Acme", "a" * 300])
def test_a_tenant_comes_first(manage: ManageKeys, tenant: str) -> None:
    for work in (
        lambda: manage.create(tenant, ["predict"]),
        lambda: manage.of_tenant(tenant),
        lambda: manage.bind_role(ROLE, tenant, ["predict"]),
    ):
        with pytest.raises(TenantNotFound, match="sluice tenants create"):
            work()


def test_a_plan_bounds_the_usable_keys(manage: ManageKeys, clock: Clock) -> None:
    first = manage.create("tiny", ["predict"])
    manage.create("tiny", ["predict"], expires_at=NOW + DAY)
    with pytest.raises(Conflict, match="2 usable keys"):
        manage.create("tiny", ["predict"])
    with pytest.raises(Conflict, match="2 usable keys"):
        manage.bind_role(ROLE, "tiny", ["predict"])
    # Who has as many as the plan allows can still rotate them, and a key that was rotated does not count.
    manage.rotate(first.key.key_id)
    with pytest.raises(Conflict):
        manage.create("tiny", ["predict"])
    clock.at += DAY
    manage.create("tiny", ["predict"])
    with pytest.raises(Conflict):
        manage.create("tiny", ["predict"])
    assert manage.create("lost", ["predict"]).key.tenant == "lost"  # its plan is gone: the built-in bound holds


def test_rotation_overlaps(manage: ManageKeys, keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock) -> None:
    old = manage.create("acme", ["jobs", "admin"], name="ci")
    clock.at += 10
    new = manage.rotate(old.key.key_id, overlap_s=60)
    assert (new.key.tenant, new.key.scopes, new.key.name) == ("acme", frozenset({"jobs", "admin"}), "ci")
    assert (new.key.created_at, new.key.expires_at) == (NOW + 10, None)
    assert new.text != old.text
    stored = manage.get(old.key.key_id)
    assert (stored.expires_at, stored.replaced_by) == (NOW + 70, new.key.key_id)
    assert [opens(made.text, keys, tenants, clock) for made in (old, new)] == [True, True]
    clock.at += 60
    assert [opens(made.text, keys, tenants, clock) for made in (old, new)] == [False, True]


def test_a_rotation_without_overlap_ends_the_old_key_at_once(
    manage: ManageKeys, keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock
) -> None:
    old = manage.create("acme", ["predict"])
    new = manage.rotate(old.key.key_id, overlap_s=0)
    assert [opens(made.text, keys, tenants, clock) for made in (old, new)] == [False, True]


def test_a_rotation_keeps_the_lifetime_and_prolongs_nothing(manage: ManageKeys, clock: Clock) -> None:
    old = manage.create("acme", ["predict"], expires_at=NOW + 90 * DAY)
    clock.at += 89.5 * DAY
    new = manage.rotate(old.key.key_id)
    assert manage.get(old.key.key_id).expires_at == NOW + 90 * DAY
    assert new.key.expires_at == int(clock.at) + 90 * DAY
    assert manage.rotate(new.key.key_id, expires_at=int(clock.at) + 5).key.expires_at == int(clock.at) + 5


def test_what_cannot_be_rotated(manage: ManageKeys, clock: Clock) -> None:
    def refused(key_id: str, error: type[SluiceError], match: str) -> None:
        before = manage.of_tenant("acme")
        with pytest.raises(error, match=match):
            manage.rotate(key_id)
        assert manage.of_tenant("acme") == before

    revoked, expired, rotated = (manage.create("acme", ["predict"], expires_at=NOW + 9).key.key_id for _ in range(3))
    manage.revoke(revoked)
    manage.rotate(rotated)
    refused(revoked, Conflict, "revoked")
    refused(rotated, Conflict, "was rotated before")
    refused(manage.bind_role(ROLE, "acme", ["predict"]).key_id, Conflict, "no secret")
    refused("absent", KeyNotFound, "no key")
    clock.at += 9
    refused(expired, Conflict, "expired")


@pytest.mark.parametrize("overlap_s", [-1, 30 * DAY + 1])
def test_an_overlap_has_bounds(manage: ManageKeys, overlap_s: int) -> None:
    made = manage.create("acme", ["predict"])
    with pytest.raises(OutOfRange):
        manage.rotate(made.key.key_id, overlap_s=overlap_s)


def test_revocation_is_final_and_may_be_repeated(
    manage: ManageKeys, keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock
) -> None:
    made = manage.create("acme", ["predict"])
    assert manage.revoke(made.key.key_id).revoked_at == NOW
    clock.at += 5
    assert manage.revoke(made.key.key_id).revoked_at == NOW
    assert not opens(made.text, keys, tenants, clock)
    with pytest.raises(KeyNotFound):
        manage.revoke("absent")


def test_a_list_has_the_keys_of_one_tenant(manage: ManageKeys) -> None:
    mine = [manage.create("acme", ["predict"]).key.key_id for _ in range(3)]
    manage.create("tiny", ["predict"])
    assert [key.key_id for key in manage.of_tenant("acme")] == sorted(mine)
    assert manage.get(mine[0]).key_id == mine[0]
    with pytest.raises(KeyNotFound):
        manage.get("absent")


@pytest.mark.parametrize(
    ("bound", "caller"),
    [
        (ROLE, "arn:aws:sts::123456789012:assumed-role/caller/session"),
        ("arn:aws:iam::123456789012:role/team/a/caller", "arn:aws:sts::123456789012:assumed-role/caller/i-0123"),
        ("arn:aws-us-gov:iam::123456789012:role/c", "arn:aws-us-gov:sts::123456789012:assumed-role/c/session"),
        ("arn:aws:iam::123456789012:user/team/robot", "arn:aws:iam::123456789012:user/team/robot"),
    ],
)
def test_a_bound_role_or_user_is_its_tenants_caller(
    manage: ManageKeys, keys: InMemoryKeys, tenants: InMemoryTenants, clock: Clock, bound: str, caller: str
) -> None:
    key = manage.bind_role(bound, "acme", ["predict"])
    assert key == ApiKey(role_key_id(bound), "", "acme", frozenset({"predict"}), created_at=NOW)
    principal = Authorize(keys, tenants, lambda: b"pepper", now=clock).by_role(caller).principal
    assert principal is not None
    assert (principal.tenant, principal.scopes) == ("acme", frozenset({"predict"}))


def test_a_binding_is_replaced_and_comes_back_after_a_revocation(manage: ManageKeys, keys: InMemoryKeys) -> None:
    first = manage.bind_role(ROLE, "tiny", ["predict"])
    manage.create("tiny", ["predict"])
    # The plan's two keys are used up: the same binding can still be changed, but none of another tenant moved here.
    assert manage.bind_role(ROLE, "tiny", ["jobs"]).scopes == {"jobs"}
    other = ROLE.replace("caller", "other")
    manage.bind_role(other, "acme", ["predict"])
    with pytest.raises(Conflict):
        manage.bind_role(other, "tiny", ["predict"])
    manage.revoke(first.key_id)
    assert manage.bind_role(ROLE, "tiny", ["predict"]).revoked_at is None
    assert manage.bind_role(ROLE, "acme", ["predict"]) == replace(first, tenant="acme")
    assert keys.get(first.key_id) == replace(first, tenant="acme")


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "caller",
        "arn:aws:iam::123456789012:root",
        "arn:aws:iam::12345:role/caller",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/a b",
        "arn:aws:iam::123456789012:role/caller\n",
        "arn:aws:iam::123456789012:group/caller",
        "arn:aws:sts::123456789012:assumed-role/caller/session",
        "arn:aws:iam::123456789012:user/" + "p" * 230 + "/robot",
        "arn:aws:iam::123456789012:role/*",
    ],
)
def test_what_is_no_role_and_no_user(manage: ManageKeys, arn: str) -> None:
    with pytest.raises(OutOfRange) as caught:
        manage.bind_role(arn, "acme", ["predict"])
    assert caught.value.fields[0].pointer == "/arn"
