"""Runs over files, from the object that is dropped to the manifest: real stores, real models."""

import gc
import gzip
import io
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from functions.batch_runner.bootstrap import build
from infra.local.stack import REGION
from shared.adapters.dynamodb_batches import DynamoDBBatches
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.domain.batches import answers_later
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import BackendChoice, EndpointConfig, ResponseFilter, StoredEndpoint, Variant
from shared.domain.errors import BackendUnavailable
from shared.domain.features import EntityKey, FeatureRecord
from shared.domain.jobs import ObjectRef, Outcome
from shared.domain.tenants import Tenant
from tests.conftest import LocalAws
from tests.functions.batch_house import BatchHouse, Killed, created, packed, sqs_event
from tests.models import add_model, argmax_model, gather_model, tensor

Rows = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture
def house(local_aws: LocalAws, aws_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchHouse:
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    return BatchHouse(local_aws, aws_session, tmp_path)


def rows_of(count: int) -> Rows:
    return np.arange(count * 2, dtype=np.float32).reshape(count, 2)


def csv_of(rows: Rows, header: str = "") -> bytes:
    lines = [",".join(f"{value:g}" for value in row) for row in rows]
    return ("\n".join(([header] if header else []) + lines) + "\n").encode()


def read_csv(content: bytes) -> list[list[float]]:
    return [[float(cell) for cell in line.split(",")[:2]] for line in content.decode().splitlines()]


def jsonl_of(rows: Rows) -> bytes:
    return b"".join(json.dumps(row.tolist()).encode() + b"\n" for row in rows)


def npy_of(rows: Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def read_npy(content: bytes) -> list[list[float]]:
    found: list[list[float]] = np.load(io.BytesIO(content)).tolist()
    return found


def parquet_of(rows: Rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"x.0": rows[:, 0], "x.1": rows[:, 1]}), file)
    return file.getvalue()


def read_parquet(content: bytes) -> list[list[float]]:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    return [[row[0], row[1]] for row in zip(*(column.to_pylist() for column in table.columns[:2]), strict=True)]


def test_a_dropped_csv_becomes_an_output_of_the_same_rows(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    content = csv_of(rows_of(10))
    house.run(house.drop(model, "night.csv", content))
    job = house.job()
    assert (job.state, job.kind, job.model, job.rows_total, job.rows_done) == ("succeeded", "batch", model, 10, 10)
    output = house.result(job, "night.csv")
    assert read_csv(output) == (rows_of(10) + 1).tolist()
    told = house.told(job)
    assert told["rows"] == {"total": 10, "done": 10, "succeeded": 10, "failed": 0}
    assert told["input"] | {"version_id": None} == {
        "uri": f"s3://{house.bucket}/batch/in/{house.tenant}/{model}/night.csv",
        "version_id": None,
        "format": "csv",
        "packed": False,
        "size": len(content),
        "sha256": sha256(content).hexdigest(),
    }
    assert told["output"]["size"] == len(output)
    assert told["output"]["sha256"] == sha256(output).hexdigest()
    assert told["model"] == {"name": model, "version": 1, "variant": "main", "backend": "function"}
    assert (told["parts"], told["errors"], told["state"]) == ({"total": 3, "done": 3}, [], "succeeded")
    assert job.result is not None
    assert job.result.stored is not None
    assert job.result.stored.uri == told["output"]["uri"]
    assert house.keys(f"batch/work/{job.job_id}/") == []
    lines = [line for line in house.lines if line["message"] == "request"]
    assert sorted((line["part"], line["rows"], line["route"], line["code"]) for line in lines) == [
        (0, 4, "batch", "ok"),
        (1, 4, "batch", "ok"),
        (2, 2, "batch", "ok"),
    ]
    assert job.cost_nusd is not None
    assert job.cost_nusd >= sum(line["cost_nusd"] for line in lines) * 0.5
    assert all(line["tenant"] == house.tenant and line["cost_nusd"] > 0 for line in lines)


FORMATS: dict[str, tuple[Callable[[Rows], bytes], Callable[[bytes], Any]]] = {
    "header.csv": (lambda rows: csv_of(rows, "x.0,x.1"), lambda found: read_csv(found.partition(b"\n")[2])),
    "rows.jsonl": (jsonl_of, lambda found: [json.loads(line) for line in found.splitlines()]),
    "rows.npy": (npy_of, read_npy),
    "rows.parquet": (parquet_of, read_parquet),
    "rows.csv.gz": (lambda rows: packed(csv_of(rows)), lambda found: read_csv(_unpacked(found))),
    "rows.npy.gz": (lambda rows: packed(npy_of(rows)), lambda found: read_npy(_unpacked(found))),
}


def test_every_format_comes_back_as_itself(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    events = {
        name: house.drop(model, name, write(rows_of(9)), max_error_share="0") for name, (write, _) in FORMATS.items()
    }
    house.run(*events.values())
    for name, (_, read) in FORMATS.items():
        job = house.job(house.id_of(events[name]))
        assert (name, job.problem) == (name, None)
        assert _numbers(read(house.result(job, name))) == (rows_of(9) + 1).tolist()
        assert house.told(job)["input"]["packed"] is name.endswith(".gz")


def _unpacked(content: bytes) -> bytes:
    return gzip.decompress(content)


def _numbers(found: list[Any]) -> list[list[float]]:
    """Rows whatever their form: a list, or an object by output."""
    return [list(row["y"]) if isinstance(row, dict) else list(row) for row in found]


def test_wrong_rows_up_to_the_declared_share_are_reported(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    content = csv_of(rows_of(10)).replace(b"4,5\n", b"4,many\n").replace(b"16,17\n", b"16\n")
    house.run(house.drop(model, "night.csv", content, max_error_share="0.2"))
    job = house.job()
    assert (job.state, job.rows_done) == ("succeeded", 10)
    told = house.told(job)
    assert told["rows"] == {"total": 10, "done": 10, "succeeded": 8, "failed": 2}
    assert [error["row"] for error in told["errors"]] == [2, 8]
    assert [json.loads(line)["row"] for line in house.result(job, "errors.jsonl").splitlines()] == [2, 8]
    lines = house.result(job, "night.csv").decode().splitlines()
    assert len(lines) == 10
    assert lines[3].startswith("7.0,8.0")
    assert told["errors"][0]["code"] in lines[2]


def test_wrong_cells_are_told_by_the_names_of_the_header(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    content = csv_of(rows_of(3), "x.1,x.0") + b"7,many\n,8\n"
    house.run(house.drop(model, "night.csv", content, max_error_share="0.5"))
    job = house.job()
    assert job.problem is None
    named = [(3, "/x.0"), (4, "/x.1")]
    assert [(error["row"], error["pointer"]) for error in house.told(job)["errors"]] == named
    listed = map(json.loads, house.result(job, "errors.jsonl").splitlines())
    assert [(error["row"], error["pointer"]) for error in listed] == named
    lines = house.result(job, "night.csv").decode().splitlines()
    assert [line.rpartition(",")[2] for line in lines[4:]] == [
        "wrong_dtype: /x.0: must be a number (FP32)",
        "missing_field: /x.1: is empty",
    ]


def test_a_run_that_cannot_be_says_which_names_or_which_backend_it_fails_by(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    named = house.drop(model, "names.csv", b"id,x.0,x.l\n1,2,3\n")
    house.run(named)
    problem = house.job(house.id_of(named)).problem
    assert problem is not None
    detail = "/lines/1/0: 'id', 'x.l' name no column of this model; it has x.0, x.1; missing: 'x.1'"
    assert (problem.code, problem.detail) == ("unknown_field", detail)
    endpoints = DynamoDBEndpoints(house.dynamodb, house.aws.stack.resources["EndpointsTable"].name)
    slow = BackendChoice("sagemaker-async", {"endpoint_name": "slow"})
    config = EndpointConfig(model, (Variant("main", backend="slow"),), backends={"slow": slow})
    endpoints.put(StoredEndpoint(config, 1, 1))
    later = house.drop(model, "rows.csv", csv_of(rows_of(3)))
    house.run(later)
    problem = house.job(house.id_of(later)).problem
    assert problem is not None
    assert (problem.code, problem.detail) == ("invalid_request", answers_later(model, "slow").detail)


def test_a_run_with_more_wrong_rows_than_declared_fails_and_tells_them(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    content = csv_of(rows_of(10)).replace(b"4,5\n", b"4,many\n").replace(b"16,17\n", b"16\n")
    house.run(house.drop(model, "night.csv", content, max_error_share="0.19"))
    job = house.job()
    assert (job.state, job.result) == ("failed", None)
    assert job.problem is not None
    assert job.problem.code == "too_many_errors"
    told = house.told(job)
    assert (told["state"], told["output"], told["problem"]["code"]) == ("failed", None, "too_many_errors")
    assert [error["row"] for error in told["errors"]] == [2, 8]
    assert house.dead_letters() == []


def test_a_row_that_the_graph_cannot_take_fails_alone(house: BatchHouse) -> None:
    model = house.publish(
        gather_model(), inputs=[tensor("x", DType.INT64, [-1])], outputs=[tensor("y", DType.FP32, [-1, 2])]
    )
    house.part_rows = 100
    house.run(house.drop(model, "rows.jsonl", b"0\n1\n9\n2\n", max_error_share="0.5"), worker=house.worker())
    job = house.job()
    assert job.problem is None
    assert [error["row"] for error in house.told(job)["errors"]] == [2]
    answers = [json.loads(line) for line in house.result(job, "rows.jsonl").splitlines()]
    assert _numbers([answers[0], answers[1], answers[3]]) == [[0, 1], [2, 3], [4, 5]]
    assert "error" in answers[2]


WRONG: tuple[tuple[str | None, str, bytes, dict[str, str], str | None], ...] = (
    ("absent", "rows.csv", b"1,2\n", {}, "model_not_found"),
    ("Nobody's", "rows.csv", b"1,2\n", {}, "model_not_found"),
    (None, "rows.xlsx", b"1,2\n", {}, "unsupported_media_type"),
    (None, "empty.csv", b"", {}, "empty_batch"),
    (None, "share.csv", b"1,2\n", {"max_error_share": "all"}, "invalid_request"),
    (None, "rows.npy", npy_of(np.zeros((2, 3), np.float32)), {}, "wrong_shape"),
    (None, "rows.parquet", b"no parquet at all", {}, None),
    (None, "rows.csv.gz", b"not packed", {}, None),
)


def test_what_no_run_can_come_of_is_a_failed_job(house: BatchHouse) -> None:
    known = house.publish(add_model())
    for model, name, content, metadata, code in WRONG:
        event = house.drop(model or known, name, content, **metadata)
        house.run(event)
        job = house.job(house.id_of(event))
        assert (name, job.state) == (name, "failed")
        assert job.problem is not None
        assert code in (None, job.problem.code)
    assert house.dead_letters() == []


def test_an_object_outside_of_a_model_is_a_failed_job(house: BatchHouse) -> None:
    key = f"batch/in/{house.tenant}/rows.csv"
    house.s3.put_object(Bucket=house.bucket, Key=key, Body=b"1,2\n")
    house.run(created(house.bucket, key))
    assert house.job().state == "failed"


def test_nobody_gets_a_run_for_no_tenant_for_a_folder_or_for_nothing(house: BatchHouse) -> None:
    model = house.publish(add_model())
    for key in (f"batch/in/absent-{house.tenant}/{model}/rows.csv", f"batch/in/{house.tenant}/{model}/"):
        house.s3.put_object(Bucket=house.bucket, Key=key, Body=b"")
        house.run(created(house.bucket, key))
    house.run(created(house.bucket, f"batch/in/{house.tenant}/{model}/gone.csv"))
    house.run(created("another", f"batch/in/{house.tenant}/{model}/rows.csv"))
    house.tenants.update(Tenant(house.tenant, "standard", suspended=True))
    house.run(house.drop(model, "rows.csv", b"1,2\n"))
    assert house.job_ids() == []


def test_keys_are_taken_as_event_bridge_and_notifications_have_them(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    event = house.drop(model, "a b+ü%41.csv", csv_of(rows_of(2)))
    house.run(event)
    notification = {
        "Records": [
            {
                "eventSource": "aws:s3",
                "s3": {
                    "bucket": {"name": house.bucket},
                    "object": {
                        "key": f"batch/in/{house.tenant}/{model}/a+b%2B%C3%BC%2541.csv",
                        "versionId": event["detail"]["object"]["version-id"],
                    },
                },
            }
        ]
    }
    house.run(notification)
    encoded = event["detail"]["object"] | {"key": f"batch/in/{house.tenant}/{model}/a+b%2B%C3%BC%2541.csv"}
    house.run({**event, "detail": {**event["detail"], "object": encoded}})
    assert read_csv(house.result(house.job(), "a b+ü%41.csv")) == (rows_of(2) + 1).tolist()


def test_events_and_messages_that_come_twice_have_one_effect(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    event = house.drop(model, "night.csv", csv_of(rows_of(10)))
    house.run(event, event)
    house.run(event)
    for message in ("plan", "finish"):
        house.sqs.send_message(
            QueueUrl=house.queue_url, MessageBody=json.dumps({"job_id": house.job().job_id, "step": message})
        )
    house.work(twice=True)
    again = house.drop(model, "again.csv", csv_of(rows_of(10)))
    house.run(again, again)
    house.work(twice=True)
    assert len(house.job_ids()) == 2
    for job_id in house.job_ids():
        job = house.job(job_id)
        assert (job.state, job.rows_done, job.rows_total) == ("succeeded", 10, 10)
    parts = [line for line in house.lines if line["message"] == "request"]
    assert len(parts) == 6  # nothing was predicted twice


CHANGES = frozenset({"PutObject", "UpdateItem", "PutItem", "SendMessageBatch", "DeleteObjects"})


class _Killer:
    """Ends a worker after as many changes of a store as it is told."""

    def __init__(self, session: Session) -> None:
        self.left = 0
        session.get_component("event_emitter").register("after-call", self._after)

    def _after(self, event_name: str, **_: Any) -> None:
        if event_name.rpartition(".")[2] in CHANGES:
            self.left -= 1
            if self.left == 0:
                raise Killed


def test_a_worker_may_be_killed_after_any_change_that_it_makes(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.part_rows = 10
    content = csv_of(rows_of(5)).replace(b"2,3\n", b"2,many\n")
    session = house.another_session()
    killer, mortal, healthy = _Killer(session), house.worker(session), house.worker()
    for at in range(1, 60):
        event = house.drop(model, f"night{at}.csv", content, max_error_share="0.5")
        killer.left = at
        try:
            house.run(event, worker=mortal)
        except Killed:
            survived = False
        else:
            survived = True
        job_id = house.id_of(event)
        house.free(job_id)
        house.run(event, worker=healthy)
        for _ in range(2):  # what the sweep does for a run that stands still
            if not house.job(job_id).finished:
                house.wake(job_id)
                house.work(healthy)
        job = house.job(job_id)
        assert (at, job.state, job.rows_done, job.rows_total) == (at, "succeeded", 5, 5)
        assert house.told(job)["rows"] == {"total": 5, "done": 5, "succeeded": 4, "failed": 1}
        assert house.keys(f"batch/work/{job.job_id}/") == []
        if survived:
            break
    assert at > 14


def test_a_part_that_is_written_is_counted_and_not_done_again(house: BatchHouse, aws_session: Session) -> None:
    model = house.publish(add_model(1.0))
    event = house.drop(model, "night.csv", csv_of(rows_of(8)))
    house.runner(event, None)
    assert house.step()  # the plan
    job = house.job()
    body, counts = b"1,2\n" * 4, {"rows": "4", "failed": "0", "ms": "1", "cost-nusd": "5"}
    house.s3.put_object(Bucket=house.bucket, Key=f"batch/work/{job.job_id}/out/00000", Body=body, Metadata=counts)
    house.work()
    assert house.job().state == "succeeded"
    assert house.result(house.job(), "night.csv").startswith(body)
    assert [line["part"] for line in house.lines if line["message"] == "request"] == [1]


def test_errors_of_an_attempt_that_had_no_end_are_not_those_of_the_run(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(8))), None)
    assert house.step()  # the plan
    stale = json.dumps({"row": 1, "pointer": "", "detail": "It was too much.", "code": "backend_rejected"}) + "\n"
    key = f"batch/work/{house.job().job_id}/errors/00000"
    house.s3.put_object(Bucket=house.bucket, Key=key, Body=stale.encode())
    house.work()
    told = house.told(house.job())
    assert (told["state"], told["errors"], told["errors_uri"]) == ("succeeded", [], None)
    assert told["rows"] == {"total": 8, "done": 8, "succeeded": 8, "failed": 0}


class _Away:
    """`PredictRows` whose backend is away."""

    def __init__(self, predict: Any) -> None:
        self.again = predict.again

    def __call__(self, *_: Any) -> Any:
        raise BackendUnavailable("The backend is away.")


def test_a_part_that_fails_leaves_nothing_that_is_written_later(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.parquet", parquet_of(rows_of(8))), None)
    assert house.step()  # the plan
    part: Any = house.runner._steps.part
    predict, part.predict = part.predict, _Away(part.predict)
    assert house.step()
    gc.collect()  # what Arrow's writer writes by itself then, into a file that is closed, would be an error here
    part.predict = predict
    house.work()
    assert house.job().state == "succeeded"


def test_a_file_that_is_another_one_by_now_is_not_read(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(8))), None)
    assert house.step()
    job_id = house.job().job_id
    key = f"batch/work/{job_id}/plan.json"
    plan = json.loads(house.s3.get_object(Bucket=house.bucket, Key=key)["Body"].read())
    house.s3.put_object(Bucket=house.bucket, Key=key, Body=json.dumps({**plan, "etag": '"of another"'}).encode())
    house.work()
    job = house.job()
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "source_not_found")


@pytest.mark.parametrize(("steps", "resumed"), [(1, False), (1, True), (3, False)], ids=["part", "plan", "finish"])
def test_a_step_whose_plan_is_gone_ends_the_run(house: BatchHouse, steps: int, resumed: bool) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(8))), None)
    for _ in range(steps):
        assert house.step()
    job_id = house.job().job_id
    house.s3.delete_object(Bucket=house.bucket, Key=f"batch/work/{job_id}/plan.json")
    if resumed:
        house.sqs.purge_queue(QueueUrl=house.queue_url)
        house.sqs.send_message(QueueUrl=house.queue_url, MessageBody=json.dumps({"job_id": job_id, "step": "plan"}))
    house.work()
    job = house.job()
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "source_not_found")


def test_a_cancelled_run_stops_and_leaves_no_output(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(10))), None)
    assert house.step()
    assert house.step()
    job = house.job()
    assert house.jobs.finish(job.job_id, Outcome("cancelled"), 1.0)
    house.work()
    job = house.job()
    assert (job.state, job.rows_done) == ("cancelled", 4)
    assert house.keys(f"batch/out/{house.tenant}/") == []
    # And it goes on from there, should it be wanted after all.
    restarted = house.jobs.restart(house.tenant, job.job_id, job.created_at + 1)
    house.sqs.send_message(
        QueueUrl=house.queue_url, MessageBody=json.dumps({"job_id": restarted.job_id, "step": "plan"})
    )
    house.work()
    assert house.job().state == "succeeded"
    assert [line["part"] for line in house.lines if line["message"] == "request"] == [0, 1, 2]


def test_a_run_whose_plan_is_no_longer_kept_is_not_cut_anew_around_its_finished_parts(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(10))), None)
    assert house.step()
    assert house.step()  # four rows are done
    job = house.job()
    assert house.jobs.finish(job.job_id, Outcome("cancelled"), 1.0)
    house.work()
    for name in ("plan.json", "pin.json"):  # they are older than the parts: the bucket's rule ends them first
        house.s3.delete_object(Bucket=house.bucket, Key=f"batch/work/{job.job_id}/{name}")
    house.jobs.restart(house.tenant, job.job_id, time())
    house.wake(job.job_id)
    house.part_rows = 3
    house.work(house.worker())
    job = house.job()
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "source_not_found")
    assert house.keys(f"batch/out/{house.tenant}/{model}/{job.job_id}/night.csv") == []


def test_a_part_that_kills_its_workers_fails_the_run_with_a_dead_letter(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(3))), None)
    assert house.step()
    assert house.step(attempts=6)
    job = house.job()
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "job_crashed")
    (letter,) = house.dead_letters()
    assert json.loads(letter["Body"])["job_id"] == job.job_id
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == "job_crashed"
    assert house.told(job)["problem"]["code"] == "job_crashed"


def test_an_end_that_kills_its_workers_fails_the_run_with_a_dead_letter(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(3))), None)
    assert house.step()
    assert house.step()
    assert house.step(attempts=6)
    job = house.job()
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "job_crashed")
    (letter,) = house.dead_letters()
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == "job_crashed"
    # What was done is there for who tries again.
    assert house.keys(f"batch/work/{job.job_id}/out/") != []


def test_a_message_of_a_plan_or_an_end_that_somebody_is_at_is_needed_no_more(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(3))), None)
    job = house.job()
    assert house.jobs.claim(job.job_id, "another", time(), 20).outcome == "claimed"
    house.work()  # also what the sweep sends for a plan that takes long
    assert not house.keys(f"batch/work/{job.job_id}/")
    house.free(job.job_id)
    house.wake(job.job_id)
    assert house.step()
    assert house.step()
    batches = DynamoDBBatches(house.dynamodb, house.aws.stack.resources["JobsTable"].name)
    assert batches.hold(job.job_id, "another", time(), 20)
    house.work()  # the queue becomes empty: waiting here, it would come nearer to the dead letters each time
    assert house.job().state == "running"
    house.free(job.job_id)
    house.wake(job.job_id)
    house.work()
    assert house.job().state == "succeeded"


def test_a_backend_that_is_not_there_is_tried_again_and_then_given_up(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.s3.delete_object(Bucket=house.aws.bucket, Key=f"models/{model}/1/model.onnx")
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(3))), None)
    house.work()
    job = house.job()
    assert job.state == "failed"
    assert len(house.dead_letters()) == 1


def test_what_is_set_for_the_endpoint_meanwhile_changes_no_output(house: BatchHouse) -> None:
    outputs = [tensor("class", DType.INT64, [-1]), tensor("scores", DType.FP32, [-1, 3])]
    model = house.publish(argmax_model(), inputs=[tensor("x", DType.FP32, [-1, 3])], outputs=outputs)
    rows = b"1,2,3\n" * 8
    house.runner(house.drop(model, "night.csv", rows), None)
    assert house.step()
    assert house.step()
    endpoints = DynamoDBEndpoints(house.dynamodb, house.aws.stack.resources["EndpointsTable"].name)
    config = EndpointConfig(model, response=ResponseFilter(outputs=("class",)))
    endpoints.put(StoredEndpoint(config, 1, 1))
    house.work(house.worker())
    lines = house.result(house.job(), "night.csv").splitlines()
    assert len(lines) == 8
    assert len(set(lines)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "[]",
        '{"job_id": "1", "step": "plan"}',
        json.dumps({"job_id": "0" * 32, "step": "dance"}),
        json.dumps({"job_id": "0" * 32, "step": "part", "part": "all"}),
        "[" * 100_000,
    ],
)
def test_a_message_that_nobody_can_read_is_a_dead_letter_with_its_reason_at_once(house: BatchHouse, body: str) -> None:
    house.sqs.send_message(QueueUrl=house.queue_url, MessageBody=body)
    assert house.step()
    assert not house.step()
    (letter,) = house.dead_letters()
    assert letter["Body"] == body
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == "unreadable_message"
    assert "step" in letter["MessageAttributes"]["Detail"]["StringValue"]
    assert letter["MessageAttributes"]["Attempts"]["StringValue"] == "1"


def test_a_message_that_nobody_can_read_waits_for_dead_letters_that_are_away(house: BatchHouse) -> None:
    house.sqs.delete_queue(QueueUrl=house.dead_url)
    house.sqs.send_message(QueueUrl=house.queue_url, MessageBody="no JSON")
    found = house.sqs.receive_message(QueueUrl=house.queue_url, AttributeNames=["All"])["Messages"]
    answer = house.runner(sqs_event(found[0]), None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": found[0]["MessageId"]}]}


def test_a_worker_without_time_gives_its_message_back(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.runner(house.drop(model, "night.csv", csv_of(rows_of(3))), None)
    found = house.sqs.receive_message(QueueUrl=house.queue_url, AttributeNames=["All"])["Messages"]

    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 9_000

    answer = house.runner(sqs_event(found[0]), Context())
    assert answer["batchItemFailures"] == [{"itemIdentifier": found[0]["MessageId"]}]
    house.work()
    assert house.job().state == "succeeded"


def test_results_are_the_tenants_own(house: BatchHouse) -> None:
    model = house.publish(add_model(1.0))
    house.run(house.drop(model, "night.csv", csv_of(rows_of(2))))
    job = house.job()
    assert job.result is not None
    assert isinstance(job.result.stored, ObjectRef)
    assert job.result.stored.key.startswith(f"batch/out/{house.tenant}/{model}/{job.job_id}/")


def test_features_come_from_the_store_and_a_tenant_never_sees_another_s(house: BatchHouse) -> None:
    features = {
        "entity": "customer_id",
        "sets": [{"name": "customer", "input": "x", "fields": [{"feature": "age"}, {"feature": "income"}]}],
    }
    model = house.publish(
        add_model(1, width=3),
        inputs=[tensor("x", DType.FP32, [-1, 3], features=["age", "amount", "income"])],
        outputs=[tensor("y", DType.FP32, [-1, 3])],
        features=features,
    )
    store = DynamoDBFeatures(house.dynamodb, house.aws.stack.resources["FeaturesTable"].name)
    for tenant, name in ((house.tenant, "c-1"), ("another", "c-2")):
        store.put(tenant, [FeatureRecord(EntityKey("customer", name), {"age": 30, "income": 100.5}, 1)])
    content = b"x.amount,customer_id\n9.5,c-1\n1,c-2\n2,c-1\n"
    house.run(house.drop(model, "ids.csv", content, max_error_share="0.4"))
    job = house.job()
    assert job.problem is None
    lines = house.result(job, "ids.csv").decode().splitlines()
    assert lines[1].startswith("31.0,10.5,101.5")
    assert lines[3].startswith("31.0,3.0,101.5")
    assert [(error["row"], error["code"]) for error in house.told(job)["errors"]] == [(1, "feature_missing")]


def test_the_function_is_built_of_what_the_template_gives_it(house: BatchHouse, keep_loggers: None) -> None:
    given = house.aws.stack.functions["BatchRunnerFunction"].environment
    environ = {name: value for name, value in given.items() if value}
    own = {
        "SLUICE_CACHE_DIR": str(house.folder / "cache"),
        "SLUICE_BATCH_QUEUE_URL": house.queue_url,
        "SLUICE_BATCH_DEAD_LETTERS_URL": house.dead_url,
    }
    runner: Any = build({**environ, **own})
    model = house.publish(add_model(1.0))
    house.run(house.drop(model, "night.csv", csv_of(rows_of(3))), worker=runner)
    assert house.job().state == "succeeded"
