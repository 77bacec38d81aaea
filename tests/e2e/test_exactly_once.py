"""`Idempotency-Key` over HTTP: one effect and one answer, also when a function is killed in the middle."""

import os
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from infra.local.aws_client import isolated_session, local_client
from tests.e2e.callers import Callers, lines
from tests.e2e.conftest import Sluice
from tests.models import slow_model

pytestmark = pytest.mark.e2e

CLIENTS = 32
SLOW = "/v1/models/patience/predict"
# Counted up one by one: some seconds of work on a core.
WORK = b'{"instances": [[2000000]]}'


@pytest.fixture(scope="module")
def slow(sluice: Sluice, tmp_path_factory: pytest.TempPathFactory) -> None:
    graph: Path = tmp_path_factory.mktemp("slow") / "patience.onnx"
    graph.write_bytes(slow_model())
    sluice.json("publish", str(graph))


def busy(sluice: Sluice) -> dict[int, int]:
    """Process → invocation of each environment of the predict function that is at work."""
    status = httpx.get(f"{sluice.local['lambda_url']}/_sluice/status", timeout=10).json()
    (predict,) = (entry for entry in status["functions"] if entry["logical_id"] == "PredictFunction")
    return {one["pid"]: one["invocations"] for one in predict["environments"] if one["state"] == "busy"}


def process_at_work(sluice: Sluice) -> int:
    """The one environment that is still at the same invocation after most of a second."""
    deadline = monotonic() + 20
    before = busy(sluice)
    while monotonic() < deadline:
        sleep(0.8)
        now = busy(sluice)
        if same := [pid for pid, invocation in now.items() if before.get(pid) == invocation]:
            assert len(same) == 1
            return same[0]
        before = now
    raise AssertionError("no environment is at work")


def persistent(url: str, authorization: str, key: str, together: Barrier) -> list[httpx.Response]:
    """All answers that a client gets which sends the same request until it has a 200; follows `Retry-After`."""
    headers = {"Authorization": authorization, "Idempotency-Key": key, "Content-Type": "application/json"}
    seen: list[httpx.Response] = []
    with httpx.Client(base_url=url, headers=headers, timeout=40) as client:
        together.wait(20)
        while not seen or seen[-1].status_code != 200:
            if seen:
                sleep(int(seen[-1].headers.get("Retry-After", 1)))
            seen.append(client.post(SLOW, content=WORK))
            assert len(seen) < 60
    return seen


@pytest.mark.usefixtures("slow")
@pytest.mark.timeout(180)
def test_32_clients_and_a_killed_function_end_with_one_answer(sluice: Sluice, callers: Callers) -> None:
    caller, key, together = callers.caller(), uuid.uuid4().hex, Barrier(CLIENTS)
    arguments = (sluice.local["api_url"], caller.client.headers["Authorization"], key, together)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(persistent, *arguments) for _ in range(CLIENTS)]
        os.kill(process_at_work(sluice), signal.SIGKILL)
        answers = [client.result(120) for client in clients]

    last = [seen[-1] for seen in answers]
    assert len({answer.content for answer in last}) == 1
    assert last[0].json()["predictions"] == [[4_000_000.0]]
    assert len({answer.headers["x-prediction-id"] for answer in last}) == 1
    # One client's request made the answer, and every other one got it as a replay.
    assert [answer.headers.get("idempotency-replayed") for answer in last].count(None) == 1
    before = [answer for seen in answers for answer in seen[:-1]]
    # One saw the end of the killed process, the others "it is being answered"; a busy machine may also have said 503.
    others = [answer.status_code for answer in before if answer.status_code != 409]
    assert others.count(500) == 1
    assert set(others) <= {500, 503}
    waits = [answer for answer in before if answer.status_code == 409]
    assert {answer.json()["code"] for answer in waits} == {"idempotency_in_flight"}
    assert {int(answer.headers["retry-after"]) for answer in waits} <= set(range(1, 6))
    (stored,) = records(sluice, caller.tenant, key)
    assert stored["status"]["S"] == "COMPLETED"


def records(sluice: Sluice, tenant: str, key: str) -> list[dict[str, Any]]:
    from shared.domain.idempotency import IdempotencyScope, record_id

    client = local_client(isolated_session(), "dynamodb", sluice.local["aws_endpoint_url"])
    (table,) = (name for name in client.list_tables()["TableNames"] if "Idempotency" in name)
    name = record_id(IdempotencyScope(tenant, "POST /v1/models/{model}/predict", "patience"), key)
    found: list[dict[str, Any]] = client.scan(TableName=table)["Items"]
    return [item for item in found if item["id"]["S"] == name]


def test_a_key_belongs_to_one_payload_one_tenant_one_route_and_one_model(callers: Callers) -> None:
    caller, stranger = callers.caller(), callers.caller()
    colleague = callers.caller(caller.tenant)
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = caller.predict(key)
    assert (first.status_code, first.headers.get("idempotency-replayed")) == (200, None)

    again = caller.predict(key)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert colleague.predict(key).content == first.content

    for refused in (caller.predict(key, body=b'{"instances": []}'), caller.predict({**key, "Accept": "text/csv"})):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_mismatch")
    for separate in (stranger.predict(key), caller.predict(key, path="/v1/models/tumor/versions/1/predict")):
        assert separate.status_code == 200
        assert "idempotency-replayed" not in separate.headers
        assert separate.json()["prediction_id"] != first.json()["prediction_id"]


def test_a_refused_request_frees_its_key(callers: Callers) -> None:
    caller, key = callers.caller(), {"Idempotency-Key": uuid.uuid4().hex}
    assert caller.predict(key, body=b'{"instances": []}').status_code == 422
    answer = caller.predict(key)
    assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (200, None)


def test_a_key_that_is_none_is_refused(callers: Callers) -> None:
    answer = callers.caller().predict({"Idempotency-Key": "with space"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


def test_aws_calls_are_one_plain_three_with_a_key_and_two_for_a_replay(sluice: Sluice, callers: Callers) -> None:
    caller = callers.caller()

    def calls(key: str | None) -> dict[str, int]:
        answer = caller.predict(None if key is None else {"Idempotency-Key": key})
        assert answer.status_code == 200
        (line,) = lines(sluice, "PredictFunction", answer.headers["x-request-id"])
        if line.get("limiter") == "open":  # the machine was too busy to count the request in time
            return {"none": 1000}
        assert line["model"] == "tumor"
        return dict(line["aws_calls"])

    def fewest(keys: list[str | None]) -> dict[str, int]:
        """Of a warm environment: one that is not also reads the models and the endpoint's settings."""
        return min((calls(key) for key in keys), key=lambda counts: sum(counts.values()))

    keys = [uuid.uuid4().hex for _ in range(8)]
    assert fewest([None] * 8) == {"dynamodb.UpdateItem": 1}
    assert fewest([*keys]) == {"dynamodb.UpdateItem": 2, "dynamodb.PutItem": 1}
    assert fewest([*keys]) == {"dynamodb.UpdateItem": 1, "dynamodb.PutItem": 1}
