"""The documentation holds: links resolve, commands and their options exist, generated pages are current."""

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from botocore import xform_name
from botocore.session import Session

from infra import parameters
from infra.cli.main import app
from tests.conftest import ROOT
from tests.docs.commands import PAGES, Command, commands

SAM = ROOT / ".venv-tools/sam/bin/sam"
# Commands of the AWS CLI that are no operation of a service.
CUSTOM_AWS = {("sso", "login"), ("ecr", "get-login-password"), ("s3", "rm")}
GLOBAL_AWS = {"--query", "--output", "--region", "--profile"}
# What only appears while somebody follows the page.
MADE = re.compile(r"build/|\.venv|env\.json|\$|\.sluice/")


def name(command: Command) -> str:
    return f"{command.page}: {' '.join(command.words)[:60]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"`[^`\n]+`", "", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for command in commands("make") for word in command.words[1:] if "=" not in word}
    assert {"setup", "tools", "build"} <= named <= targets


@pytest.mark.parametrize("command", commands("sluice"), ids=name)
def test_a_sluice_command_and_its_options_exist(command: Command) -> None:
    found: Any = typer.main.get_command(app)
    words = list(command.words[1:])
    while words and hasattr(found, "commands"):
        if words[0].startswith("-"):
            break
        found = found.commands[words.pop(0)]
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    assert set(command.options) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_written_alike(page: Path) -> None:
    """Blocks are typed as they stand, so they name the command by its path; sentences speak of it by its name."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines() if re.match(r"(\w+=\$\()?sluice [a-z]", line)] == []
    if page.is_relative_to(ROOT / "docs"):
        sentences = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        assert re.findall(r"`\.venv/bin/sluice [^`]*`", sentences) == []


@cache
def sam_options(*subcommand: str) -> frozenset[str]:
    shown = subprocess.run(
        [SAM, *subcommand, "--help"],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    options = re.findall(r"--[a-z0-9-]+(?: / --[a-z0-9-]+)?", shown)
    return frozenset(part for option in options for part in option.split(" / "))


@pytest.mark.parametrize("command", commands("sam"), ids=name)
def test_a_sam_command_and_its_options_exist(command: Command) -> None:
    length = 3 if command.words[1] == "local" else 2
    known = sam_options(*command.words[1:length])
    # The help shows one form of a switch that has two.
    assert [
        option for option in command.options if option not in known and option.replace("--no-", "--", 1) not in known
    ] == []


@pytest.mark.parametrize("command", commands("aws"), ids=name)
def test_an_aws_command_is_an_operation_with_these_members(command: Command) -> None:
    service, operation = command.words[1:3]
    if (service, operation) in CUSTOM_AWS:
        return
    model = Session().get_service_model(service)
    operations = {xform_name(each, "-"): each for each in model.operation_names}
    shape = model.operation_model(operations[operation]).input_shape
    assert shape is not None
    members = {f"--{xform_name(member, '-')}" for member in shape.members} | GLOBAL_AWS
    assert [
        option
        for option in command.options
        if option not in members and option.replace("--no-", "--", 1) not in members
    ] == []


@pytest.mark.parametrize("command", [*commands("sluice"), *commands("sam"), *commands("curl")], ids=name)
def test_files_named_in_commands_exist(command: Command) -> None:
    words = [re.sub(r"^(\w+=)?@", "", word) for word in command.words[1:] if re.search(r"/.*\.\w+$", word)]
    named = [word for word in words if "://" not in word and not MADE.match(word)]
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_the_dockerfile_has_the_targets_that_are_named() -> None:
    for command in commands("docker"):
        if command.words[1] != "build":
            continue
        words = list(command.words)
        text = (ROOT / words[words.index("--file") + 1]).read_text()
        targets = set(re.findall(r"^FROM .* AS (\S+)$", text, re.MULTILINE | re.IGNORECASE))
        assert {words[words.index("--target") + 1], "cpu"} <= targets


def test_parameters_given_in_commands_are_the_templates() -> None:
    declared = set(parameters.read()["Parameters"])
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if "--parameter-overrides" in line and "Name=value" not in line:
                given = re.findall(r"\b([A-Z]\w+)=", line.partition("--parameter-overrides")[2])
                assert set(given) <= declared, f"{page}: {line}"


def test_the_page_of_parameters_is_current() -> None:
    made = parameters.render(parameters.read())
    assert parameters.PAGE.read_text(encoding="utf-8") == made, "run `python -m infra.parameters`"


def test_every_parameter_is_in_one_group() -> None:
    template = parameters.read()
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [parameter for group in groups for parameter in group["Parameters"]]
    assert sorted(grouped) == sorted(template["Parameters"])


def test_the_trust_policy_is_for_one_environment_of_one_repository() -> None:
    document = json.loads((ROOT / "docs/pipeline-trust-policy.json").read_text())
    (statement,) = document["Statement"]
    conditions = statement["Condition"]["StringEquals"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert conditions["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"
    assert conditions["token.actions.githubusercontent.com:sub"].endswith(":environment:dev")
    assert "*" not in json.dumps(document)
