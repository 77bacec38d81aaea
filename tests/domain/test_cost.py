from shared.domain.cost import LIST_PRICES, Prices, request_cost_nusd


def test_a_million_predictions_cost_what_the_documentation_says() -> None:
    """docs/cost.md: 20 ms at 1769 MB, without limits and logs."""
    assert round(request_cost_nusd(ms=20, memory_mb=1769) * 1_000_000 / 1e9, 2) == 1.78


def test_every_part_counts() -> None:
    plain = request_cost_nusd(ms=20, memory_mb=1024)
    assert plain == round(1_000 + 200 + 0.020 * 16_666.7)
    assert request_cost_nusd(ms=20, memory_mb=1024, writes=2) == plain + 1_250
    assert request_cost_nusd(ms=20, memory_mb=1024, reads=1) == plain + 125
    assert request_cost_nusd(ms=20, memory_mb=1024, log_bytes=600) == plain + 300


def test_a_millisecond_begun_is_paid() -> None:
    assert request_cost_nusd(ms=20.001, memory_mb=1024) == request_cost_nusd(ms=21, memory_mb=1024)
    assert request_cost_nusd(ms=0, memory_mb=1024) == 1_200


def test_prices_can_be_others() -> None:
    free = Prices(http_request=0, lambda_request=0, gb_second=0, write=0, read=0, log_byte=0)
    assert request_cost_nusd(ms=20, memory_mb=1769, writes=3, reads=3, log_bytes=600, prices=free) == 0
    assert Prices() == LIST_PRICES


def test_the_result_is_whole() -> None:
    assert isinstance(request_cost_nusd(ms=12.3, memory_mb=1769, reads=0.5), int)
