"""`sluice logs` over files as the local stack writes them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def folder(down: Cli) -> Path:
    logs = down.home.logs
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "PredictFunction.log").write_text(
        'START RequestId: 1\n{"level":"INFO","timestamp":"2026-11-20T10:00:02.500+00:00","message":"two"}\nEND 1\n'
    )
    (logs / "container.log").write_text(
        '{"timestamp":"2026-11-20T10:00:01.000Z","message":"one"}\n2026-11-20 10:00:03,123 three\n'
    )
    return logs


def lines(output: str) -> list[tuple[str, str]]:
    return [(line[:18].rstrip(), line[19:]) for line in output.splitlines()]


def test_sources_are_merged_by_time_and_keep_their_own_order(down: Cli, folder: Path) -> None:
    shown = lines(down("logs").stdout)
    predict = [text for source, text in shown if source == "PredictFunction"]
    assert [text.split()[0] for text in (predict[0], predict[2])] == ["START", "END"]
    assert shown[1][0] == "container"
    assert shown[4] == ("container", "2026-11-20 10:00:03,123 three")


def test_tail_and_source_choose(down: Cli, folder: Path) -> None:
    assert lines(down("logs", "--tail", "2").stdout)[0] == ("PredictFunction", "END 1")
    assert lines(down("logs", "container", "-n", "1").stdout) == [("container", "2026-11-20 10:00:03,123 three")]
    assert down("logs", "--tail", "0").stdout == ""
    assert down.json("logs", "PredictFunction", "--tail", "1") == {
        "lines": [{"source": "PredictFunction", "line": "END 1"}]
    }


def test_a_function_may_be_named_as_in_aws_while_the_stack_is_up(cli: Cli, folder: Path) -> None:
    assert {source for source, _ in lines(cli("logs", "sluice-predict").stdout)} == {"PredictFunction"}


def test_control_characters_and_broken_text_stay_out_of_the_terminal(down: Cli, folder: Path) -> None:
    (folder / "aws.log").write_bytes(b"2999-99-99T10:00:00 \x1b[2Jgone \xff\n")
    assert lines(down("logs", "aws").stdout) == [("aws", "2999-99-99T10:00:00 [2Jgone �")]


def test_an_unknown_source_names_the_known(down: Cli, folder: Path) -> None:
    result = down("logs", "nothing")
    assert result.exit_code == 2
    assert "PredictFunction, container" in result.stderr


def test_the_stacks_own_log_is_there_only_after_a_detached_start(down: Cli, folder: Path) -> None:
    result = down("logs", "stack")
    assert result.exit_code == 2
    assert "`sluice up --detach`" in result.stderr
    (folder / "stack.log").write_text("ready\n")
    assert lines(down("logs", "stack").stdout) == [("stack", "ready")]


def test_without_logs_it_exits_with_3(down: Cli) -> None:
    assert down("logs").exit_code == 3


def test_follow_and_json_exclude_each_other(down: Cli, folder: Path) -> None:
    assert down("logs", "--follow", "--json").exit_code == 2


def test_follow_shows_what_is_written_new_files_and_rotated_ones(down: Cli, folder: Path) -> None:
    environment = {**os.environ, "SLUICE_HOME": str(down.home.folder), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli.main", "logs", "--follow", "--tail", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            next_line = _reader(process)
            assert next_line() == "container          2026-11-20 10:00:03,123 three"
            log = folder / "PredictFunction.log"
            with log.open("a") as file:
                file.write("half ")
                file.flush()
                file.write("a line\n")
            assert next_line() == "PredictFunction    half a line"
            log.rename(folder / "PredictFunction.log.1")
            log.write_text("after rotation\n")
            assert next_line() == "PredictFunction    after rotation"
            (folder / "stack.log").write_text("new\n")
            assert next_line() == "stack              new"
        finally:
            process.terminate()
            process.communicate()


def _reader(process: subprocess.Popen[str]) -> Callable[[], str]:
    """The next line of output, within 20 seconds."""
    read: Queue[str] = Queue()
    stream = process.stdout
    assert stream is not None

    def pump() -> None:
        for line in stream:
            read.put(line.rstrip("\n"))

    Thread(target=pump, daemon=True).start()
    return lambda: read.get(timeout=20)
