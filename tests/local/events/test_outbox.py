import json
import threading
from typing import Any

import pytest

from infra.local.events.outbox import PATH, EventFeed, Outbox


def call(app: Any, path: str, query: str = "", method: str = "GET", service: str | None = None) -> tuple[str, bytes]:
    seen: list[str] = []
    scope = f"AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/{service}/aws4_request, Signature=0"
    environ = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": method}
    if service:
        environ["HTTP_AUTHORIZATION"] = scope
    body = b"".join(app(environ, lambda status, _headers: seen.append(status)))
    return seen[0], body


def beyond(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"passed on"]


def test_a_record_stays_until_the_next_question_says_that_it_has_arrived() -> None:
    outbox = Outbox()
    app = EventFeed(beyond, outbox)
    for number in range(3):
        outbox.put({"number": number})
    first = call(app, PATH, "after=0&wait=0")
    assert first == call(app, PATH, "after=0&wait=0")
    assert json.loads(first[1]) == {"last": 3, "records": [{"number": 0}, {"number": 1}, {"number": 2}]}
    outbox.put({"number": 3})
    assert json.loads(call(app, PATH, "after=3&wait=0")[1]) == {"last": 4, "records": [{"number": 3}]}
    assert json.loads(call(app, PATH, "after=4&wait=0")[1]) == {"last": 4, "records": []}


def test_many_records_come_in_parts_and_in_order() -> None:
    outbox = Outbox()
    for number in range(1000):
        outbox.put({"number": number})
    found: list[int] = []
    after = 0
    while records := (answer := outbox.read(after, 0))[1]:
        found += [json.loads(record)["number"] for record in records]
        after = answer[0]
    assert found == list(range(1000))
    outbox = Outbox()
    for _ in range(3):
        outbox.put({"text": "x" * 3 * 1024 * 1024})
    assert len(outbox.read(0, 0)[1]) == 2


def test_a_question_waits_for_the_first_record() -> None:
    outbox = Outbox()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(outbox.read(0, 20)))
    asking.start()
    outbox.put({"number": 1})
    asking.join(20)
    assert answers == [(1, [b'{"number": 1}'])]


@pytest.mark.parametrize("outbox", [Outbox(max_waiting=2), Outbox(max_bytes=20)])
def test_a_full_one_slows_writers_down_and_loses_nothing(outbox: Outbox) -> None:
    app = EventFeed(beyond, outbox)
    for number in range(2):
        assert call(app, "/bucket/key", method="PUT", service="s3") == ("200 OK", b"passed on")
        outbox.put({"number": number})
    status, body = call(app, "/bucket/key", method="PUT", service="s3")
    assert status == "503 Slow Down"
    assert b"<Code>SlowDown</Code>" in body
    assert call(app, "/", method="POST", service="sns")[0] == "503 Slow Down"
    # Who empties it must be able to go on.
    assert call(app, "/bucket/key", service="s3")[0] == "200 OK"
    assert call(app, "/", method="POST", service="dynamodb")[0] == "200 OK"
    outbox.put({"number": 2})
    assert len(json.loads(call(app, PATH, "after=0")[1])["records"]) == 3
    call(app, PATH, "after=3")
    assert call(app, "/bucket/key", method="PUT", service="s3")[0] == "200 OK"
