import re

import pytest

from shared.domain.errors import QuotaExceeded, RateLimited
from shared.domain.ports import Allowance, LimitReached, PolicyState
from shared.web.problems import problem_of
from shared.web.rate_limit_headers import rate_limit_headers, rate_limit_headers_of

KEY = PolicyState("key", quota=100, window_s=2, remaining=99, reset_s=1)
TENANT = PolicyState("tenant", quota=200, window_s=2, remaining=0, reset_s=3)
# RFC 9651: a List of Strings with parameters, whose values here are Integers of 15 digits at most.
_ITEM = r'"[a-z]+"(;[a-z]+=\d{1,15})*'
_LIST = re.compile(rf"{_ITEM}(, {_ITEM})*")


def test_an_allowance_becomes_two_lists() -> None:
    headers = rate_limit_headers(Allowance((KEY, TENANT)))
    assert headers == {
        "RateLimit-Policy": '"key";q=100;w=2, "tenant";q=200;w=2',
        "RateLimit": '"key";r=99;t=1, "tenant";r=0;t=3',
    }
    assert all(_LIST.fullmatch(value) for value in headers.values())


def test_nobody_counted_says_nothing() -> None:
    assert rate_limit_headers(Allowance((), degraded=True)) == {}


def test_a_refusal_says_how_the_caller_stands() -> None:
    error = LimitReached("Too many.", retry_after_s=2.2, allowance=Allowance((TENANT,)))
    assert rate_limit_headers_of(error) == {"RateLimit-Policy": '"tenant";q=200;w=2', "RateLimit": '"tenant";r=0;t=3'}
    answer = problem_of(error, "request-1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize("error", [RateLimited("Too many."), QuotaExceeded("Used up.")])
def test_other_errors_say_nothing(error: RateLimited) -> None:
    assert rate_limit_headers_of(error) == {}
