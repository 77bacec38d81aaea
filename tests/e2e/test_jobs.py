"""Jobs, uploads and batches on the running stack, as callers and operators meet them."""

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from tests.e2e.callers import Callers
from tests.e2e.conftest import ROOT, Sluice

REQUEST = (ROOT / "examples" / "tumor" / "request.json").read_bytes()
LIMIT_S = 120.0


def wait_for(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """What `look` gives once it is good; fails with the last one after `LIMIT_S`."""
    ends = monotonic() + LIMIT_S
    while not good(found := look()):
        assert monotonic() < ends, found
        sleep(0.1)
    return found


def ended(api: httpx.Client, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_for(
        lambda: api.get(f"/v1/jobs/{job_id}").json(),
        lambda document: document.get("state") in {"succeeded", "failed", "cancelled"},
    )
    return found


def submit(api: httpx.Client, body: bytes = REQUEST, key: str | None = None) -> httpx.Response:
    headers = {"Content-Type": "application/json", **({} if key is None else {"Idempotency-Key": key})}
    return api.post("/v1/models/tumor/jobs", content=body, headers=headers)


def test_a_job_gives_what_a_prediction_gives(api: httpx.Client) -> None:
    taken = submit(api)
    assert taken.status_code == 202
    job = ended(api, taken.json()["job_id"])
    right = api.post("/v1/models/tumor/predict", content=REQUEST, headers={"Content-Type": "application/json"}).json()
    assert job["state"] == "succeeded"
    assert taken.headers["location"] == f"/v1/jobs/{job['job_id']}"
    assert job["result"]["document"]["predictions"] == right["predictions"]
    assert api.get(job["result"]["href"]).json()["predictions"] == right["predictions"]
    assert job["job_id"] in {one["job_id"] for one in api.get("/v1/jobs", params={"model": "tumor"}).json()["jobs"]}


def test_one_key_is_one_job_and_it_is_its_tenants_alone(api: httpx.Client, callers: Callers) -> None:
    key = f"job-{monotonic()}"
    first, second = (submit(api, key=key) for _ in range(2))
    assert (second.json()["job_id"], second.headers["idempotency-replayed"]) == (first.json()["job_id"], "true")
    other = callers.caller().client
    for answer in (
        other.get(f"/v1/jobs/{first.json()['job_id']}"),
        other.get(f"/v1/jobs/{first.json()['job_id']}/result"),
        other.delete(f"/v1/jobs/{first.json()['job_id']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_an_upload_is_a_jobs_body(api: httpx.Client, sluice: Sluice, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(REQUEST)
    upload = sluice.json("uploads", "put", str(file), "--media-type", "application/json")
    job = ended(api, submit(api, body=json.dumps({"upload_id": upload["upload_id"]}).encode()).json()["job_id"])
    assert job["state"] == "succeeded"


def test_a_batch_from_the_command_line_keeps_rows_and_order(sluice: Sluice, tmp_path: Path) -> None:
    instances = json.loads(REQUEST)["instances"]
    rows = [instances[number % len(instances)] for number in range(500)]
    names = list(instances[0])
    file, output = tmp_path / "patients.csv", tmp_path / "predictions.csv"
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    lines[101] = ",".join(["nonsense"] * len(names))
    file.write_text("\n".join(lines) + "\n")
    done = sluice.run("batch", "run", "tumor", str(file), "--output", str(output), "--max-error-share", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    header, *answers = output.read_text().splitlines()
    assert (len(answers), header.rpartition(",")[2]) == (500, "error")
    assert [number for number, line in enumerate(answers) if "wrong_dtype" in line] == [100]
    kinds = {number % len(instances): line for number, line in enumerate(answers) if number != 100}
    assert all(line == kinds[number % len(instances)] for number, line in enumerate(answers) if number != 100)
