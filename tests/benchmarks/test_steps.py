from benchmarks.steps import shares, sums

BEFORE = """
# HELP sluice_step_seconds Time by step.
sluice_step_seconds_bucket{model="m",version="1",step="run",le="+Inf"} 2.0
sluice_step_seconds_count{model="m",version="1",step="run"} 2.0
sluice_step_seconds_sum{model="m",version="1",step="run"} 0.004
sluice_step_seconds_count{model="other",version="1",step="run"} 50.0
"""
AFTER = """
sluice_step_seconds_count{model="m",version="1",step="run"} 12.0
sluice_step_seconds_sum{model="m",version="1",step="run"} 0.024
sluice_step_seconds_count{model="m",version="1",step="total"} 40.0
sluice_step_seconds_sum{model="m",version="1",step="total"} 0.4
sluice_batch_rows_count{model="m",version="1"} 10.0
sluice_batch_rows_sum{model="m",version="1"} 40.0
"""


def test_what_was_counted_between_two_scrapes_is_shared_out() -> None:
    found = shares(sums(BEFORE, "m"), sums(AFTER, "m"), cpu_seconds=0.04)
    assert found["run_us"] == 500  # 20 ms for 40 requests
    assert found["run_us_of_a_batch"] == 2000
    assert found["total_us"] == 10_000
    assert found["batch_rows"] == 4
    assert found["cpu_us"] == 1000


def test_only_the_models_own_figures_count() -> None:
    assert sums(BEFORE, "other") == {("run", "count"): 50.0}
