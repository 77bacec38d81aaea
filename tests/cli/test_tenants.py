"""`sluice tenants`."""

from datetime import UTC, datetime

import pytest

from tests.adapters.samples import unique
from tests.cli.conftest import Cli
from tests.cli.deployment import client
from tests.conftest import LocalAws


def test_a_tenant_is_created_shown_and_changed(administering: Cli) -> None:
    name = unique("t")
    result = administering("tenants", "create", name, "--description", "Rockets [bold]and[/] anvils")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"{name} has the plan default" in result.stderr
    made = administering.json("tenants", "show", name)
    assert (made["name"], made["plan"], made["suspended"]) == (name, "default", False)
    shown = administering("tenants", "show", name).stdout
    assert "Rockets [bold]and[/] anvils" in shown
    assert "active" in shown
    assert administering.json("tenants", "update", name, "--suspend") == {**made, "suspended": True}
    assert "suspended" in administering("tenants", "show", name).stdout
    assert administering.json("tenants", "update", name, "--resume", "--description", "") == {
        **made,
        "description": "",
    }
    for options, said in (
        (("--suspend",), "is suspended, on the plan default"),
        (("--plan", "default"), "is on the plan default; it is suspended"),
        (("--resume",), "is resumed, on the plan default"),
        (("--resume", "--description", ""), "is resumed and has a new description, on the plan default"),
        (("--plan", "default"), "is on the plan default"),
    ):
        assert administering("tenants", "update", name, *options).stderr == f"The tenant {name} {said}.\n"
    listed = administering.json("tenants", "list")["tenants"]
    assert name in [tenant["name"] for tenant in listed]
    assert name in administering("tenants", "list").stdout


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("create", "Acme Ltd"), 2, "NAME: must be lower-case letters"),
        (("create", "acme", "--description", "d" * 501), 2, "--description: must have at most 500 characters"),
        (("create", "acme", "--plan", "absent"), 1, "There is no plan"),
        (("update", "acme"), 2, "Name what is to change"),
        (("update", "absent", "--suspend"), 1, "There is no tenant"),
        (("show", "absent"), 1, "There is no tenant"),
        (("usage", "absent"), 1, "There is no tenant"),
        (("usage", "any", "--since", "yesterday"), 2, "is no day"),
        (("usage", "any", "--since", "2026-02-01", "--until", "2026-01-01"), 2, "ask for less"),
        (("list", "--profile", "p"), 2, "belong to --stack"),
    ],
)
def test_what_is_wrong(administering: Cli, command: tuple[str, ...], code: int, said: str) -> None:
    result = administering("tenants", *command)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_a_tenant_is_created_once(administering: Cli) -> None:
    name = unique("t")
    assert administering("tenants", "create", name).exit_code == 0
    again = administering("tenants", "create", name)
    assert again.exit_code == 1
    assert "exists already" in again.stderr


def test_usage_has_a_total_and_the_share_of_the_quota(administering: Cli, local_aws: LocalAws) -> None:
    plan, name = unique("p"), unique("t")
    assert administering("plans", "set", plan, "--daily-quota", "40", "--monthly-quota", "0").exit_code == 0
    assert administering("tenants", "create", name, "--plan", plan).exit_code == 0
    today = datetime.now(UTC).date().isoformat()
    whole = {"errors": 1, "rows": 20, "bytes_in": 1_500_000, "model_us": 2_500_000}
    for period, requests, cost, more in (
        (f"day#{today}", 10, 10_000, whole),
        (f"month#{today[:7]}", 30, 30_000, whole),
        (f"day#{today}#model#cheap", 1, 1_000, {"rows": 2}),
        (f"day#{today}#model#tumor", 4, 5_000, {"rows": 8, "errors": 1}),
    ):
        numbers = {"requests": requests, "cost_nusd": cost, **more}
        client(local_aws, "dynamodb").put_item(
            TableName=local_aws.stack.resources["UsageTable"].name,
            Item={
                "tenant": {"S": name},
                "period": {"S": period},
                **{counter: {"N": str(number)} for counter, number in numbers.items()},
            },
        )
    document = administering.json("tenants", "usage", name, "--since", today)
    assert document["total"]["requests"] == document["days"][0]["requests"] == 10
    assert document["days"][0]["models"]["tumor"]["requests"] == 4
    header, row, total, *states = administering("tenants", "usage", name).stdout.splitlines()
    assert header.split() == ["day", "requests", "errors", "rows", "in", "out", "model", "s", "USD"]
    assert row.split() == [today, "10", "1", "20", "1.5", "MB", "0", "B", "2.5", "0.000010"]
    assert total.split()[:2] == ["total", "10"]
    assert states == [
        f"today: 10 of 40 requests, 25.0% (plan {plan})",
        f"this month: 30 of 0 requests (plan {plan})",
    ]
    header, *rows = administering("tenants", "usage", name, "--by-model").stdout.splitlines()
    assert header.split()[0] == "model"
    shown = {line.rsplit(maxsplit=9)[0].strip(): line.split()[-1] for line in rows[:4]}
    assert list(shown.items()) == [
        ("tumor", "0.000005"),
        ("cheap", "0.000001"),
        ("no model", "0.000004"),
        ("total", "0.000010"),
    ]
    assert rows[2].split()[:5] == ["no", "model", "5", "0", "10"]
    assert rows[4:] == states


def test_no_usage_and_no_quota(administering: Cli) -> None:
    name = unique("t")
    administering("tenants", "create", name)
    shown = administering("tenants", "usage", name, "--since", "2020-01-01", "--until", "2020-01-31").stdout
    assert "No request from 2020-01-01 to 2020-01-31." in shown
    assert "today: 0 requests, no quota (plan default)" in shown


@pytest.mark.parametrize(
    "command", [("list",), ("create", "a"), ("show", "a"), ("update", "a", "--resume"), ("usage", "a")]
)
def test_down(down: Cli, command: tuple[str, ...]) -> None:
    assert down("tenants", *command).exit_code == 3
