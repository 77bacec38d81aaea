"""`sluice cost`."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from infra.cli.cost_plot import decades, svg_plot
from shared.domain.prices import LIST_PRICES
from tests.cli.conftest import Cli

LOAD = ("cost", "--rps", "50", "--function-ms", "180", "--container-ms", "12", "--hours-per-day", "12")


def test_the_document_adds_up(down: Cli) -> None:
    found = down.json(*LOAD, "--rows", "4")
    assert found["prices"] == {"date": LIST_PRICES.date, "region": "us-east-1"}
    for name, way in found["ways"].items():
        assert way["requests"] == pytest.approx(50 * 730 * 3600 / 2)
        assert way["usd_per_month"] == pytest.approx(sum(part["usd"] for part in way["parts"]) + way["instances_usd"])
        assert way["usd_per_million_rows"] == pytest.approx(way["usd_per_month"] / (way["requests"] * 4 / 1e6))
        assert len(found["curves"][name]) == len(found["curves"]["rps"])
    hours = {name: way["instance_hours"] for name, way in found["ways"].items()}
    assert hours == {"function": 0, "serverless": 0, "real-time": 730, "asynchronous": 365}
    assert len(found["break_even"]) == 6
    even = next(even for even in found["break_even"] if even["between"] == ["function", "real-time"])
    assert (even["at_first"], even["crossings"][0]["cheaper"]) == ("function", "real-time")


def test_people_see_parts_prices_break_even_points_and_a_plot(down: Cli) -> None:
    shown = down(*LOAD).stdout
    assert f"Prices of us-east-1 in US dollars, {LIST_PRICES.date}." in shown
    header, *_ = (line for line in shown.splitlines() if "real-time" in line)
    assert header.split() == ["function", "serverless", "real-time", "asynchronous"]
    months = next(line for line in shown.splitlines() if line.startswith("a month")).split()[2:]
    document = down.json(*LOAD)["ways"]
    assert months == [f"{way['usd_per_month']:,.2f}" for way in document.values()]
    assert "SageMaker time: 180 ms × 2 GB × 0.00002" in shown
    assert re.search(r"function and real-time +function below [0-9.,]+, real-time from there", shown)
    assert "US dollars a month over requests a second" in shown
    assert "Not in it: data transfer" in shown
    assert "\x1b" not in shown


def test_other_prices_are_taken_and_dated(down: Cli, tmp_path: Path) -> None:
    own = {"date": "2027-05-06", "region": "eu-west-1", "instance_hour": {"ml.mine.large": 2.5}}
    (tmp_path / "prices.json").write_text(json.dumps(own))
    for given in (str(tmp_path / "prices.json"), json.dumps(own)):
        found = down.json(*LOAD, "--instance-type", "ml.mine.large", "--prices", given)
        assert found["prices"] == {"date": "2027-05-06", "region": "eu-west-1"}
        assert found["ways"]["real-time"]["instances_usd"] == pytest.approx(730 * 2.5)


def test_what_the_load_needs_is_said(down: Cli) -> None:
    options = ("--rps", "5000", "--latency-ms", "300", "--instances", "2", "--memory-mb", "8192")
    notes = " ".join(down.json("cost", *options)["notes"])
    assert "2 instances take" in notes
    assert "function: 1500 calls at once, of which AWS grants 1000 unasked." in notes
    assert "serverless: has 6144 MB" in notes


def test_the_plot_is_written(down: Cli, tmp_path: Path) -> None:
    path = tmp_path / "cost.svg"
    result = down(*LOAD, "--svg", str(path))
    assert f"The plot is in {path}." in result.stderr.replace("\n", "")
    drawing = ET.fromstring(path.read_text())  # noqa: S314 - our own
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    texts = [text.text for text in drawing.findall("{http://www.w3.org/2000/svg}text")]
    assert len(lines) == 4
    assert {"function", "serverless", "real-time", "asynchronous", "requests a second"} <= set(texts)


def test_a_plot_of_curves_that_are_level() -> None:
    assert decades(50)[0] == pytest.approx(0.1)
    assert decades(50)[-1] == pytest.approx(10_000)
    assert "NaN" not in svg_plot([1.0, 10.0], {"a<b": [1.0, 1.0]}, "t")
    assert "a&lt;b" in svg_plot([1.0, 10.0], {"a<b": [1.0, 1.0]}, "t")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rps", "1"), "Say how long a call takes: --function-ms"),
        (("--rps", "1", "--function-ms", "5"), "Say how long a call takes: --container-ms"),
        (("--rps", "0", "--latency-ms", "5"), "--rps"),
        (("--rps", "1", "--latency-ms", "5", "--instance-type", "ml.x.large"), "no price of ml.x.large"),
        (("--rps", "1", "--latency-ms", "5", "--serverless-memory-mb", "1500"), "one of 1024, 2048"),
        (("--rps", "1", "--latency-ms", "5", "--duty", "0.5", "--hours-per-day", "3"), "say the same"),
        (("--rps", "1", "--latency-ms", "5", "--prices", "{"), "--prices: not a JSON document."),
        (("--rps", "1", "--latency-ms", "5", "--prices", '{"log_gb":1}'), "--prices: Object missing"),
        (("--rps", "1", "--latency-ms", "5", "--prices", "/none/such.json"), "cannot be read"),
    ],
)
def test_wrong_usage(down: Cli, options: tuple[str, ...], said: str) -> None:
    result = down("cost", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
