"""The GitHub workflows: what matters about them, since they cannot run here.

Their syntax was held against the schema that `check-jsonschema --builtin-schema vendor.github-workflows` carries.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from infra.cli.main import app
from tests.conftest import ROOT

FOLDER = ROOT / ".github/workflows"
FILES = sorted(FOLDER.glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def read(file: Path) -> dict[str, Any]:
    # BaseLoader: `on` is a word, not a truth.
    return dict(yaml.load(file.read_text(), yaml.BaseLoader))  # noqa: S506 - it makes nothing but strings


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    return dict(read(file)["jobs"])


def steps(file: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(file).values():
        yield from job.get("steps", ())


def scripts() -> str:
    return "\n".join(step["run"] for file in FILES for step in steps(file) if "run" in step)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_is_permitted_but_what_a_job_asks_for(file: Path) -> None:
    assert read(file)["permissions"] == {}
    for job in jobs(file).values():
        assert job["permissions"].items() <= {"contents": "read", "id-token": "write"}.items()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_secret_is_used(file: Path) -> None:
    text = file.read_text()
    assert "secrets." not in text
    assert not re.search(r"aws-(access-key-id|secret-access-key)", text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_job_that_runs_has_a_limit(file: Path) -> None:
    for job in jobs(file).values():
        assert ("uses" in job) != (int(job.get("timeout-minutes", 0)) > 0)


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    for file in FILES:
        for line in file.read_text().splitlines():
            if (found := re.search(r"uses: (\S+)(.*)", line)) and not found[1].startswith("./"):
                assert PINNED.fullmatch(found[1]), line
                assert re.fullmatch(r" # v\d+\.\d+\.\d+", found[2]), line


def test_a_checkout_keeps_no_credentials() -> None:
    for file in FILES:
        for step in steps(file):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] == "false"


def test_no_expression_is_pasted_into_a_script() -> None:
    assert "${{" not in scripts()


def test_only_deploying_gets_a_token_of_aws_and_right_before_it_needs_one() -> None:
    (job,) = jobs(FOLDER / "deploy-stage.yml").values()
    names = [step.get("uses", step.get("run", "")) for step in job["steps"]]
    credentials = next(i for i, name in enumerate(names) if name.startswith("aws-actions/configure-aws-credentials@"))
    assert set(job["steps"][credentials]["with"]) >= {"role-to-assume", "aws-region"}
    assert not any("make " in name for name in names[credentials:])
    for file in FILES:
        for each in jobs(file).values():
            if each["permissions"].get("id-token") == "write":
                assert "deploy-stage" in each.get("uses", "") or each["environment"] == "${{ inputs.environment }}"


def test_the_way_to_production() -> None:
    found = jobs(FOLDER / "deploy.yml")
    assert {name: job.get("needs") for name, job in found.items()} == {
        "check": None,
        "build": "check",
        "dev": "build",
        "production": "dev",
    }
    assert found["dev"]["with"]["environment"] == "dev"
    # Its required reviewers are the manual approval.
    assert found["production"]["with"]["environment"] == "production"
    assert read(FOLDER / "deploy.yml")["concurrency"] == {"group": "deploy", "cancel-in-progress": "false"}


def test_each_stage_is_in_samconfig_and_production_is_gradual() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    for name in ("dev", "production"):
        stage = jobs(FOLDER / "deploy.yml")[name]["with"]["config"]
        deploy = config[stage]["deploy"]["parameters"]
        assert deploy["stack_name"] == f"sluice-{stage}"
        assert deploy["template_file"] == "build/stage/x86_64/template.yaml"
    overrides = config["prod"]["deploy"]["parameters"]["parameter_overrides"]
    assert any(re.match(r"DeploymentType=(Canary|Linear)", each) for each in overrides)


def test_a_prediction_follows_every_deployment() -> None:
    (job,) = jobs(FOLDER / "deploy-stage.yml").values()
    runs = [step.get("run", "") for step in job["steps"]]
    deployed = next(i for i, run in enumerate(runs) if " deploy " in run)
    asked = [i for i, run in enumerate(runs) if "sluice predict" in run or "sluice doctor --stack" in run]
    assert len(asked) == 2
    assert min(asked) > deployed
    key = next(run for run in runs if "keys create" in run)
    assert key.index("::add-mask::") < key.index("GITHUB_ENV")


def test_make_targets_and_sluice_commands_exist() -> None:
    text = scripts()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in re.findall(r"\bmake ([^\n]*)", text) for word in line.split() if "=" not in word}
    assert {"check", "test", "build", "setup", "tools"} == named
    assert named <= targets
    known: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for command, rest in re.findall(r"sluice ([a-z]+)([^\n)]*)", text):
        found = known[command]
        if hasattr(found, "commands"):
            found = found.commands[rest.split()[0]]
        options = {option for parameter in found.params for option in parameter.opts}
        assert set(re.findall(r"(--[a-z-]+)", rest)) <= options
