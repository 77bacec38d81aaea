"""What was counted for an endpoint, added up for some days."""

from collections.abc import Mapping, Sequence
from datetime import date

import pytest

from shared.domain.endpoint.traffic_counts import VariantTraffic
from shared.domain.errors import NotFound, OutOfRange
from shared.usecases.read_traffic import ReadTraffic

TODAY = date(2026, 11, 21)
NOON = 1_795_262_400.0  # of that day, UTC


class Store:
    """A `TrafficStore` with one counter a day."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, date, date]] = []

    def of_endpoint(self, endpoint: str, since: date, until: date) -> Sequence[Mapping[str, int]]:
        self.asked.append((endpoint, since, until))
        return [{"variant#main#requests": 1}] * ((until - since).days + 1)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.mark.parametrize(
    ("since", "until", "asked"),
    [
        (None, None, (date(2026, 10, 23), TODAY)),
        (None, date(2026, 3, 1), (date(2026, 1, 31), date(2026, 3, 1))),
        (TODAY, None, (TODAY, TODAY)),
        (date(2025, 11, 21), None, (date(2025, 11, 21), TODAY)),
        (None, date(1, 1, 5), (date(1, 1, 1), date(1, 1, 5))),
    ],
)
def test_the_days_that_are_asked_for(
    store: Store, since: date | None, until: date | None, asked: tuple[date, date]
) -> None:
    found = ReadTraffic(store, lambda: NOON)("tumor", since, until)
    assert store.asked == [("tumor", *asked)]
    assert (found.endpoint, found.since, found.until) == ("tumor", *asked)
    assert found.traffic.variants == {"main": VariantTraffic(requests=(asked[1] - asked[0]).days + 1)}


@pytest.mark.parametrize("since", [date(2026, 11, 22), date(2025, 11, 20)])
def test_an_end_before_its_start_and_more_than_a_year_are_refused(store: Store, since: date) -> None:
    with pytest.raises(OutOfRange) as raised:
        ReadTraffic(store, lambda: NOON)("tumor", since)
    assert [fault.pointer for fault in raised.value.fields] == ["/query/since"]
    assert store.asked == []


@pytest.mark.parametrize("name", ["", "UP", "a" * 65, "a#b"])
def test_what_no_endpoint_can_be_called_is_not_asked_for(store: Store, name: str) -> None:
    with pytest.raises(NotFound):
        ReadTraffic(store, lambda: NOON)(name)
    assert store.asked == []
