"""The door in front of a route, on the stores of the template."""

import json
import logging
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from botocore.session import Session
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shared.adapters.aws import client
from shared.adapters.dynamodb_limits import DynamoDBLimits
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.errors import EmptyBatch
from shared.domain.idempotency import StoredAnswer
from shared.domain.plans import Limits, OnLimiterFailure, Rate
from shared.domain.principal import Principal
from shared.usecases.admit import Admit
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.callers import Callers
from tests.conftest import LocalAws
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import Answer, Function

FAST = Rate(10_000, 10_000)


class Room:
    """A function behind a door, whose route answers with how often it has run."""

    def __init__(self, function: Function, runs: list[bytes]) -> None:
        self._function = function
        self.runs = runs

    def post(
        self, body: Any = None, *, key: str | None = None, principal: Principal, path: str = "/things/a", **headers: str
    ) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            given["idempotency-key"] = key
        route = "/things/{name}"
        body = {"x": 1} if body is None else body
        return self._function("POST", path, route=route, body=body, headers=given, principal=principal)


def caller(key: Rate = FAST, tenant: Rate = FAST, **limits: Any) -> Principal:
    """A tenant of its own for each test."""
    name = f"t-{uuid4().hex[:12]}"
    return Principal(name, "k" * 16, frozenset({"things"}), "demo", Limits(key, tenant, **limits))


def door(local_aws: LocalAws, session: Session, *, limits_url: str | None = None) -> Door:
    names = {name: local_aws.stack.resources[name].name for name in ("LimitsTable", "IdempotencyTable", "DataBucket")}
    dynamodb = client("dynamodb", session=session, endpoint_url=local_aws.url)
    limits = client(
        "dynamodb", session=session, endpoint_url=limits_url or local_aws.url, connect_timeout=0.3, retries=0
    )
    return Door(
        Callers(),
        Admit(DynamoDBLimits(limits, names["LimitsTable"])),
        PowertoolsIdempotency(
            dynamodb,
            names["IdempotencyTable"],
            lambda: client("s3", session=session, endpoint_url=local_aws.url),
            names["DataBucket"],
            24,
        ),
        max_body_bytes=1000,
    )


def room(serve: Serve, log: logging.Logger, the_door: Door) -> Room:
    routes = APIRouter()
    runs: list[bytes] = []

    def work(_principal: Principal, body: bytes) -> StoredAnswer:
        runs.append(body)
        if b"fails" in body:
            raise EmptyBatch.at("/instances", "must hold at least one instance")
        headers = (("content-type", "application/octet-stream"), ("x-run", str(len(runs))))
        return StoredAnswer(201, headers, b"\x00\xff" + str(len(runs)).encode())

    @routes.post("/things/{name}")
    async def things(request: Request, name: str) -> Response:
        return await the_door.serve(request, work, scopes=("things",), model=name)

    return Room(serve(create_app([routes], None, log)), runs)


@pytest.fixture
def a_room(serve: Serve, log: logging.Logger, local_aws: LocalAws, aws_session: Session) -> Room:
    return room(serve, log, door(local_aws, aws_session))


def code(answer: Answer) -> str:
    return str(answer.json["code"])


def test_every_answer_says_how_the_caller_stands(a_room: Room) -> None:
    answer = a_room.post(principal=caller(Rate(1, 5), Rate(2, 10)))
    assert (answer.status, answer.body) == (201, b"\x00\xff1")
    assert answer.headers["ratelimit-policy"] == '"key";q=5;w=5, "tenant";q=10;w=5'
    assert answer.headers["ratelimit"].startswith('"key";r=4;t=')


def test_one_too_many_is_refused_before_its_work(a_room: Room, log_lines: LogLines) -> None:
    who = caller(Rate(0.01, 2))
    answers = [a_room.post(principal=who) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 201, 429]
    assert len(a_room.runs) == 2
    assert code(answers[2]) == "rate_limited"
    assert 90 <= int(answers[2].headers["retry-after"]) <= 100
    assert '"key";r=0;' in answers[2].headers["ratelimit"]
    line = log_lines.requests()[-1]
    assert (line["status"], line["code"], line["tenant"]) == (429, "rate_limited", who.tenant)


def test_a_quota_that_is_used_up_costs_no_call(
    serve: Serve, log: logging.Logger, local_aws: LocalAws, aws_session: Session
) -> None:
    nowhere = door(local_aws, aws_session, limits_url="http://127.0.0.1:1")
    who = caller()
    who = replace(who, limits=who.limits.used_up("daily", 4_000_000_000))
    answer = room(serve, log, nowhere).post(principal=who)
    assert (answer.status, code(answer)) == (429, "quota_exceeded")
    assert int(answer.headers["retry-after"]) > 1_000_000


@pytest.mark.parametrize(("plan", "status"), [(OnLimiterFailure.OPEN, 201), (OnLimiterFailure.CLOSED, 503)])
def test_while_the_limiter_is_away_the_plan_decides(
    serve: Serve,
    log: logging.Logger,
    log_lines: LogLines,
    local_aws: LocalAws,
    aws_session: Session,
    plan: OnLimiterFailure,
    status: int,
) -> None:
    a_room = room(serve, log, door(local_aws, aws_session, limits_url="http://127.0.0.1:1"))
    answer = a_room.post(principal=caller(on_failure=plan))
    assert answer.status == status
    assert log_lines.requests()[-1].get("limiter") == ("open" if status == 201 else None)
    assert "ratelimit" not in answer.headers


def test_a_missing_scope_is_refused_uncounted_and_before_any_replay(a_room: Room) -> None:
    who = caller()
    a_room.post(key="one", principal=who)
    answer = a_room.post(key="one", principal=replace(who, scopes=frozenset({"predict"})))
    assert (answer.status, code(answer)) == (403, "insufficient_scope")


def test_the_same_key_and_payload_get_the_same_answer(a_room: Room, log_lines: LogLines) -> None:
    who, key = caller(), uuid4().hex
    first, second = (a_room.post(key=key, principal=who) for _ in range(2))
    assert (second.status, second.body, len(a_room.runs)) == (first.status, first.body, 1)
    assert second.headers["x-run"] == "1"
    assert second.headers["content-type"] == "application/octet-stream"
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert [line["idempotency"] for line in log_lines.requests()] == ["stored", "replayed"]
    assert {"admit", "idempotency"} <= set(log_lines.requests()[0]["steps_ms"])


@pytest.mark.parametrize(
    "other",
    [
        {"body": {"x": 2}},
        {"content_type": "text/csv"},
        {"accept": "text/csv"},
    ],
)
def test_the_same_key_with_another_payload_is_refused(a_room: Room, other: dict[str, Any]) -> None:
    who, key = caller(), uuid4().hex
    a_room.post(key=key, principal=who)
    answer = a_room.post(key=key, principal=who, **other)
    assert (answer.status, code(answer), len(a_room.runs)) == (422, "idempotency_mismatch", 1)


def test_keys_of_other_tenants_and_models_are_other_keys(a_room: Room) -> None:
    who, key = caller(), uuid4().hex
    bodies = [
        a_room.post(key=key, principal=who).body,
        a_room.post(key=key, principal=caller()).body,
        a_room.post(key=key, principal=who, path="/things/b").body,
    ]
    assert bodies == [b"\x00\xff1", b"\x00\xff2", b"\x00\xff3"]


def test_what_failed_is_not_kept(a_room: Room) -> None:
    who, key = caller(), uuid4().hex
    answers = [a_room.post("fails", key=key, principal=who) for _ in range(2)]
    assert [answer.status for answer in answers] == [422, 422]
    assert len(a_room.runs) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ü"])
def test_a_malformed_key_is_refused(a_room: Room, key: str) -> None:
    answer = a_room.post(key=key, principal=caller())
    assert (answer.status, code(answer), a_room.runs) == (400, "invalid_idempotency_key", [])


def test_a_body_over_the_limit_is_refused(a_room: Room) -> None:
    answer = a_room.post(json.dumps({"x": "y" * 1000}), principal=caller())
    assert (answer.status, code(answer)) == (413, "payload_too_large")
