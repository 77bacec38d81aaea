"""Records of the jobs table's stream."""

from typing import Any

import pytest

from shared.adapters.job_stream import UnreadableRecord, finished_job

IMAGE: dict[str, Any] = {
    "job_id": {"S": "0" * 32},
    "kind": {"S": "batch"},
    "tenant": {"S": "acme"},
    "model": {"S": "tumor"},
    "state": {"S": "failed"},
    "created_at": {"N": "1800000000"},
    "finished_at": {"N": "1800000012.345"},
    "problem_code": {"S": "too_many_errors"},
}


def record(**changes: Any) -> dict[str, Any]:
    image = {name: value for name, value in {**IMAGE, **changes}.items() if value is not None}
    return {"eventName": "MODIFY", "dynamodb": {"NewImage": image, "SequenceNumber": "1"}}


def test_a_finished_job_is_read() -> None:
    found = finished_job(record())
    assert found is not None
    assert (found.event, found.code, found.finished_at) == ("batch.failed", "too_many_errors", 1_800_000_012.345)
    assert (found.started_at, found.version, found.rows_total, found.rows_done) == (None, None, None, 0)
    # What an attempt before failed with is not why the job ended as it did.
    done = finished_job(record(state={"S": "succeeded"}))
    assert done is not None
    assert done.code is None


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_has_not_ended_is_none(state: str) -> None:
    assert finished_job(record(state={"S": state})) is None
    assert finished_job({"eventName": "REMOVE", "dynamodb": {"Keys": {}}}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": None},
        {"state": None},
        {"kind": {"S": "other"}},
        {"job_id": {"S": "../x"}},
        {"finished_at": None},
        {"finished_at": {"N": "soon"}},
        {"finished_at": {"N": "1e30"}},
        {"created_at": {"N": "-1"}},
        {"version": {"S": "1"}},
        {"model": "tumor"},
    ],
)
def test_what_is_no_job_is_said_to_be_none(changes: dict[str, Any]) -> None:
    with pytest.raises(UnreadableRecord):
        finished_job(record(**changes))


@pytest.mark.parametrize("record", [{}, {"dynamodb": {}}, {"dynamodb": None}, {"dynamodb": {"NewImage": []}}])
def test_records_without_an_image(record: dict[str, Any]) -> None:
    with pytest.raises(UnreadableRecord):
        finished_job(record)
