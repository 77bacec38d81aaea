"""What a run over a file knows of itself: ids, keys, shares, and the size of its batches."""

import pytest

from shared.domain.batches import (
    BatchState,
    Drop,
    PartCounts,
    batch_id,
    part_key,
    part_number,
    public,
    read_drop,
    read_share,
    tenant_of,
    too_many,
)
from shared.domain.errors import InvalidRequest
from shared.domain.jobs import JOB_ID, ObjectRef
from shared.domain.pace import FIRST, Pace


def test_a_drop_names_its_tenant_and_its_model() -> None:
    assert read_drop("batch/in/acme/tumor/night.csv") == Drop("acme", "tumor", "night.csv")
    assert read_drop("batch/in/acme/tumor/2026/11/night.csv") == Drop("acme", "tumor", "night.csv")
    assert tenant_of("batch/in/acme/night.csv") == "acme"


@pytest.mark.parametrize(
    "key",
    [
        "batch/in/acme/night.csv",
        "batch/in/acme/tumor/",
        "batch/in//tumor/night.csv",
        "batch/in/acme/tumor/../night.csv",
        "batch/out/acme/tumor/night.csv",
        f"batch/in/acme/tumor/{'x' * 256}",
    ],
)
def test_other_keys_start_nothing(key: str) -> None:
    with pytest.raises(InvalidRequest):
        read_drop(key)


def test_an_object_has_one_id_and_later_ones_sort_after_it() -> None:
    import re

    ref = ObjectRef("data", "batch/in/acme/tumor/night.csv", "v1")
    one = batch_id(ref, 1_700_000_000.0)
    assert re.fullmatch(JOB_ID, one)
    assert one == batch_id(ObjectRef("data", "batch/in/acme/tumor/night.csv", "v1"), 1_700_000_000.0)
    others = [
        batch_id(ObjectRef("data", ref.key, "v2"), 1_700_000_000.0),
        batch_id(ObjectRef("other", ref.key, "v1"), 1_700_000_000.0),
        batch_id(ObjectRef("data", f"{ref.key}.gz", "v1"), 1_700_000_000.0),
    ]
    assert len({one, *others}) == 4
    assert one < batch_id(ref, 1_700_000_001.0)


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "half", ""])
def test_a_share_is_a_number_from_0_to_1(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_share(text)


def test_rows_are_too_many_beyond_the_share_and_not_at_it() -> None:
    assert read_share(None) == 0.01
    assert not too_many(29, 100, 0.29)  # 0.29 * 100 is a little less than 29
    assert too_many(30, 100, 0.29)
    assert not too_many(0, 100, 0.0)
    assert too_many(1, 10**9, 0.0)
    assert not too_many(10, 10, 1.0)


def test_the_state_of_a_batch_comes_back_as_it_was() -> None:
    state = BatchState(source="s3://data/k", name="errors.jsonl", format="jsonl", packed=True, size=5)
    assert BatchState.decode(state.encode()) == state
    assert state.output_name == "output-errors.jsonl"
    shown = public(state.with_parts(3).encode())
    assert (shown["format"], shown["packed"], shown["parts"], shown["source"]) == ("jsonl", True, 3, "s3://data/k")
    with pytest.raises(ValueError, match="not a batch"):
        BatchState.decode(None)


def test_a_part_is_found_by_its_key_and_counted_by_its_metadata() -> None:
    keys = [part_key("1" * 32, "out", number) for number in (0, 9, 10, 1999)]
    assert keys == sorted(keys)
    assert [part_number(key) for key in keys] == [0, 9, 10, 1999]
    counts = PartCounts(7, 2, 30, 400)
    assert PartCounts.of_metadata(counts.metadata()) == counts


def _run(pace: Pace, ms_of: dict[int, float], most: int, runs: int = 60) -> None:
    for _ in range(runs):
        rows = pace.rows(most)
        pace.note(rows, ms_of.get(rows, rows * 0.01 + 1.0), most)


def test_the_pace_grows_while_that_brings_rows() -> None:
    pace = Pace()
    assert pace.rows(10_000) == FIRST
    _run(pace, {}, 1024)  # 1 ms for each call and 10 µs for each row
    assert pace.rows(10_000) == 1024
    assert pace.rows(100) == 100


def test_the_pace_stays_where_more_rows_are_slower() -> None:
    pace = Pace()
    _run(pace, {16: 2.0, 32: 3.0, 64: 4.0, 128: 20.0, 256: 60.0, 512: 200.0}, 10_000)
    assert pace.rows(10_000) == 64


def test_what_slows_the_machine_for_a_while_does_not_keep_the_pace_low() -> None:
    pace = Pace()
    for number in range(200):
        slower = 3.0 if number % 100 >= 10 else 1.0  # only the first sizes are tried on a free machine
        rows = pace.rows(4096)
        pace.note(rows, slower * (rows * 0.01 + 0.1), 4096)
    assert pace.rows(4096) >= 256


def test_the_pace_of_a_slow_model_is_low() -> None:
    pace = Pace()
    _run(pace, {FIRST: 1500.0}, 10_000, runs=3)
    assert pace.rows(10_000) == FIRST
    pace.too_much(16)
    assert pace.rows(10_000) == 8
