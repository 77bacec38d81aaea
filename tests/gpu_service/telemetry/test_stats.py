from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_service.telemetry.measures import SECONDS, Histogram
from gpu_service.telemetry.stats import ModelStats, ServerStats, batch_class


@dataclass
class Waited:
    decoded_at: float


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_every_value_is_in_the_first_class_that_holds_it(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    for position, bound in enumerate(SECONDS):
        assert sum(histogram.counts[: position + 1]) == sum(value <= bound for value in values)


def test_a_value_may_be_counted_several_times() -> None:
    histogram = Histogram((1, 2))
    histogram.observe(1.5, 3)
    assert (histogram.counts, histogram.sum, histogram.count) == ([0, 3, 0], 4.5, 3)


def test_a_batch_counts_its_requests_and_its_rows() -> None:
    stats = ModelStats()
    stats.batch([Waited(1.0), Waited(1.5)], started=2.0, finished=2.25, rows=5, merge_s=0.001)
    assert (stats.execution_count, stats.inference_count) == (1, 5)
    assert (stats.queue.count, stats.queue.ns) == (2, 1_500_000_000)
    assert (stats.compute_infer.count, stats.compute_infer.ns) == (2, 500_000_000), "each request took the whole run"
    assert (stats.batches[5].count, stats.batches[5].ns) == (1, 250_000_000)
    assert (stats.run_time.count, stats.run_time.sum) == (1, 0.25)
    assert (stats.merge_time.count, stats.merge_time.sum) == (1, 0.001)
    assert stats.last_inference_ms > 1_600_000_000_000


def test_answers_are_counted_by_their_code() -> None:
    stats = ModelStats()
    stats.request("", 0.001, 0.002, 0.5)
    stats.request("", 0.001, 0.002, 0.25)
    stats.request("not_finite", 0.001, 0.0, 0.125)
    stats.refused("overloaded")
    assert stats.codes == {"": 2, "not_finite": 1, "overloaded": 1}
    assert stats.refusals == {"overloaded": 1}
    assert (stats.success.count, stats.success.ns) == (2, 750_000_000)
    assert (stats.fail.count, stats.fail.ns) == (2, 125_000_000)
    assert (stats.compute_input.count, stats.compute_input.ns) == (3, 3_000_000)
    assert (stats.compute_output.count, stats.compute_output.ns) == (3, 4_000_000)
    assert (stats.total_time.count, stats.total_time.sum) == (3, 0.875)


def test_the_cache_and_joined_requests_are_counted() -> None:
    stats = ModelStats()
    stats.cache(hit=True, seconds=0.5)
    stats.cache(hit=False)
    stats.cache(hit=False)
    stats.joined()
    assert (stats.cache_hit.count, stats.cache_hit.ns, stats.cache_miss.count, stats.joins) == (1, 500_000_000, 2, 1)


@given(st.integers(min_value=1, max_value=2**40))
def test_batch_sizes_have_few_classes_none_smaller_than_the_batch(rows: int) -> None:
    size = batch_class(rows)
    assert size >= rows
    assert size == rows if rows <= 64 else size < 2 * rows
    assert batch_class(size) == size


def test_a_model_with_batches_of_every_size_keeps_few_of_them() -> None:
    stats = ModelStats()
    for rows in range(1, 5000):
        stats.batch([], 0.0, 0.0, rows)
    assert len(stats.batches) == 64 + 7
    assert sum(duration.count for duration in stats.batches.values()) == 4999


def test_made_up_codes_and_routes_do_not_grow_without_bound() -> None:
    stats, server = ModelStats(), ServerStats()
    for n in range(1000):
        stats.request(f"code-{n}", 0.0, 0.0, 0.0)
        stats.refused(f"refusal-{n}")
        server.answered(f"/{n}", "200")
        server.shed(f"reason-{n}")
    for counts in (stats.codes, stats.refusals, server.requests, server.sheds):
        assert len(counts) <= 257
    assert sum(stats.codes.values()) == 2000
    assert sum(server.requests.values()) == 1000
    assert server.requests["other", "other"] == 1000 - 256


def test_connections_come_and_go() -> None:
    server = ServerStats()
    server.opened("http")
    server.opened("http")
    server.opened("grpc")
    server.closed("http")
    assert server.connections == {"http": 1, "grpc": 1}
    assert server.connections_total == {"http": 2, "grpc": 1}
