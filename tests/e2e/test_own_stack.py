"""What needs a stack of its own: functions remember who a signed caller is and what an endpoint logs, and a damaged
audit trail stays damaged.
"""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.local.aws_client import ACCESS_KEY, SECRET_KEY, isolated_session, local_client
from infra.local.gateway.sigv4 import SERVICE, USER_ARN
from infra.local.stack import REGION
from tests.e2e.callers import PREDICT, TUMOR, Callers, lines, until
from tests.e2e.conftest import Sluice, make_sluice

pytestmark = pytest.mark.e2e

SIGNED_PATH = "/iam/v1/models/tumor/predict"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    command = make_sluice(tmp_path_factory.mktemp("own") / "home")
    started = command.run("up", "--detach", timeout=150)
    assert started.returncode == 0, started.stdout + started.stderr
    yield command
    stopped = command.run("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


@pytest.fixture(scope="module")
def callers(own: Sluice) -> Iterator[Callers]:
    headers = {"Authorization": f"Bearer {own.local['admin_key']}"}
    with httpx.Client(base_url=own.local["api_url"], headers=headers, timeout=40) as admin:
        callers = Callers(own, admin)
        with callers.opened:
            yield callers


def forget(own: Sluice) -> None:
    """End the environments of the predict function, and with them all that they remember."""

    def environments() -> list[int]:
        status = httpx.get(f"{own.local['lambda_url']}/_sluice/status", timeout=10).json()
        (predict,) = (entry for entry in status["functions"] if entry["logical_id"] == "PredictFunction")
        return [one["pid"] for one in predict["environments"]]

    before = environments()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert until(lambda: not set(before) & set(environments()))


def signed(own: Sluice, *, body: bytes = TUMOR, sent: bytes | None = None, secret: str = SECRET_KEY) -> httpx.Response:
    """The answer to a POST that is signed for `body`, as any AWS SDK does it, and sent with `sent`."""
    url = own.local["api_url"] + SIGNED_PATH
    request = AWSRequest("POST", url, {"Content-Type": "application/json"}, body)
    SigV4Auth(Credentials(ACCESS_KEY, secret), SERVICE, REGION).add_auth(request)
    return httpx.post(url, content=body if sent is None else sent, headers=dict(request.headers.items()), timeout=40)


def test_a_signed_caller_is_let_in_once_a_tenant_has_bound_it(own: Sluice, callers: Callers) -> None:
    tenant = callers.tenant()
    stranger = signed(own)
    assert (stranger.status_code, stranger.json()["code"]) == (403, "refused")

    bound = own.json("keys", "bind-role", USER_ARN, "--tenant", tenant, "--scopes", "predict:tumor")
    assert bound["key_id"] == f"iam#{USER_ARN}"
    forget(own)
    answer = signed(own)
    assert (answer.status_code, answer.json()["model"]["name"]) == (200, "tumor")
    assert answer.headers["ratelimit"].startswith('"key";r=999;')
    (line,) = lines(own, "PredictFunction", answer.headers["x-request-id"])
    assert (line["tenant"], line["key_id"]) == (tenant, f"iam#{USER_ARN}")
    used = f"/v1/admin/tenants/{tenant}/usage"
    # The caller that nobody had bound belongs to no tenant.
    assert until(lambda: callers.admin.get(used).json()["today"]["used"] == 1)

    for refused in (
        httpx.post(own.local["api_url"] + SIGNED_PATH, content=TUMOR, timeout=40),
        signed(own, sent=TUMOR + b" "),
        signed(own, secret="another"),
        callers.caller(tenant).predict(path=SIGNED_PATH),
    ):
        assert (refused.status_code, refused.json()) == (403, {"message": "Forbidden"})

    own.json("keys", "revoke", USER_ARN)
    forget(own)
    assert signed(own).status_code == 403


def test_every_request_leaves_one_line_and_no_inputs(own: Sluice, callers: Callers) -> None:
    caller = callers.caller()
    rows = [[1234.5678] * 30]
    sent = {
        "predict": caller.predict(body=json.dumps({"instances": rows}).encode()),
        "invalid": caller.predict(body=b'{"instances": [["no-number-at-all"]]}'),
        "unknown": caller.predict(path="/v1/models/nothing/predict"),
        "forbidden": callers.caller(caller.tenant, ["jobs"]).predict(),
        "v2": caller.client.get("/v2/models/tumor"),
    }
    statuses = {"predict": 200, "invalid": 422, "unknown": 404, "forbidden": 403, "v2": 200}
    assert {name: answer.status_code for name, answer in sent.items()} == statuses
    found = {}
    for name, answer in sent.items():
        (found[name],) = lines(own, "PredictFunction", answer.headers["x-request-id"])
        assert (found[name]["tenant"], found[name]["status"]) == (caller.tenant, answer.status_code)
        assert found[name]["trace_id"].startswith("1-")
        assert found[name]["cost_nusd"] > 0
    line = found["predict"]
    assert (line["key_id"], line["model"], line["version"], line["rows"]) == (caller.key_id, "tumor", 1, 1)
    assert (line["variant"], line["backend"], line["code"]) == ("main", "function", "ok")
    assert {"admit", "route", "decode", "run", "encode"} <= line["steps_ms"].keys()
    assert line["aws_calls"]["dynamodb.UpdateItem"] >= 1
    assert line["prediction_id"] == sent["predict"].json()["prediction_id"]
    assert not {"inputs", "outputs"} & line.keys()
    assert (found["unknown"]["code"], found["forbidden"]["code"]) == ("model_not_found", "insufficient_scope")
    log = (own.home / "logs/PredictFunction.log").read_text()
    assert "1234.5" not in log
    assert "no-number-at-all" not in log

    changed = callers.admin.get("/v1/admin/plans/default")
    (line,) = lines(own, "AdminFunction", changed.headers["x-request-id"])
    assert (line["route"], line["tenant"]) == ("GET /v1/admin/plans/{plan}", "demo")
    listed = caller.client.get("/v1/models")
    (line,) = lines(own, "ApiFunction", listed.headers["x-request-id"])
    assert (line["route"], line["tenant"]) == ("GET /v1/models", caller.tenant)


def test_inputs_are_logged_where_the_endpoint_asks_and_what_is_redacted_is_not(own: Sluice, callers: Callers) -> None:
    features = callers.admin.get("/v1/models/tumor").json()["signature"]["inputs"][0]["features"]
    redacted, shown = features[0], features[1]
    settings = {"logging": {"inputs": 1, "redact": [redacted]}}
    before = {"If-Match": callers.admin.get("/v1/admin/endpoints/tumor").headers["etag"]}
    put = callers.admin.put("/v1/admin/endpoints/tumor", json=settings, headers=before)
    assert (put.status_code, put.json()["logging"]["inputs"]) == (200, 1)
    assert callers.admin.put("/v1/admin/endpoints/tumor", json=settings, headers=before).status_code == 412
    forget(own)
    answer = callers.caller().predict(body=json.dumps({"instances": [[77.25, 88.5, *[1.0] * 28]]}).encode())
    assert answer.status_code == 200, answer.text
    (line,) = lines(own, "PredictFunction", answer.headers["x-request-id"])
    ((row,),) = line["inputs"].values()
    assert (row[redacted], row[shown]) == ("[redacted]", 88.5)
    assert "outputs" not in line
    assert "77.25" not in (own.home / "logs/PredictFunction.log").read_text()


def test_the_audit_trail_names_what_was_asked_and_where_it_was_damaged(own: Sluice, callers: Callers) -> None:
    caller = callers.caller()
    answer = caller.predict()
    refused = callers.client(f"sluice_{caller.key_id}_{'a' * 52}").post(PREDICT, content=TUMOR)
    assert (answer.status_code, refused.status_code) == (200, 403)

    def records(*options: str) -> list[dict[str, Any]]:
        return list(own.json("audit", "show", "--since", "1h", *options)["records"])

    def prediction() -> list[dict[str, Any]]:
        identity = answer.headers["x-request-id"]
        return [one for one in records("--tenant", caller.tenant) if one["request_id"] == identity]

    assert until(lambda: len(prediction()) == 2), records()
    kinds = {record["kind"]: record for record in prediction()}
    assert kinds["authorization"]["authorized"] is True
    request = kinds["request"]
    assert (request["route"], request["model"], request["status"]) == ("POST /v1/models/{model}/predict", "tumor", 200)
    assert request["key_id"] == caller.key_id
    assert any(one.get("reason") == "wrong_secret" and one["key_id"] == caller.key_id for one in records())
    assert any(one.get("target") == f"key:{caller.key_id}" for one in records())

    verified = own.run("audit", "verify")
    assert verified.returncode == 0, verified.stderr

    local = own.local
    client = local_client(isolated_session(), "dynamodb", local["aws_endpoint_url"])
    table = local["outputs"]["AuditTableName"]
    segments = [item for item in client.scan(TableName=table)["Items"] if "records" in item]
    damaged = max(segments, key=lambda item: int(item["seq"]["N"]))
    key = {name: damaged[name] for name in ("shard", "seq")}
    client.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET #records = :other",
        ExpressionAttributeNames={"#records": "records"},
        ExpressionAttributeValues={":other": segments[0]["records"]},
    )
    verified = own.run("audit", "verify")
    assert verified.returncode == 1
    assert f"shard {key['shard']['S']}, segment {key['seq']['N']}:" in verified.stderr
    shown = own.json("audit", "show", "--since", "1h")
    assert {"shard": key["shard"]["S"], "seq": int(key["seq"]["N"])} in shown["damaged"]
