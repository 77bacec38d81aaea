from typing import Any
from xml.etree import ElementTree as ET

from benchmarks.report import ceiling_of, markdown, plot, summaries


def sample(server: str, rps: float, number: int) -> dict[str, Any]:
    times = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "generator_cpu": 0.1, "server_cpu": 1.0, "other_cpu": 0.0}
    where = {"model": "tree", "server": server, "door": "json", "connections": 64, "round": number}
    return {**where, **times, "rps": rps, "failed": 0}


REPORT: dict[str, Any] = {
    "plan": {"models": ["tree", "mlp"], "rounds": 3, "seconds": 1.0},
    "machine": {"date": "2026-11-21", "cores": 2, "processor": "x", "python": "3.11", "onnxruntime": "1"},
    "samples": [sample("ours", rps, i) for i, rps in enumerate((90.0, 120.0, 100.0))]
    + [sample("baseline", rps, i) for i, rps in enumerate((10.0, 9.0, 11.0))],
    "ceilings": {
        "tree": [
            {"best_rows_per_second": value, "best": "batch 8", "lone_ms": {"1 threads": 0.1}} for value in (190, 200)
        ]
    },
    "generator": [{"model": "tree", "protocol": "json", "connections": 64, "rps": 1000.0, "p50": 0.1}],
    "memory": [{"model": "tree", "server": "ours", "idle_pss_mib": 60.0}],
    "starts": [{"server": "ours", "ready_s": value, "idle_pss_mib": 50.0} for value in (0.9, 0.5, 0.7)],
    "overload": [],
    "not_measured": {"ray, tree": "it does\nnot start"},
}


def test_rounds_are_summed_up_by_their_median_and_spread() -> None:
    ours = summaries(REPORT)["tree", "ours", "json", 64]
    assert (ours["rps"], ours["least"], ours["most"]) == (100, 90, 120)
    assert ceiling_of(REPORT, "tree") == 195
    assert ceiling_of(REPORT, "mlp") == 0


def test_the_page_names_ratios_and_what_was_not_measured() -> None:
    page = markdown(REPORT)
    assert "| ours json | 64 | 100 (90–120) | 10.00 | 51% | 1 | 3 | 0 |" in page
    assert "| tree | json | 64 | 1,000 | 0.1 | 10% |" in page
    assert "| ours | 0.7 (0.5–0.9) | 50 (50–50) |" in page
    assert "- ray, tree: `it does not start`" in page


def test_the_plot_is_a_drawing_with_a_bar_for_each_server() -> None:
    drawing = ET.fromstring(plot(REPORT))  # noqa: S314 - our own text
    names = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert names == [
        "tree: requests/s, 64 connections (raw ceiling 195 rows/s)",
        "ours json",
        "100",
        "baseline json",
        "10",
    ]
