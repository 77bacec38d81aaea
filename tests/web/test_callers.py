from typing import Any

import pytest

from shared.domain.errors import BackendTimeout, CredentialExpired, Refused, Unauthenticated
from shared.domain.principal import Principal
from shared.web.callers import Callers
from shared.web.requests import begin, record_of

PRINCIPAL = Principal("acme", "k" * 16, frozenset({"predict"}), "demo", expires_at=1000)
ROLE = "arn:aws:sts::123456789012:assumed-role/scorer/session"


def scope(authorizer: Any) -> dict[str, Any]:
    made = {"type": "http", "method": "GET", "headers": [], "aws.event": {"requestContext": {"authorizer": authorizer}}}
    begin(made)
    return made


class Roles:
    def __init__(self, **known: Principal) -> None:
        self.known: dict[str, Principal] = known
        self.asked: list[str] = []

    def __call__(self, arn: str) -> Principal | None:
        self.asked.append(arn)
        return self.known.get("scorer") if "scorer" in arn else None


def test_the_authorizers_principal_is_the_caller() -> None:
    made = scope({"lambda": PRINCIPAL.to_context()})
    assert Callers(now=lambda: 999.0).of(made) == PRINCIPAL
    assert record_of(made).log == {"tenant": "acme", "key_id": "k" * 16}


@pytest.mark.parametrize("now", [1000.0, 5000.0])
def test_a_credential_that_ended_while_the_gateway_remembered_it_is_refused(now: float) -> None:
    with pytest.raises(CredentialExpired):
        Callers(now=lambda: now).of(scope({"lambda": PRINCIPAL.to_context()}))


@pytest.mark.parametrize(
    "authorizer",
    [
        None,
        {},
        "x",
        {"lambda": {}},
        {"lambda": None},
        {"lambda": {**PRINCIPAL.to_context(), "limits": "none"}},
        {"lambda": {**PRINCIPAL.to_context(), "expiresAt": "soon"}},
        {"iam": {"userArn": ROLE}},
    ],
)
def test_without_an_authorizer_of_ours_there_is_no_caller(authorizer: Any) -> None:
    with pytest.raises(Unauthenticated):
        Callers().of(scope(authorizer))


def test_an_event_that_is_none_has_no_caller() -> None:
    made: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}
    begin(made)
    with pytest.raises(Unauthenticated):
        Callers().of(made)


def test_a_signed_caller_is_who_its_role_is_bound_to_for_a_minute() -> None:
    signed = Principal("acme", "iam#role", frozenset({"predict"}), "demo")
    roles, now = Roles(scorer=signed), [0.0]
    callers = Callers(roles, now=lambda: now[0])
    made = scope({"iam": {"userArn": ROLE}})
    assert [callers.of(made) for _ in range(3)] == [signed] * 3
    assert roles.asked == [ROLE]
    now[0] = 60.0
    callers.of(made)
    assert roles.asked == [ROLE] * 2


def test_an_identity_that_nobody_bound_is_refused_and_remembered_for_a_moment() -> None:
    roles, now = Roles(), [0.0]
    callers = Callers(roles, now=lambda: now[0])
    for at in (0.0, 4.9, 5.0):
        now[0] = at
        with pytest.raises(Refused, match="bind-role"):
            callers.of(scope({"iam": {"userArn": "arn:aws:iam::1:user/eve"}}))
    assert len(roles.asked) == 2


def test_while_the_store_fails_nobody_gets_in_and_nothing_is_remembered() -> None:
    def fails(_arn: str) -> Principal | None:
        raise BackendTimeout("The key store did not answer in time.")

    callers = Callers(fails)
    for _ in range(2):
        with pytest.raises(BackendTimeout):
            callers.of(scope({"iam": {"userArn": ROLE}}))


def test_what_is_remembered_is_bounded() -> None:
    roles = Roles()
    callers = Callers(roles)
    for number in [*range(1001), 0, 1000]:
        with pytest.raises(Refused):
            callers.of(scope({"iam": {"userArn": f"arn:aws:iam::1:user/{number}"}}))
    assert len(roles.asked) == 1002  # the first was pushed out, the last was not
