import pytest

from shared.domain.cost import RequestCosts, instance_share_nusd, usd_text
from shared.domain.prices import LIST_PRICES, read_prices

AT_1_GB = RequestCosts(LIST_PRICES, 1024, "x86_64")
PLAIN = round(1_000 + 200 + 20 * 16.6667)


def test_a_million_predictions_cost_what_the_documentation_says() -> None:
    """docs/cost.md: 20 ms at 1769 MB, without limits and logs."""
    assert round(RequestCosts(LIST_PRICES, 1769, "x86_64").nusd(20, {}, {}) * 1_000_000 / 1e9, 2) == 1.78


@pytest.mark.parametrize(
    ("calls", "items", "cost"),
    [
        ({}, {}, 0),
        ({"dynamodb.UpdateItem": 1}, {}, 625),
        ({"dynamodb.PutItem": 1, "dynamodb.DeleteItem": 1}, {}, 1_250),
        ({"dynamodb.GetItem": 1, "dynamodb.Query": 2}, {}, 375),
        ({"s3.GetObject": 1}, {}, 400),
        ({"s3.PutObject": 1}, {}, 5_000),
        # Paid by their items, twice in transactions.
        ({"dynamodb.BatchGetItem": 1}, {"dynamodb.BatchGetItem": 4}, 500),
        ({"dynamodb.TransactWriteItems": 1}, {"dynamodb.TransactWriteItems": 2}, 2_500),
        ({"dynamodb.TransactGetItems": 1}, {"dynamodb.TransactGetItems": 2}, 500),
        ({"dynamodb.BatchWriteItem": 1}, {"dynamodb.BatchWriteItem": 3}, 1_875),
        # Paid for by the hour, or not at all.
        ({"sagemaker-runtime.InvokeEndpoint": 1, "dynamodb.DescribeTable": 1}, {}, 0),
    ],
)
def test_every_call_has_its_price(calls: dict[str, int], items: dict[str, int], cost: int) -> None:
    assert AT_1_GB.nusd(20, calls, items) == PLAIN + cost


def test_a_millisecond_begun_is_paid() -> None:
    assert AT_1_GB.nusd(20.001, {}, {}) == AT_1_GB.nusd(21, {}, {})
    assert AT_1_GB.nusd(0, {}, {}) == 1_200


def test_arm64_and_prices_of_ones_own_cost_less() -> None:
    assert RequestCosts(LIST_PRICES, 1024, "arm64").nusd(1000, {}, {}) == 1_200 + 13_333
    free = read_prices('{"date":"2026-01-01","http_request":0,"lambda_request":0,"gb_second_x86_64":0}')
    assert RequestCosts(free, 1769, "x86_64").nusd(20, {"dynamodb.GetItem": 2}, {}) == 250
    assert RequestCosts(free, 1769, "x86_64").prices_date == "2026-01-01"


def test_a_share_of_instances_is_part_of_it() -> None:
    """36 USD an hour are 0.01 USD a second; five calls at once share it."""
    share = instance_share_nusd(250, 36.0, 5)
    assert share == pytest.approx(500_000)
    assert AT_1_GB.nusd(20, {}, {}, share) == PLAIN + 500_000


@pytest.mark.parametrize(
    ("nusd", "text"),
    [(4_371, "0.000004371"), (0, "0.000000000"), (1_500_000_000, "1.500000000"), (12_000_000_001, "12.000000001")],
)
def test_costs_are_written_without_an_exponent_and_exactly(nusd: int, text: str) -> None:
    assert usd_text(nusd) == text
