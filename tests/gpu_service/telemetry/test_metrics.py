import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gpu_service.telemetry.figures import ExecutorFigures, Figures, ModelFigures
from gpu_service.telemetry.gpu import Gpu, GpuSampler
from gpu_service.telemetry.memory import pss_bytes
from gpu_service.telemetry.metrics import Metrics, render
from gpu_service.telemetry.stats import ModelStats, ServerStats

_DOCUMENT = Path(__file__).parents[3] / "docs" / "container-metrics.md"
_GPU = Gpu("0", "GPU-1", 0.25, 10, 100)


@dataclass
class Waited:
    decoded_at: float


def _stats() -> ModelStats:
    stats = ModelStats()
    stats.batch([Waited(0.0), Waited(0.5)], 1.0, 1.002, rows=70, merge_s=0.0001)
    stats.batch([Waited(2.0)], 2.0, 2.002, rows=1)
    stats.request("", 0.001, 0.002, 0.2)
    stats.request("not_finite", 0.001, 0.0, 0.1)
    stats.refused("overloaded")
    stats.cache(hit=True)
    stats.cache(hit=False)
    stats.joined()
    return stats


def _figures(name: str = "tree") -> Figures:
    server = ServerStats()
    server.opened("http")
    server.answered("/v2/models/{model}/infer", "200")
    server.shed("connections")
    server.lag(0.002)
    server.in_flight, server.bytes_in, server.bytes_out = 3, 1000, 2000
    model = ModelFigures(
        name, "2", _stats(), queue_requests=4, queue_rows=5, queue_bytes=6, running_batches=1, memory_bytes=7
    )
    return Figures(server, [model], [ExecutorFigures("cpu", 2, 1, 1)], 10_000, 9, 11, 12)


def _families(figures: Figures, *gpus: Gpu) -> dict[str, Metric]:
    body, content_type = render("", figures, gpus)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in parse_text(body.decode())}


def _value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [
        entry.value
        for family in families.values()
        for entry in family.samples
        if entry.name == sample and labels.items() <= entry.labels.items()
    ]
    assert len(found) == 1, (sample, labels, found)
    return found[0]


def test_the_figures_of_a_model_are_shown() -> None:
    families = _families(_figures())
    model = {"model": "tree", "version": "2"}
    expected = {
        ("sluice_requests_total", "code", "ok"): 1,
        ("sluice_requests_total", "code", "not_finite"): 1,
        ("sluice_requests_total", "code", "overloaded"): 1,
        ("sluice_refused_total", "code", "overloaded"): 1,
        ("sluice_step_seconds_count", "step", "queue"): 3,
        ("sluice_step_seconds_sum", "step", "queue"): 1.5,
        ("sluice_step_seconds_count", "step", "run"): 2,
        ("sluice_step_seconds_count", "step", "batch"): 2,
        ("sluice_step_seconds_count", "step", "parse"): 2,
        ("sluice_step_seconds_sum", "step", "encode"): 0.002,
        ("sluice_batch_rows_bucket", "le", "64.0"): 1,
        ("sluice_batch_rows_bucket", "le", "128.0"): 2,
        ("sluice_cache_lookups_total", "result", "hit"): 1,
        ("sluice_cache_lookups_total", "result", "miss"): 1,
    }
    for (sample, label, value), count in expected.items():
        assert _value(families, sample, **model, **{label: value}) == pytest.approx(count), (sample, value)
    assert _value(families, "sluice_step_seconds_sum", **model, step="total") == pytest.approx(0.3)
    assert _value(families, "sluice_batch_rows_sum", **model) == 71
    assert _value(families, "sluice_joined_total", **model) == 1
    assert _value(families, "sluice_queue_requests", **model) == 4
    assert _value(families, "sluice_queue_rows", **model) == 5
    assert _value(families, "sluice_queue_bytes", **model) == 6
    assert _value(families, "sluice_model_memory_bytes", **model) == 7


def test_the_figures_of_the_server_are_shown() -> None:
    families = _families(_figures(), _GPU)
    assert _value(families, "sluice_answers_total", route="/v2/models/{model}/infer", status="200") == 1
    assert _value(families, "sluice_requests_in_flight") == 3
    assert _value(families, "sluice_received_bytes_total") == 1000
    assert _value(families, "sluice_sent_bytes_total") == 2000
    assert _value(families, "sluice_event_loop_lag_seconds_count") == 1
    assert _value(families, "sluice_executor_stuck_batches", executor="cpu") == 1
    assert _value(families, "sluice_memory_budget_bytes") == 10_000
    assert _value(families, "sluice_traces_dropped_total") == 9
    assert _value(families, "sluice_sessions") == 11
    assert _value(families, "sluice_session_bytes") == 12
    assert _value(families, "sluice_gpu_utilization_ratio", gpu="0", uuid="GPU-1") == 0.25
    assert _value(families, "sluice_gpu_memory_used_bytes", gpu="0") == 10
    assert _value(families, "process_cpu_seconds_total") > 0
    resident = _value(families, "process_resident_memory_bytes")
    assert 0 < _value(families, "sluice_memory_pss_bytes") <= resident * 1.5


def test_without_a_gpu_there_is_no_series_of_one() -> None:
    families = _families(_figures())
    assert not families["sluice_gpu_utilization_ratio"].samples
    assert not families["sluice_gpu_memory_used_bytes"].samples


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    families = _families(_figures(), _GPU._replace(utilization=None))
    assert not families["sluice_gpu_utilization_ratio"].samples
    assert families["sluice_gpu_memory_total_bytes"].samples


def test_a_model_that_nobody_asked_has_no_histograms() -> None:
    figures = Figures(ServerStats(), [ModelFigures("idle", "1", ModelStats())])
    families = _families(figures)
    assert not families["sluice_step_seconds"].samples
    assert _value(families, "sluice_queue_rows", model="idle", version="1") == 0
    assert not families["sluice_memory_budget_bytes"].samples


def test_openmetrics_is_written_where_it_is_asked_for() -> None:
    accept = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
    )
    body, content_type = render(accept, _figures(), [_GPU])
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")
    names = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"sluice_requests", "sluice_step_seconds", "sluice_connections", "process_cpu_seconds"} <= names


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "application/openmetrics-text;version=x", "text/plain;version=9.9", "\x00;;,,="]
)
def test_any_accept_header_gets_one_of_the_two_formats(accept: str) -> None:
    body, content_type = render(accept, _figures())
    assert b"sluice_requests_total{" in body
    assert content_type.startswith(("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"))


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_name_of_a_model_makes_one_readable_label(name: str) -> None:
    for accept, parse in (("", parse_text), ("application/openmetrics-text", parse_openmetrics)):
        body, _ = render(accept, _figures(name))
        families = {family.name: family for family in parse(body.decode())}
        (sample,) = families["sluice_queue_rows"].samples
        assert len(sample.labels["model"]) <= 128
        if len(name) <= 128 and not re.search("[\ud800-\udfff]", name):
            assert sample.labels["model"] == name


def test_two_long_names_stay_two() -> None:
    figures = Figures(ServerStats(), [ModelFigures("m" * 200 + end, "1", ModelStats()) for end in "ab"])
    samples = _families(figures)["sluice_queue_rows"].samples
    assert len({sample.labels["model"] for sample in samples}) == 2


def test_the_document_and_the_container_name_the_same_metrics() -> None:
    exported = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type, _labels(family))
        for family in _families(_figures(), _GPU).values()
    }
    cells = [line.split("|") for line in _DOCUMENT.read_text(encoding="utf-8").splitlines() if "| `" in line]
    documented = {
        (cell[1].strip(" `"), cell[2].strip(), frozenset(re.findall(r"\w+", cell[3])))
        for cell in cells
        if len(cell) == 7
    }
    assert documented == exported


def _labels(family: Metric) -> frozenset[str]:
    assert family.samples, family.name
    return frozenset(family.samples[0].labels) - {"le"}


def test_scrapes_are_rendered_one_after_the_other_from_fresh_figures() -> None:
    asked: list[int] = []

    def figures() -> Figures:
        asked.append(1)
        server = ServerStats()
        server.in_flight = len(asked)
        return Figures(server)

    async def scrape() -> list[tuple[bytes, str]]:
        metrics = Metrics(figures, GpuSampler(None))
        return list(await asyncio.gather(*(metrics.scrape("") for _ in range(3))))

    answers = asyncio.run(scrape())
    assert [f"sluice_requests_in_flight {n}.0".encode() in body for n, (body, _) in enumerate(answers, 1)] == [True] * 3


def test_the_proportional_memory_is_that_of_the_system() -> None:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    resident = int(re.search(r"^Rss:\s+(\d+)", rollup, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    assert 0 < (pss_bytes() or 0) <= resident * 1.5


def test_nothing_heavy_is_imported_before_the_first_scrape() -> None:
    code = (
        "import sys\n"
        "from gpu_service.telemetry import figures, gpu, metrics, stats, tracing, watchdog\n"
        "assert tracing.tracer_from({}) is None\n"
        "heavy = ('prometheus_client', 'opentelemetry', 'pynvml', 'numpy', 'google')\n"
        "print([name for name in sys.modules if name.split('.')[0] in heavy])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
