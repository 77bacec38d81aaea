"""`sluice plans`."""

import pytest

from tests.adapters.samples import unique
from tests.cli.conftest import Cli
from tests.cli.deployment import deploy, template, user_environment
from tests.conftest import LocalAws


def test_a_plan_is_created_from_the_default_one_and_changed_in_parts(administering: Cli) -> None:
    name = unique("p")
    made = administering.json("plans", "set", name, "--key-rate", "0.5", "--daily-quota", "1000", "--max-keys", "2")
    assert made["key"] == {"per_second": 0.5, "burst": 100}
    assert made["tenant"] == {"per_second": 100, "burst": 200}
    assert (made["daily_quota"], made["monthly_quota"], made["max_keys"], made["shards"]) == (1000, None, 2, 1)
    changed = administering.json(
        "plans", "set", name, "--tenant-burst", "300", "--daily-quota", "none", "--on-limiter-failure", "closed"
    )
    assert changed == {
        **made,
        "tenant": {"per_second": 100, "burst": 300},
        "daily_quota": None,
        "on_limiter_failure": "closed",
    }
    said = administering("plans", "set", name, "--shards", "2")
    assert (said.exit_code, said.stdout) == (0, "")
    assert said.stderr == (
        f"The plan {name}: 0.5/s (100) for a key, 100/s (300) for a tenant; no quota a day, no quota a month; "
        "closed while the limiter is down.\n"
    )
    said = administering("plans", "set", name, "--daily-quota", "7", "--on-limiter-failure", "open")
    assert "; 7 requests a day, no quota a month; open while" in said.stderr
    administering("plans", "set", name, "--daily-quota", "none", "--on-limiter-failure", "closed")
    listed = {plan["name"]: plan for plan in administering.json("plans", "list")["plans"]}
    assert listed[name] == {**changed, "shards": 2}
    assert "default" in listed
    row = next(line for line in administering("plans", "list").stdout.splitlines() if line.startswith(name))
    assert row.split()[1:] == ["0.5/s", "(100)", "100/s", "(300)", "–", "–", "2", "2", "closed"]


def test_one_plan_is_shown(administering: Cli) -> None:
    name = unique("p")
    made = administering.json("plans", "set", name, "--monthly-quota", "0", "--tenant-rate", "7.5")
    assert administering.json("plans", "show", name) == made
    shown = dict(line.split(maxsplit=1) for line in administering("plans", "show", name).stdout.splitlines())
    assert (shown["name"].strip(), shown["tenant"].strip()) == (name, "7.5/s (200)")
    assert administering.json("plans", "show", "default")["name"] == "default"
    absent = administering("plans", "show", "absent")
    assert (absent.exit_code, absent.stdout) == (1, "")
    assert "There is no plan" in absent.stderr


def test_a_deployed_stack_has_plans_of_its_own(down: Cli, local_aws: LocalAws) -> None:
    name = deploy(local_aws, template("https://api.example.com", functions=False))
    shown = down("plans", "list", "--stack", name, env=user_environment(local_aws))
    assert shown.exit_code == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["name", "default"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Large", "--shards", "1"), "NAME: must be lower-case letters"),
        (("wrong",), "Name what the plan is to have"),
        (("wrong", "--key-rate", "0"), "--key-rate: must be from"),
        (("wrong", "--key-rate", "nan"), "Error: --key-rate: must be from"),
        (("wrong", "--key-burst", "0"), "--key-burst: must be from 1"),
        (("wrong", "--shards", "65"), "--shards: must be from 1 to 64"),
        (("wrong", "--daily-quota", "-1"), "--daily-quota: '-1' is no quota"),
        (("wrong", "--daily-quota", "many"), "--daily-quota: 'many' is no quota"),
        (("wrong", "--monthly-quota", "1" + "0" * 16), "--monthly-quota: must be"),
        (("wrong", "--max-keys", "1001"), "--max-keys: must be"),
        (("wrong", "--on-limiter-failure", "ajar"), "--on-limiter-failure"),
    ],
)
def test_plans_that_cannot_be(administering: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = administering("plans", "set", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "wrong" not in [plan["name"] for plan in administering.json("plans", "list")["plans"]]


@pytest.mark.parametrize("command", [("list",), ("show", "a"), ("set", "a", "--shards", "1")])
def test_down(down: Cli, command: tuple[str, ...]) -> None:
    assert down("plans", *command).exit_code == 3
