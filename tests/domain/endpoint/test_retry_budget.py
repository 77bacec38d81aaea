"""The budget of retries and hedges."""

from shared.domain.endpoint.retry_budget import RetryBudget


def taken(budget: RetryBudget, share: float) -> int:
    return sum(budget.take(share) for _ in range(100))


def test_a_new_one_has_a_few() -> None:
    assert taken(RetryBudget(), 0.1) == 2


def test_calls_that_go_well_bring_more() -> None:
    budget = RetryBudget()
    taken(budget, 0.25)
    for _ in range(12):
        budget.succeeded(0.25)
    assert taken(budget, 0.25) == 3


def test_no_more_than_ten_are_kept() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.succeeded(1.0)
    assert taken(budget, 1.0) == 10


def test_a_budget_of_nothing_gives_nothing() -> None:
    assert taken(RetryBudget(), 0.0) == 0
