import re

import pytest

from shared.domain.prices import LIST_PRICES, SERVERLESS_MEMORY_MB, read_prices, serverless_memory_mb
from tests.conftest import ROOT
from tests.template.support import source


def test_every_instance_type_of_the_template_has_a_price() -> None:
    offered = source()["Parameters"]["ContainerInstanceType"]["AllowedValues"]
    assert {name for name in offered if LIST_PRICES.hourly(name) is None} == set()
    assert LIST_PRICES.hourly("ml.none.large") is None


def test_the_page_says_the_same_prices() -> None:
    page = (ROOT / "docs/cost.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"`(ml\.[a-z0-9.]+)` ([0-9.]+)", page))
    assert {name: float(price) for name, price in listed.items()} == LIST_PRICES.instance_hour
    assert LIST_PRICES.date in page


def test_what_is_named_takes_the_place_of_the_lists() -> None:
    own = read_prices('{"date":"2027-02-03","region":"eu-west-1","log_gb":0.57,"instance_hour":{"ml.g5.xlarge":1.2}}')
    assert (own.date, own.region, own.log_gb, own.hourly("ml.g5.xlarge")) == ("2027-02-03", "eu-west-1", 0.57, 1.2)
    assert (own.http_request, own.hourly("ml.g6.xlarge")) == (1e-6, 1.127)
    assert LIST_PRICES.hourly("ml.g5.xlarge") == 1.41


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a JSON document"),
        ("[]", "array"),
        ('{"log_gb":0.57}', "date"),
        ('{"date":"yesterday"}', "date"),
        ('{"date":"2026-11-21","log_gb":-1}', "log_gb"),
        ('{"date":"2026-11-21","log_gb":1e999}', "log_gb"),
        ('{"date":"2026-11-21","lambda":1}', "lambda"),
        ('{"date":"2026-11-21","instance_hour":{"ml.g5.xlarge":"1"}}', "instance_hour"),
        ('{"date":"2026-11-21","region":"EU West"}', "region"),
    ],
)
def test_what_is_no_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_prices(text)


def test_an_architecture_that_lambda_does_not_have() -> None:
    assert (LIST_PRICES.gb_second("arm64"), LIST_PRICES.gb_second("x86_64")) == (0.0000133334, 0.0000166667)
    with pytest.raises(ValueError, match="riscv64"):
        LIST_PRICES.gb_second("riscv64")


def test_serverless_endpoints_have_sizes() -> None:
    assert [serverless_memory_mb(size) for size in (1, 1024, 1769, 6144)] == [1024, 1024, 2048, 6144]
    assert serverless_memory_mb(SERVERLESS_MEMORY_MB[-1] + 1) is None
