import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.request_line import (
    MAX_SKEW,
    AuthorizationLine,
    ExposureMember,
    LogBatch,
    LogEvent,
    RequestLine,
    ShadowMember,
    UnreadableLine,
    parse_line,
    time_of,
)
from shared.web.logs import JsonFormatter
from tests.log_lines import NOON, authorization, batch, entry, request


def test_a_request_line_is_read() -> None:
    line = parse_line(request(inputs={"x": [1, 2]}, _aws={"CloudWatchMetrics": []}))
    assert isinstance(line, RequestLine)
    assert (line.tenant, line.key_id, line.model, line.version, line.rows) == ("acme", "k1", "tumor", 3, 2)
    assert line.steps_ms == {"decode": 0.1, "run": 1.5}
    assert line.timestamp == NOON
    assert not hasattr(line, "inputs")


def test_what_routing_adds_is_read() -> None:
    line = parse_line(
        request(
            experiment={"name": "colour", "arm": "b", "unit": "0123456789abcdef"},
            shadow={"variant": "next", "version": 4, "backend": "function", "state": "failed", "ms": 1, "code": "x"},
            fallback="variant=small",
            reason="circuit_open",
            cache="stale",
            features={"sets": 1},
        )
    )
    assert isinstance(line, RequestLine)
    assert line.exposure == ExposureMember("colour", "b", "0123456789abcdef")
    assert line.copied == ShadowMember("next", "failed", 1.0)
    assert (line.stand_in, line.why, line.kept) == ("variant=small", "circuit_open", "stale")


@pytest.mark.parametrize(
    "member",
    [
        {"experiment": 3},
        {"experiment": {"name": "colour", "arm": "b"}},
        {"experiment": {"name": "colour", "arm": "b", "unit": "somebody@example"}},
        {"experiment": {"name": "x" * 33, "arm": "b", "unit": "0" * 16}},
        {"experiment": {"name": "colour\n", "arm": "b", "unit": "0" * 16}},
        {"shadow": {"variant": "next", "state": "lost"}},
        {"shadow": {"variant": "next", "state": "compared", "rows": -1}},
        {"shadow": {"variant": "next", "state": "compared", "distance": "far"}},
        {"shadow": {"variant": "a#b", "state": "dropped"}},
        {"shadow": [[[[[[]]]]]]},
        {"fallback": 7},
        {"fallback": "variant=A#b"},
        {"fallback": "other"},
        {"reason": "x" * 65},
        {"reason": {"code": "x"}},
        {"cache": "HIT"},
    ],
)
def test_a_damaged_member_is_as_if_it_were_not_there(member: dict[str, object]) -> None:
    line = parse_line(request(**member))
    assert isinstance(line, RequestLine)
    assert (line.tenant, line.rows) == ("acme", 2)
    assert (line.exposure, line.copied, line.stand_in, line.why, line.kept) == (None,) * 5


def test_an_authorization_line_is_read() -> None:
    line = parse_line(authorization(authorized=False, reason="expired", tenant=None))
    assert isinstance(line, AuthorizationLine)
    assert (line.authorized, line.reason, line.tenant) == (False, "expired", None)


def test_what_the_functions_log_is_read() -> None:
    record = logging.LogRecord("functions.predict", logging.INFO, "", 0, "request", (), None)
    record.fields = {"request_id": "r", "route": "GET /health", "status": 200, "code": "ok", "ms": 0.1}
    line = parse_line(JsonFormatter("predict").format(record))
    assert isinstance(line, RequestLine)
    assert line.tenant is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "START RequestId: 8f5a Version: $LATEST",
        "[1, 2]",
        '"request"',
        "{}",
        '{"message": "batch recorded"}',
        '{"message": 3}',
        '{"message": ["request"]}',
        '{"type": "platform.report", "record": {"status": "success"}}',
    ],
)
def test_a_line_of_somebody_else_is_none(text: str) -> None:
    assert parse_line(text) is None


@pytest.mark.parametrize(
    "text",
    [
        request()[:-1],
        request(status="200"),
        request(status=-1),
        request(tenant=7),
        request(tenant="t" * 256),
        request(rows=-1),
        request(rows=1.5),
        request(steps_ms=[1]),
        request(steps_ms={"run": "fast"}),
        request(timestamp="yesterday"),
        request(timestamp="2026-11-21T12:00:00"),  # no zone: of which day?
        request(timestamp=None),
        request(request_id=None),
        authorization(authorized="yes"),
        request(code="\ud800"),
        '{"message": "request", "rows": NaN}',
        '{"message": "request", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "{not JSON",
    ],
)
def test_a_line_that_lies_is_told_apart(text: str) -> None:
    with pytest.raises(UnreadableLine):
        parse_line(text)


@pytest.mark.parametrize("many", [2**63, 2**64, 10**300])
def test_no_caller_can_make_a_line_unreadable(many: int) -> None:
    line = parse_line(request(bytes_in=many, request_id="x" * 10_000, model="m" * 10_000, key_id="k" * 10_000))
    assert isinstance(line, RequestLine)
    assert line.bytes_in == many


@given(st.text() | st.dictionaries(st.text(), st.integers() | st.text()).map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_line(text)
    except UnreadableLine:
        assert text.lstrip().startswith("{")


def test_the_id_of_a_batch_is_that_of_its_lines() -> None:
    first = batch(request(), request())
    assert first.id == LogBatch(first.group, first.stream, list(first.events)).id
    others = {
        LogBatch("other", first.stream, first.events).id,
        LogBatch(first.group, "other", first.events).id,
        LogBatch(first.group, first.stream, first.events[:1]).id,
        LogBatch(first.group, first.stream, first.events[::-1]).id,
        LogBatch(first.group + first.stream, "", first.events).id,
    }
    assert len(others | {first.id}) == 6


def test_ids_do_not_run_into_each_other() -> None:
    def of(*ids: str) -> str:
        return LogBatch("g", "s", [LogEvent(id_, NOON, "") for id_ in ids]).id

    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of("ab", "c", "")}) == 4


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])))
def test_a_time_is_near_that_of_the_log(time: datetime) -> None:
    line = parse_line(request())
    assert isinstance(line, RequestLine)
    event = entry("")
    found = time_of(RequestLine(timestamp=time, request_id="r", route="r", status=200, code="ok"), event)
    assert found.tzinfo is UTC
    assert abs(found - event.time) <= MAX_SKEW
    assert found in {time, event.time}
