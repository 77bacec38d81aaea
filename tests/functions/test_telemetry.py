"""Telemetry: events as CloudWatch Logs sends them, on the stores of the template."""

import base64
import gzip
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import CloudWatchLogsEvent
from fastapi import APIRouter, Request

from functions.authorizer.bootstrap import authorizer
from functions.telemetry import bootstrap
from functions.telemetry.bootstrap import Handler, telemetry
from functions.telemetry.log_event import NotALogEvent, read_event
from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import REGION
from shared.adapters.dynamodb_audit import DynamoDBAuditTrail
from shared.adapters.dynamodb_traffic import DynamoDBTraffic
from shared.adapters.dynamodb_usage import DynamoDBUsage
from shared.adapters.s3_anchors import S3Anchors
from shared.domain.audit import Segment, shard_of
from shared.domain.cost import RequestCosts
from shared.domain.credentials import new_key
from shared.domain.endpoint.traffic_counts import Traffic, traffic_in
from shared.domain.errors import BackendUnavailable, Unauthenticated
from shared.domain.prices import LIST_PRICES
from shared.domain.request_line import AuthorizationLine, RequestLine, parse_line
from shared.usecases.authorize import Authorize
from shared.usecases.read_audit import verify_shard
from shared.usecases.record_lines import RecordLines
from shared.web.app import create_app
from shared.web.metrics import RequestMetrics
from shared.web.middleware import Observed
from shared.web.requests import record_of
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws
from tests.fakes import InMemoryKeys, InMemoryTenants
from tests.faults import BROKEN, LOST, THROTTLED, FaultProxy
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import LambdaContextStub
from tests.log_lines import NOON, InMemoryLedger, authorization, batch, request, subscription

CONTEXT = LambdaContextStub()
MIB = 1024 * 1024
DAY = date(2026, 11, 21)

# ------------------------------------------------------------------------------------ events


def test_an_event_is_what_powertools_reads() -> None:
    made = batch(request(code="ü"), authorization(), stream="2026/11/21/[$LATEST]é")
    event = subscription(made)
    parsed = CloudWatchLogsEvent(event).parse_logs_data()
    found = read_event(event, MIB)
    assert found == made
    assert (parsed.log_group, parsed.log_stream) == (made.group, made.stream)
    assert [line.get_id for line in parsed.log_events] == [line.id for line in made.events]
    assert [line.message for line in parsed.log_events] == [line.text for line in made.events]
    assert made.events[0].time == NOON


def test_a_control_message_is_no_batch() -> None:
    assert read_event(subscription(batch("CWL CONTROL MESSAGE"), "CONTROL_MESSAGE"), MIB) is None


def packed(document: Any) -> dict[str, Any]:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"awslogs": {"data": base64.b64encode(gzip.compress(content)).decode()}}


LINE = {"id": "1", "timestamp": 1, "message": "m"}


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        None,
        {"awslogs": {}},
        {"awslogs": {"data": 3}},
        {"awslogs": {"data": "no base64!"}},
        {"awslogs": {"data": base64.b64encode(b"no gzip").decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(b"{}")[:-9]).decode()}},
        packed(b"not JSON"),
        packed([]),
        packed({}),
        packed({"messageType": "DATA_MESSAGE", "logEvents": [{"id": 1}]}),
        packed({"messageType": "DATA_MESSAGE", "logEvents": [LINE | {"timestamp": -1}]}),
        packed({"messageType": "DATA_MESSAGE", "logEvents": [LINE | {"timestamp": 10**15}]}),
        packed({"messageType": "DATA_MESSAGE", "logEvents": [LINE | {"message": None}]}),
        packed(b'{"messageType": "DATA_MESSAGE", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
)
def test_what_cloudwatch_does_not_send_is_refused(event: Any) -> None:
    with pytest.raises(NotALogEvent):
        read_event(event, MIB)


def test_a_batch_has_a_most_of_bytes() -> None:
    made = batch("x" * 1000)
    size = len(gzip.decompress(base64.b64decode(subscription(made)["awslogs"]["data"])))
    assert read_event(subscription(made), size) == made
    with pytest.raises(NotALogEvent, match="SLUICE_MAX_BATCH_BYTES"):
        read_event(subscription(made), size - 1)
    with pytest.raises(NotALogEvent, match="SLUICE_MAX_BATCH_BYTES"):
        read_event(packed(bytes(200 * MIB)), MIB)  # a bomb: never unpacked


# ------------------------------------------------------------------------------------- lines


def test_what_the_functions_write_is_what_is_read(serve: Serve, log: logging.Logger, log_lines: LogLines) -> None:
    router = APIRouter()

    @router.get("/v1/models/{model}")
    def route(request: Request, model: str) -> dict[str, str]:
        record = record_of(request.scope)
        if model == "closed":
            raise Unauthenticated("Nobody vouches for the caller.")
        record.log.update(tenant="acme", key_id="k1")
        record.steps["run"] = 1.25
        record.log.update(model=model, version=3, variant="main", backend="function", rows=2, prediction_id="p-1")
        if model == "broken":
            raise RuntimeError("a fault of ours")
        return {"model": model}

    calls: dict[str, int] = {"dynamodb.UpdateItem": 1}
    costs = RequestCosts(LIST_PRICES, 1769, "x86_64")
    observed = Observed(metrics=RequestMetrics("Sluice"), calls=lambda: calls, costs=costs)
    function = serve(create_app([router], None, log, observed))
    assert function("GET", "/v1/models/tumor", route="/v1/models/{model}").status == 200
    assert function("GET", "/v1/models/broken", route="/v1/models/{model}").status == 500
    assert function("GET", "/v1/models/closed", route="/v1/models/{model}").status == 401
    answered, failed, refused = (
        parse_line(json.dumps(line)) for line in log_lines.lines if line["message"] == "request"
    )
    assert isinstance(answered, RequestLine)
    assert (answered.tenant, answered.model, answered.version, answered.rows) == ("acme", "tumor", 3, 2)
    assert answered.steps_ms == {"run": 1.25}
    assert answered.cost_nusd > 0
    assert isinstance(failed, RequestLine)
    assert (failed.status, failed.code, failed.tenant) == (500, "internal", "acme")
    assert isinstance(refused, RequestLine)
    assert (refused.status, refused.tenant) == (401, None)


def test_what_the_authorizer_writes_is_what_is_read(log: logging.Logger, log_lines: LogLines) -> None:
    pepper = b"pepper"
    text, key = new_key("acme", frozenset({"predict"}), pepper, now=1)
    handler = authorizer(Authorize(InMemoryKeys(key), InMemoryTenants(), lambda: pepper), log)
    for credential in (f"Bearer {text}", f"Bearer {text[:-1]}!"):
        handler({"identitySource": [credential]}, None)
    for line in log_lines.lines:
        assert isinstance(parse_line(json.dumps(line)), AuthorizationLine)


# ----------------------------------------------------------------------------------- handler


def _no_anchor(_segment: Segment) -> bool:
    return False


def test_a_batch_makes_one_line(log: logging.Logger, log_lines: LogLines) -> None:
    ledger = InMemoryLedger()
    handler = telemetry(RecordLines(ledger, 4), _no_anchor, log, MIB)
    made = batch(request(), "END", request(status="ok"))
    handler(subscription(made), CONTEXT)
    handler(subscription(made), CONTEXT)
    first, second = log_lines.lines
    assert {name: first[name] for name in ("level", "message", "records", "skipped", "unreadable", "seq")} == {
        "level": "WARNING",  # for the line that could not be read
        "message": "batch recorded",
        "records": 2,
        "skipped": 1,
        "unreadable": 1,
        "seq": 1,
    }
    assert first["shard"] == shard_of(made.stream, 4)
    assert (first["batch"], first["ms"] >= 0) == (made.id, True)
    assert (second["records"], second["duplicates"], second["seq"]) == (0, 2, None)


def test_its_own_log_and_control_messages_are_left_alone(log: logging.Logger, log_lines: LogLines) -> None:
    ledger = InMemoryLedger()
    handler = telemetry(RecordLines(ledger, 4), _no_anchor, log, MIB)
    handler(subscription(batch(request(), group=CONTEXT.log_group_name)), CONTEXT)
    handler(subscription(batch("probe"), "CONTROL_MESSAGE"), CONTEXT)
    assert ledger.chains == {}
    assert log_lines.lines == []  # one would make the next batch, and that the next line


def test_an_anchor_that_fails_is_told_and_fails_nothing(log: logging.Logger, log_lines: LogLines) -> None:
    def anchor(_segment: Segment) -> bool:
        raise BackendUnavailable("The store of anchors cannot be reached.")

    ledger = InMemoryLedger()
    telemetry(RecordLines(ledger, 1), anchor, log, MIB)(subscription(batch(request())), CONTEXT)
    assert len(ledger.chains["0"]) == 1
    error, done = log_lines.lines
    assert (error["level"], error["message"], error["seq"]) == ("ERROR", "segment not anchored", 1)
    assert done["anchored"] is False


# ------------------------------------------------------------------------------- real stores


class Stores:
    """What telemetry writes to."""

    def __init__(self, local_aws: LocalAws) -> None:
        session, resources = isolated_session(), local_aws.stack.resources
        dynamodb = local_client(session, "dynamodb", local_aws.url)
        self.trail = DynamoDBAuditTrail(dynamodb, resources["AuditTable"].name)
        self.usage = DynamoDBUsage(dynamodb, resources["UsageTable"].name)
        self.traffic = DynamoDBTraffic(dynamodb, resources["TrafficTable"].name)
        self.anchors = S3Anchors(local_client(session, "s3", local_aws.url), resources["AuditBucket"].name)
        self.environment = {
            "SLUICE_AUDIT_TABLE": resources["AuditTable"].name,
            "SLUICE_USAGE_TABLE": resources["UsageTable"].name,
            "SLUICE_TRAFFIC_TABLE": resources["TrafficTable"].name,
            "SLUICE_AUDIT_BUCKET": resources["AuditBucket"].name,
        }

    def requests(self, tenant: str) -> int:
        return sum(row.usage.requests for row in self.usage.of_tenant(tenant, DAY, DAY) if row.model is None)

    def shown(self, endpoint: str) -> Traffic:
        return traffic_in(self.traffic.of_endpoint(endpoint, DAY, DAY))


@pytest.fixture
def stores(local_aws: LocalAws) -> Stores:
    return Stores(local_aws)


Make = Callable[..., Handler]


@pytest.fixture
def make(stores: Stores, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, keep_loggers: None) -> Make:
    """The handler as its composition root makes it, in an environment of its own."""
    for name, value in {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)

    def make(url: str = local_aws.url, **environment: str) -> Handler:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        return bootstrap.build(stores.environment | environment)

    return make


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_batch_becomes_usage_audit_and_an_anchor(
    make: Make, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant, stream = unique("t"), unique("stream")
    made = batch(
        request(tenant=tenant, inputs={"secret": [1]}), authorization(tenant=tenant), request(tenant=7), stream=stream
    )
    # A stream of a shard of this test alone: 64 of them, and other tests use the first four.
    handler = make(SLUICE_AUDIT_SHARDS="1")
    handler(subscription(made), CONTEXT)
    (line,) = said(capsys)
    assert (line["records"], line["unreadable"], line["shard"]) == (3, 1, "0")
    day, of_model = stores.usage.of_tenant(tenant, DAY, DAY)
    assert (day.model, of_model.model, day.usage == of_model.usage) == (None, "tumor", True)
    assert (day.usage.requests, day.usage.rows, day.usage.model_us, day.usage.cost_nusd) == (1, 2, 1500, 700)
    (segment,) = stores.trail.segments("0", after=line["seq"] - 1)
    assert segment.batch == made.id
    assert b"secret" not in gzip.decompress(segment.records)
    report = verify_shard(stores.trail, stores.anchors, "0")
    assert list(report.breaches) == []
    assert report.anchored >= 1  # the first segment of the shard, by whichever test


def test_writers_at_once_and_batches_twice_make_one_linear_chain(make: Make, stores: Stores) -> None:
    tenant, model = unique("t"), unique("m")
    shadow = {"variant": "next", "state": "compared", "ms": 1, "primary_ms": 1, "rows": 2, "agreeing": 1}
    batches = [
        batch(*[request(tenant=tenant, model=model, rows=number, shadow=shadow)] * 3, stream=unique("stream"))
        for number in range(16)
    ]
    handlers = [make(SLUICE_AUDIT_SHARDS="1") for _ in range(8)]
    before = stores.trail.head("0")

    def deliver(job: tuple[int, Mapping[str, Any]]) -> None:
        number, event = job
        handlers[number % 8](event, CONTEXT)

    # Every batch twice, to two environments, at about the same time.
    jobs = [(number + turn, subscription(made)) for number, made in enumerate(batches) for turn in (0, 1)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        for done in [pool.submit(deliver, job) for job in jobs]:
            done.result()
    (day, _) = stores.usage.of_tenant(tenant, DAY, DAY)
    assert day.usage.requests == 48
    assert day.usage.rows == 3 * sum(range(16))
    shown = stores.shown(model)
    assert shown.variants["main"].requests == 48
    assert (shown.shadows["next"].copied, shown.shadows["next"].agreement_rate) == (48, 0.5)
    head = stores.trail.head("0")
    assert head is not None
    assert head.seq == (before.seq if before else 0) + 16
    written = list(stores.trail.segments("0", after=head.seq - 16))
    assert sorted(segment.batch for segment in written) == sorted(made.id for made in batches)
    assert list(verify_shard(stores.trail, stores.anchors, "0").breaches) == []


def test_what_was_written_and_not_confirmed_is_not_written_again(
    make: Make, stores: Stores, local_aws: LocalAws
) -> None:
    tenant, model, made = unique("t"), unique("m"), []
    with FaultProxy(local_aws.url) as proxy:
        handler = make(proxy.url, SLUICE_AUDIT_SHARDS="1")
        for fault in (LOST, BROKEN, THROTTLED):
            event = subscription(batch(request(tenant=tenant, model=model), stream=unique("stream")))
            proxy.fail(fault, operation="TransactWriteItems")
            with pytest.raises(BackendUnavailable):  # Lambda delivers it again, perhaps to another environment
                handler(event, CONTEXT)
            proxy.heal()
            made.append(event)
        assert stores.requests(tenant) == 1  # of the one whose answer was lost
        assert stores.shown(model).variants["main"].requests == 1
        for event in made * 2:
            handler(event, CONTEXT)
    assert stores.requests(tenant) == 3
    assert stores.shown(model).variants["main"].requests == 3
    assert list(verify_shard(stores.trail, stores.anchors, "0").breaches) == []


def test_a_retry_of_the_client_counts_once(
    make: Make, stores: Stores, local_aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant = unique("t")
    with FaultProxy(local_aws.url) as proxy:
        handler = make(proxy.url, SLUICE_AUDIT_SHARDS="1")
        proxy.fail(LOST, operation="TransactWriteItems", times=1)
        handler(subscription(batch(request(tenant=tenant))), CONTEXT)
    assert stores.requests(tenant) == 1
    assert said(capsys)[0]["duplicates"] == 1


def test_no_bucket_for_anchors_stops_no_batch(make: Make, stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    tenant = unique("t")
    handler = make(SLUICE_AUDIT_BUCKET="no-such-bucket-anywhere", SLUICE_AUDIT_SHARDS="1")
    handler(subscription(batch(request(tenant=tenant))), CONTEXT)
    assert stores.requests(tenant) == 1
    assert [line["message"] for line in said(capsys)] == ["segment not anchored", "batch recorded"]


_IMPORT = """
import json, sys
import functions.telemetry.handler
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_cold_start_imports_no_framework(stores: Stores) -> None:
    environment = {"PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": REGION, **stores.environment}
    command = [sys.executable, "-W", "error", "-c", _IMPORT]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout))
    heavy = {"numpy", "fastapi", "starlette", "pydantic", "mangum", "boto3", "aws_lambda_powertools", "cryptography"}
    assert imported & heavy == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLUICE_AUDIT_SHARDS", "65"), ("SLUICE_ANCHOR_SECONDS", "soon"), ("SLUICE_MAX_BATCH_BYTES", "0")],
)
def test_a_bad_setting_stops_the_start_with_its_name(make: Make, name: str, value: str) -> None:
    with pytest.raises(Exception, match=name):
        make(**{name: value})
