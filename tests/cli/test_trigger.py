"""`sluice trigger` against an HTTP server that answers like the local stack."""

import json
from pathlib import Path

from tests.cli.conftest import Cli, Server

TICK = "POST /_sluice/trigger/Tick"
DONE = {"target": "Sweeper", "queued": False, "function_error": None, "payload": {"swept": 3}, "log": "START\nEND\n"}


def test_the_answer_goes_to_stdout_and_the_log_to_stderr(cli: Cli, server: Server) -> None:
    server.on(TICK, {"targets": [DONE, {"target": "sluice-Work", "queued": True}]})
    result = cli("trigger", "Tick")
    assert (result.exit_code, result.stdout) == (0, '{"swept": 3}\n')
    assert result.stderr == "START\nEND\nThe event is in the queue sluice-Work.\n"
    (request,) = server.requests
    assert request.body == b""


def test_json_holds_all_of_it(cli: Cli, server: Server) -> None:
    server.on(TICK, {"targets": [DONE]})
    assert cli.json("trigger", "Tick") == {"name": "Tick", "targets": [DONE]}


def test_a_function_that_fails_exits_with_1(cli: Cli, server: Server) -> None:
    failed = {**DONE, "function_error": "Unhandled", "payload": {"errorType": "ValueError"}}
    server.on(TICK, {"targets": [failed]})
    result = cli("trigger", "Tick")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"errorType": "ValueError"}
    assert result.stderr.endswith("Error: Sweeper failed.\n")


def test_an_event_goes_with_it(cli: Cli, server: Server, tmp_path: Path) -> None:
    server.on("POST /_sluice/trigger/Rule", {"targets": []})
    (tmp_path / "event.json").write_text('{"detail": {}}')
    assert cli("trigger", "Rule", "--event", str(tmp_path / "event.json")).exit_code == 0
    (request,) = server.requests
    assert request.json() == {"detail": {}}


def test_an_unknown_name_is_wrong_usage_and_lists_the_known(cli: Cli, server: Server) -> None:
    server.on("POST /_sluice/trigger/No", {"known": ["Rule", "Tick"]}, status=404)
    result = cli("trigger", "No")
    assert result.exit_code == 2
    assert "The stack has no schedule or rule 'No'; it has Rule, Tick." in result.stderr


def test_a_refusal_is_told(cli: Cli, server: Server) -> None:
    server.on("POST /_sluice/trigger/Rule", {"message": "The rule Rule waits for events: give it one."}, status=400)
    result = cli("trigger", "Rule")
    assert (result.exit_code, "give it one" in result.stderr) == (2, True)
    server.on("POST /_sluice/trigger/Tick", {"message": "Rate Exceeded."}, status=502)
    result = cli("trigger", "Tick")
    assert (result.exit_code, "Rate Exceeded." in result.stderr) == (1, True)


def test_without_a_stack_it_exits_with_3(down: Cli) -> None:
    assert down("trigger", "Tick").exit_code == 3
