"""`sluice webhooks`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

import pytest

from shared.domain.webhook_signature import headers, secret_of
from tests.cli.conftest import Cli, Server
from tests.conftest import ROOT

WEBHOOK = "wh_" + "0" * 24
DELIVERY = "msg_" + "1" * 32
PATH = f"/v1/webhooks/{WEBHOOK}"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def document(**more: Any) -> dict[str, Any]:
    return {
        "webhook_id": WEBHOOK,
        "url": "https://example.com/hook",
        "events": ["job.failed"],
        "description": "mine",
        "enabled": True,
        "disabled_reason": None,
        "created_at": "2026-11-21T10:00:00.000Z",
        "rotated_at": None,
        "previous_until": None,
        **more,
    }


def delivery(state: str, **more: Any) -> dict[str, Any]:
    attempt = {"at": "2026-11-21T10:00:00.000Z", "status": 204, "error": None, "duration_ms": 12, "detail": ""}
    return {
        "delivery_id": DELIVERY,
        "webhook_id": WEBHOOK,
        "event": "webhook.test",
        "job_id": None,
        "state": state,
        "reason": None,
        "attempts": [] if state == "pending" else [attempt],
        "next_attempt_at": None,
        "created_at": "2026-11-21T10:00:00.000Z",
        "payload": {},
        **more,
    }


def test_a_new_webhook_shows_its_secret_alone_on_standard_output(cli: Cli, server: Server) -> None:
    server.on("POST /v1/webhooks", {**document(), "secret": SECRET}, 201)
    result = cli("webhooks", "add", "https://example.com/hook", "--event", "job.failed")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{SECRET}\n"
    assert SECRET not in result.stderr
    assert WEBHOOK in result.stderr
    assert server.requests[-1].json() == {"url": "https://example.com/hook", "events": ["job.failed"]}
    assert cli.json("webhooks", "add", "https://example.com/hook")["secret"] == SECRET
    assert server.requests[-1].json() == {"url": "https://example.com/hook"}


def test_what_the_api_refuses_is_said(cli: Cli, server: Server) -> None:
    problem = {
        "title": "Value out of range",
        "detail": "/url: must begin with https://",
        "code": "out_of_range",
        "errors": [{"pointer": "/url", "detail": "must begin with https://"}],
    }
    server.on("POST /v1/webhooks", problem, 422)
    result = cli("webhooks", "add", "http://example.com/")
    assert result.exit_code == 1
    assert "must begin with https://" in result.stderr


def test_lists_and_single_ones(cli: Cli, server: Server) -> None:
    server.on("GET /v1/webhooks", {"webhooks": []})
    assert "no webhook yet" in cli("webhooks", "list").stderr
    off = document(enabled=False, disabled_reason="gone")
    server.on("GET /v1/webhooks", {"webhooks": [off]})
    shown = cli("webhooks", "list").stdout
    assert WEBHOOK in shown
    assert "off (gone)" in shown
    assert cli.json("webhooks", "list") == {"webhooks": [off]}
    server.on(f"GET {PATH}", document())
    assert "job.failed" in cli("webhooks", "show", WEBHOOK).stdout
    server.on(f"DELETE {PATH}", document())
    assert "is deleted" in cli("webhooks", "remove", WEBHOOK).stderr


def test_changes_name_only_what_changes(cli: Cli, server: Server) -> None:
    server.on(f"PATCH {PATH}", document(enabled=False, disabled_reason="paused"))
    assert cli.json("webhooks", "change", WEBHOOK, "--off")["enabled"] is False
    assert server.requests[-1].json() == {"enabled": False}
    cli.json("webhooks", "change", WEBHOOK, "--on", "--address", "https://example.org/", "--event", "job.failed")
    assert server.requests[-1].json() == {"url": "https://example.org/", "events": ["job.failed"], "enabled": True}
    assert cli("webhooks", "change", WEBHOOK).exit_code == 2


def test_a_rotation(cli: Cli, server: Server) -> None:
    server.on(f"POST {PATH}/rotate", {**document(previous_until="2026-11-22T10:00:00.000Z"), "secret": SECRET})
    result = cli("webhooks", "rotate", WEBHOOK)
    assert result.stdout == f"{SECRET}\n"
    assert "2026-11-22 10:00:00Z" in result.stderr
    assert server.requests[-1].json() == {}
    cli("webhooks", "rotate", WEBHOOK, "--overlap", "0")
    assert server.requests[-1].json() == {"overlap_s": 0}


def test_a_test_goes_to_a_webhook_that_is_off_and_says_how_to_switch_it_on(cli: Cli, server: Server) -> None:
    server.on(f"POST {PATH}/test", delivery("delivered"), 202)
    for reason, why in (("paused", "was switched off"), ("gone", "answered 410")):
        server.on(f"GET {PATH}", document(enabled=False, disabled_reason=reason))
        result = cli("webhooks", "test", WEBHOOK)
        assert (result.exit_code, result.stdout) == (0, "The receiver answered 204 in 12 ms.\n")
        assert why in result.stderr
        assert f"sluice webhooks change {WEBHOOK} --on" in result.stderr


def test_a_test_reports_what_the_receiver_said(cli: Cli, server: Server) -> None:
    server.on(f"GET {PATH}", document())
    server.on(f"POST {PATH}/test", delivery("pending"), 202)
    one = f"GET {PATH}/deliveries/{DELIVERY}"
    server.on(one, delivery("delivered"))
    result = cli("webhooks", "test", WEBHOOK)
    assert (result.exit_code, result.stdout) == (0, "The receiver answered 204 in 12 ms.\n")
    failed = {"at": "2026-11-21T10:00:00.000Z", "status": 500, "error": None, "duration_ms": 3, "detail": "oops"}
    server.on(one, delivery("failed", reason="http_500", attempts=[failed]))
    result = cli("webhooks", "test", WEBHOOK)
    assert result.exit_code == 1
    assert "The receiver answered 500: oops" in result.stderr
    forbidden = {**failed, "status": None, "error": "forbidden_address", "detail": "The address must be public."}
    server.on(one, delivery("failed", reason="forbidden_address", attempts=[forbidden]))
    result = cli("webhooks", "test", WEBHOOK, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["reason"] == "forbidden_address"
    server.on(one, delivery("pending"))
    result = cli("webhooks", "test", WEBHOOK, "--timeout", "1")
    assert result.exit_code == 1
    assert "was not sent within 1 s" in result.stderr


@pytest.mark.parametrize("columns", ["80", "60"])
def test_ids_stay_whole_in_a_narrow_terminal(cli: Cli, server: Server, columns: str) -> None:
    job = "0" * 32
    server.on(f"GET {PATH}/deliveries?limit=20", {"deliveries": [delivery("dead", job_id=job)] * 2, "next": None})
    listed = cli("webhooks", "deliveries", WEBHOOK, env={"COLUMNS": columns})
    rows = listed.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["delivery", DELIVERY, DELIVERY]
    assert all(len(row) <= int(columns) for row in rows)
    assert listed.stderr.startswith("Too narrow for: job, next attempt")


def test_the_log_is_read_page_by_page_and_what_was_given_up_is_sent_again(cli: Cli, server: Server) -> None:
    first, second = delivery("delivered"), delivery("dead", delivery_id="msg_" + "2" * 32, reason="http_500")
    pages = f"GET {PATH}/deliveries"
    server.on(f"{pages}?limit=20", {"deliveries": [first], "next": DELIVERY})
    server.on(f"{pages}?cursor={DELIVERY}&limit=19", {"deliveries": [second], "next": None})
    assert cli.json("webhooks", "deliveries", WEBHOOK) == {"deliveries": [first, second]}
    assert "  dead" in cli("webhooks", "deliveries", WEBHOOK).stdout
    server.on(f"{pages}?limit=100", {"deliveries": [first, second], "next": None})
    again = f"POST {PATH}/deliveries/{second['delivery_id']}/redeliver"
    server.on(again, delivery("pending"), 202)
    result = cli("webhooks", "redeliver", WEBHOOK, "--given-up")
    assert result.exit_code == 0, result.stderr
    assert "1 event on the way again" in result.stderr
    assert cli("webhooks", "redeliver", WEBHOOK).exit_code == 2
    assert cli("webhooks", "redeliver", WEBHOOK, DELIVERY, "--given-up").exit_code == 2


def send(url: str, body: bytes, given: Mapping[str, str]) -> int:
    connection = HTTPConnection(url.split("/")[2], timeout=10)
    try:
        connection.request("POST", "/", body, dict(given))
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_listener_prints_what_is_signed_and_refuses_the_rest(down: Cli) -> None:
    command = [sys.executable, "-m", "infra.cli.main", "webhooks", "listen", "--port", "0", "--count", "1", "--json"]
    environment = {**os.environ, "SLUICE_WEBHOOK_SECRET": SECRET, "SLUICE_HOME": str(down.home.folder)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            url = next(word for word in line.split() if word.startswith("http://")).rstrip(";")
            body = json.dumps({"type": "webhook.test", "timestamp": "2026-11-21T10:00:00.000Z", "data": {}}).encode()
            signed = headers((secret_of(SECRET),), "msg_1", int(time.time()), body)
            assert send(url, body + b" ", signed) == 401
            assert send(url, body, signed) == 204
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert json.loads(out) == {"id": "msg_1", **json.loads(body)}
    assert "refused" in errors


def test_a_listener_without_a_secret_has_a_webhook_of_its_own(cli: Cli, server: Server) -> None:
    server.on(
        "POST /v1/webhooks", {"title": "Conflict", "detail": "The tenant has 10 webhooks", "code": "conflict"}, 409
    )
    result = cli("webhooks", "listen", "--port", "0")
    assert result.exit_code == 1
    assert "10 webhooks" in result.stderr
    assert cli("webhooks", "listen", "--port", "0", "--secret", "nonsense!").exit_code == 2


def test_a_listener_that_is_ended_takes_its_webhook_along(down: Cli, server: Server) -> None:
    server.on("POST /v1/webhooks", {"webhook_id": WEBHOOK, "secret": SECRET}, 201)
    server.on(f"DELETE {PATH}", {})
    command = [sys.executable, "-m", "infra.cli.main", "webhooks", "listen", "--port", "0"]
    command += ["--url", server.url, "--key", "k"]
    environment = {**os.environ, "SLUICE_HOME": str(down.home.folder)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "Listening" in process.stderr.readline()
            process.terminate()
            process.wait(30)
        finally:
            process.kill()
    assert [request.path for request in server.requests if request.method == "DELETE"] == [PATH]
