from dataclasses import replace

import pytest

from shared.domain.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    LimiterUnavailable,
    QuotaExceeded,
)
from shared.domain.plans import DEFAULT_PLAN, OnLimiterFailure
from shared.domain.ports import Allowance, LimitReached, PolicyState
from shared.domain.principal import Principal
from shared.usecases.admit import Admit

NOW = 1_800_000_000.25
CALLER = Principal("acme", "key-1", frozenset({"predict"}), "default", DEFAULT_PLAN.limits)
CLOSED = replace(CALLER, limits=replace(CALLER.limits, on_failure=OnLimiterFailure.CLOSED))
ALLOWED = Allowance((PolicyState("key", 100, 2, 99, 1),))


class Limiter:
    """A `RateLimiter` that answers always the same, and counts."""

    def __init__(self, answer: Allowance | Exception = ALLOWED) -> None:
        self._answer = answer
        self.asked: list[Principal] = []

    def take(self, principal: Principal) -> Allowance:
        self.asked.append(principal)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_what_the_limiter_allows_passes() -> None:
    limiter = Limiter()
    assert Admit(limiter)(CALLER, NOW) == ALLOWED
    assert limiter.asked == [CALLER]


def test_what_the_limiter_refuses_does_not() -> None:
    refusal = LimitReached("Too many.", retry_after_s=0.2, allowance=ALLOWED)
    with pytest.raises(LimitReached) as caught:
        Admit(Limiter(refusal))(CLOSED, NOW)
    assert caught.value is refusal


def test_a_quota_that_is_used_up_refuses_without_asking_the_limiter() -> None:
    limiter = Limiter()
    caller = replace(CALLER, limits=CALLER.limits.used_up("daily", int(NOW) + 100))
    with pytest.raises(QuotaExceeded, match="daily quota") as caught:
        Admit(limiter)(caller, NOW)
    assert caught.value.retry_after_s == 100
    assert limiter.asked == []


def test_a_quota_holds_until_its_end_and_no_longer() -> None:
    caller = replace(CALLER, limits=CALLER.limits.used_up("monthly", int(NOW)))
    assert Admit(Limiter())(caller, NOW) == ALLOWED


@pytest.mark.parametrize("error", [BackendError("refused"), BackendTimeout("late"), BackendUnavailable("down")])
def test_while_the_limiter_fails_the_plan_decides(error: BackendError) -> None:
    assert Admit(Limiter(error))(CALLER, NOW) == Allowance((), degraded=True)
    with pytest.raises(LimiterUnavailable) as caught:
        Admit(Limiter(error))(CLOSED, NOW)
    assert caught.value.__cause__ is error
    assert caught.value.retry_after_s == 1


def test_a_fault_of_our_own_is_no_failure_of_the_store() -> None:
    with pytest.raises(ZeroDivisionError):
        Admit(Limiter(ZeroDivisionError()))(CALLER, NOW)


def test_why_the_limiter_failed_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Admit(Limiter(BackendTimeout("The table did not answer in time.")))(CALLER, NOW)
    (record,) = caplog.records
    assert record.__dict__["fields"] == {
        "tenant": "acme",
        "plan_says": "open",
        "reason": "The table did not answer in time.",
    }
