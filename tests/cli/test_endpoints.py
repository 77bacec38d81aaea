"""`sluice endpoints` on real stores."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from shared.adapters.dynamodb_traffic import additions
from shared.domain.endpoint.traffic_counts import TrafficKey, traffic_period
from tests.adapters.samples import unique
from tests.cli.conftest import Cli
from tests.cli.deployment import client, deploy, template, user_environment
from tests.cli.endpoints import publish, set_, terminal
from tests.conftest import LocalAws

SPLIT = """
labels: {prod: 1}
variants:
- {name: main, version: prod, weight: 95}
- {name: next, weight: 5}
- {name: dark, version: 2, weight: 0, backend: container}
shadow: {variant: dark, share: 0.1}
experiment: {name: wider, unit: key, arms: {main: 1, next: 3}}
cache: {ttl_s: 60}
backends:
  far: {kind: sagemaker, options: {endpoint: far-prod}, usd_per_hour: 1.5}
response:
  classes: {y: [größer]}
"""


def test_a_list_has_what_is_set_in_a_line(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    name, plain = publish(local_aws, 1, 2), publish(local_aws, 1)
    set_(administering, tmp_path, name, SPLIT)
    set_(administering, tmp_path, plain, "timeout_ms: 5")
    listed = administering("endpoints", "list", env={"COLUMNS": "250"}).stdout.splitlines()
    assert listed[0].split() == ["endpoint", "revision", "variants", "shadow", "experiment", "changed"]
    row = next(line for line in listed if line.startswith(name))
    assert " main 95% (prod" in row  # the rest may be on further lines of the cell
    assert "dark (10%)" in row
    assert " wider " in row
    assert " main 100%" in next(line for line in listed if line.startswith(plain))
    documents = {found["endpoint"]: found for found in administering.json("endpoints", "list")["endpoints"]}
    assert documents[name]["revision"] == 1
    assert documents[plain]["timeout_ms"] == 5


def test_show_prints_what_differs_from_the_defaults_or_all(
    administering: Cli, local_aws: LocalAws, tmp_path: Path
) -> None:
    name = publish(local_aws, 1, 2)
    set_(administering, tmp_path, name, SPLIT, "--note", "why\nnot")
    shown = administering("endpoints", "show", name).stdout
    assert yaml.safe_load(shown) == {"endpoint": name, **yaml.safe_load(SPLIT)}
    assert shown.splitlines()[0].endswith(": why not")
    full = yaml.safe_load(administering("endpoints", "show", name, "--full", "--yaml").stdout)
    document = administering.json("endpoints", "show", name)
    assert full == {member: value for member, value in document.items() if member in full}
    assert set(document) - set(full) == {"revision", "changed_at", "changed_by", "note"}
    assert full["retries"]["attempts"] == 1
    for text in (shown, json.dumps(full)):
        again = administering("apply", "-f", "-", "--dry-run", "--exit-code", stdin=text)
        assert again.exit_code == 0, again.output


def test_what_was_never_set_are_the_defaults(administering: Cli) -> None:
    name = unique("e")
    shown = administering("endpoints", "show", name)
    assert shown.exit_code == 0
    assert shown.stdout == (
        f"# {name}: nothing is stored, and these are the defaults.\n"
        f"endpoint: {name}\nvariants:\n- name: main\n  weight: 100\n"
    )
    assert "Nothing was ever set" in administering("endpoints", "history", name).stderr
    assert administering.json("endpoints", "history", name) == {"revisions": []}


def test_history_and_the_way_back(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    name = publish(local_aws, 1, 2)
    for timeout in (100, 200, 300):
        set_(administering, tmp_path, name, f"timeout_ms: {timeout}", "--note", f"to {timeout}")
    lines = administering("endpoints", "history", name).stdout.splitlines()
    assert lines[0].split() == ["revision", "when", "by", "changes", "note"]
    assert [(row.split()[0], row.split()[4], row.split()[5:]) for row in lines[1:]] == [
        ("3", "1", ["to", "300"]),
        ("2", "1", ["to", "200"]),
        ("1", "3", ["to", "100"]),
    ]
    diff = administering("endpoints", "history", name, "--diff", "--limit", "1").stdout.splitlines()
    assert diff[0].startswith("revision 3, 20")
    assert diff[0].endswith(": to 300")
    assert diff[1:] == ["    ~ timeout_ms: 200 -> 300"]
    planned = administering("endpoints", "rollback", name, "--dry-run")
    assert "    ~ timeout_ms: 300 -> 200\n" in planned.stdout
    assert administering("endpoints", "rollback", name).exit_code == 2
    done = administering("endpoints", "rollback", name, "--to", "1", "--yes")
    assert done.exit_code == 0, done.stderr
    assert f"{name} has revision 4 now." in done.stderr
    document = administering.json("endpoints", "show", name)
    assert (document["timeout_ms"], document["note"]) == (100, "Back to revision 1")
    unchanged = administering("endpoints", "rollback", name, "--to", "1")
    assert (unchanged.exit_code, "Plan: 0 to create, 0 to update, 1 unchanged." in unchanged.stdout) == (0, True)
    revisions = administering.json("endpoints", "history", name, "--limit", "2")["revisions"]
    assert [(found["revision"], [change["text"] for change in found["changes"]]) for found in revisions] == [
        (4, ["~ timeout_ms: 300 -> 100"]),
        (3, ["~ timeout_ms: 200 -> 300"]),
    ]


def test_there_is_no_way_back_from_the_first_or_to_what_is_not_kept(
    administering: Cli, local_aws: LocalAws, tmp_path: Path
) -> None:
    name = publish(local_aws, 1)
    set_(administering, tmp_path, name, "timeout_ms: 100")
    first = administering("endpoints", "rollback", name, "--yes")
    assert (first.exit_code, "There is no revision to go back to" in first.stderr) == (1, True)
    which = f"{name} has only revision 1, see `sluice endpoints history {name}`."
    for arguments in (("rollback", name, "--to", "7", "--yes"), ("show", name, "--revision", "9")):
        absent = administering("endpoints", *arguments)
        assert (absent.exit_code, absent.stderr) == (1, f"Error: There is no such revision: {which}\n")
    set_(administering, tmp_path, name, "timeout_ms: 200")
    assert f"{name} has the revisions 1 to 2" in administering("endpoints", "rollback", name, "--to", "7").stderr
    nothing = administering("endpoints", "rollback", "never-set")
    assert (nothing.exit_code, "nothing was ever set for never-set" in nothing.stderr) == (1, True)
    assert administering("endpoints", "show", "No Name").exit_code == 1
    assert administering("endpoints", "show", name, "--yaml", "--json").exit_code == 2


@pytest.mark.parametrize("arguments", [("rollback", "tumor", "--to", "0"), ("show", "tumor", "--revision", "-1")])
def test_revisions_begin_at_one(down: Cli, arguments: tuple[str, ...]) -> None:
    result = down("endpoints", *arguments)
    assert result.exit_code == 2
    assert "they begin at 1, see `sluice endpoints history tumor`" in result.stderr
    assert "the defaults hold" in result.stderr


def test_a_rollback_is_refused_when_somebody_was_faster(
    administering: Cli, local_aws: LocalAws, tmp_path: Path
) -> None:
    name = publish(local_aws, 1)
    for timeout in (100, 200):
        set_(administering, tmp_path, name, f"timeout_ms: {timeout}")
    with terminal(administering, "endpoints", "rollback", name) as mine:
        mine.until("Apply this? [y/N]: ")
        set_(administering, tmp_path, name, "timeout_ms: 300")
        assert mine.answer("y") == 1
    assert f"{name} has revision 3, and not 2" in mine.shown
    assert administering.json("endpoints", "show", name)["timeout_ms"] == 300


def test_stats_show_what_was_counted(administering: Cli, local_aws: LocalAws) -> None:
    name, day = unique("e"), datetime.now(UTC).date()
    answered = {"answers": 1, "us": 20_000}
    counters = {
        "variant#main": {"requests": 2, "answers": 2, "us": 40_000, "fallbacks": 1},
        "variant#next": {"requests": 2, "errors": 1, "cache_hits": 1, **answered},
        "arm#wider#main": {"exposures": 1, **answered},
        "shadow#dark": {
            "copied": 2, "dropped": 1, "compared": 1, "rows": 4, "agreeing": 3, "distance": 250_000_000_000,
            "timed": 1, "us": 30_000, "primary_us": 10_000, "log_ratio": 1_098_612, "decade-1": 1,
        },
        "fallback#variant=next#backend_timeout": {"requests": 1},
    }  # fmt: skip
    flat = {f"{subject}#{own}": count for subject, owns in counters.items() for own, count in owns.items()}
    items = additions(
        local_aws.stack.resources["TrafficTable"].name, {TrafficKey(name, traffic_period(day, "0")): flat}
    )
    client(local_aws, "dynamodb").transact_write_items(TransactItems=items)
    shown = administering("endpoints", "stats", name).stdout
    rows = [line.split() for line in shown.splitlines() if line]
    assert ["main", "2", "50%", "0", "0", "0%", "1", "20.0"] in rows
    assert ["next", "2", "50%", "1", "1", "50%", "0", "20.0"] in rows
    assert ["wider", "main", "1", "0", "0%", "0", "20.0"] in rows
    assert ["dark", "2", "50%", "0", "1", "75%", "0.25", "30.0", "10.0", "3.00"] in rows
    assert ["dark", "1e-1", "1e0", "1"] in rows
    assert ["variant=next", "backend_timeout", "1"] in rows
    document = administering.json("endpoints", "stats", name, "--until", day.isoformat())
    assert document["shadows"]["dark"]["agreement_rate"] == 0.75
    assert document["until"] == day.isoformat()
    before = administering("endpoints", "stats", name, "--until", "2026-01-31", "--since", "2026-01-01")
    assert f"No request of {name} reached a version from 2026-01-01 to 2026-01-31." in before.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "yesterday"), "'yesterday' is no day"),
        (("--since", "2026-02-01", "--until", "2026-01-01"), "since"),
        (("--since", "2020-01-01", "--until", "2026-01-01"), "since"),
    ],
)
def test_days_that_cannot_be(administering: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = administering("endpoints", "stats", "e", *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_a_deployed_stack_without_the_counters_says_so(down: Cli, local_aws: LocalAws) -> None:
    stack = deploy(local_aws, template("https://api.example.com", functions=False))
    env = user_environment(local_aws)
    result = down("endpoints", "stats", "e", "--stack", stack, env=env)
    assert (result.exit_code, "no output TrafficTableName" in result.stderr) == (1, True)
    listed = down("endpoints", "list", "--stack", stack, env=env)
    assert (listed.exit_code, "Nothing is set for any endpoint" in listed.stderr) == (0, True)
