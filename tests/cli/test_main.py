"""The frame of the command: help, exit codes, and what it loads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.cli.local import shown
from tests.cli.conftest import Cli

COMMANDS = (
    "up",
    "down",
    "status",
    "publish",
    "models",
    "predict",
    "invoke",
    "logs",
    "env",
    "doctor",
    "cost",
    "keys",
    "apply",
    "traffic",
    "trigger",
    "endpoints",
)
HEAVY = ("aiohttp", "boto3", "botocore", "moto", "numpy", "onnxruntime", "pydantic", "uniplot", "urllib3")


def run(*arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SLUICE_HOME": str(home), **more}
    command = [str(Path(sys.executable).with_name("sluice")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command_and_the_exit_codes(down: Cli) -> None:
    shown = down("--help").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in shown
    assert "3    the stack is not up" in shown


@pytest.mark.parametrize(
    "command",
    ["publish", "models", "predict", "invoke", "logs", "env", "doctor", "cost", "apply", "traffic", "trigger"],
)
def test_help_of_a_command_has_examples_as_they_are_written(down: Cli, command: str) -> None:
    result = down(command, "--help")
    assert result.exit_code == 0
    assert f"\n    sluice {command} " in result.stdout.partition("Examples:")[2]


GROUPS = ("tenants", "plans", "keys", "endpoints", "features", "batch", "jobs", "uploads", "webhooks", "audit")


@pytest.mark.parametrize("group", [(), *((name,) for name in GROUPS)])
def test_a_list_of_commands_says_of_each_in_one_whole_line_what_it_does(down: Cli, group: tuple[str, ...]) -> None:
    listed = down(*group, "--help").stdout.partition("Commands:\n")[2].splitlines()
    assert listed
    assert all(line.startswith("  ") and line[2] != " " and not line.endswith("...") for line in listed), listed


@pytest.mark.parametrize("command", [("predict",), ("publish",), ("jobs", "submit"), ("batch", "run"), ("trigger",)])
def test_arguments_are_in_capitals_everywhere(down: Cli, command: tuple[str, ...]) -> None:
    usage = down(*command, "--help").stdout.splitlines()[0]
    assert usage.partition("[OPTIONS]")[2].isupper()


def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "aws.log").write_text("a line\n")
    command = [str(Path(sys.executable).with_name("sluice")), "logs", "--follow"]
    environment = {**os.environ, "SLUICE_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None
        assert done.stdout.readline().endswith("a line\n")
        done.send_signal(signal.SIGINT)
        _, said = done.communicate(timeout=60)
    assert (done.returncode, "Traceback" in said) == (130, False)


def test_the_frame_loads_nothing_heavy() -> None:
    code = "import json, sys, infra.cli.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert set(HEAVY).isdisjoint(json.loads(done.stdout))


def test_the_installed_command_ends_with_one_sentence_and_no_colour(tmp_path: Path) -> None:
    done = run("models", home=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: No stack is up in {tmp_path}. Start it with `sluice up`")
    assert done.stderr.count("\n") == 1


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    done = run("--version", home=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count(".") == 2


@pytest.mark.parametrize("arguments", [("nothing",), ("models", "--nothing"), ("predict",), ("logs", "--tail", "x")])
def test_wrong_usage_exits_with_2(down: Cli, arguments: tuple[str, ...]) -> None:
    result = down(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_a_folder_that_cannot_be_read_is_one_sentence(down: Cli) -> None:
    down.home.logs.mkdir(parents=True)
    (down.home.logs / "aws.log").mkdir()
    result = down("logs", "aws")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_a_reader_that_leaves_early_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "aws.log").write_text("a line\n" * 100_000)
    command = f"{Path(sys.executable).with_name('sluice')} logs --tail 100000 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "SLUICE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.endswith("a line\n")
    assert done.stderr == ""


def test_a_path_is_told_as_it_would_be_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert shown(tmp_path / "project/.sluice/local.json") == ".sluice/local.json"
    assert shown(tmp_path / "elsewhere/local.json") == str(tmp_path / "elsewhere/local.json")
