"""`sluice traffic` on real stores."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.cli.endpoints import publish, set_, terminal
from tests.conftest import LocalAws


@pytest.fixture
def name(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> str:
    """An endpoint whose traffic `prod`, version 2 of 3, has."""
    made = publish(local_aws, 1, 2, 3)
    set_(
        administering, tmp_path, made, "labels: {prod: 2}\nvariants: [{name: main, version: prod, backend: container}]"
    )
    return made


def weights(cli: Cli, name: str) -> dict[str, float]:
    return {variant["name"]: variant["weight"] for variant in cli.json("endpoints", "show", name)["variants"]}


def split(cli: Cli, name: str, *arguments: str) -> Any:
    (outcome,) = cli.json("traffic", name, *arguments, "--yes")["endpoints"]
    return outcome


def test_a_version_gets_a_share_and_the_rest_stays_in_proportion(administering: Cli, name: str) -> None:
    planned = administering("traffic", name, "3=5%", "--dry-run")
    assert planned.exit_code == 0
    assert "    + variants[v3].weight = 5.0\n" in planned.stdout
    assert "    ~ variants[main].weight: 100.0 -> 95.0\n" in planned.stdout
    assert weights(administering, name) == {"main": 100}
    assert split(administering, name, "3=5%", "--note", "canary")["outcome"] == "updated"
    assert weights(administering, name) == {"main": 95, "v3": 5}
    split(administering, name, "1=0.2")
    assert weights(administering, name) == {"main": 76, "v3": 4, "v1": 20}
    split(administering, name, "prod=50%", "v3=.5")
    assert weights(administering, name) == {"main": 50, "v3": 50, "v1": 0}
    split(administering, name, "main=100.0%")
    assert weights(administering, name) == {"main": 100, "v3": 0, "v1": 0}
    assert administering.json("endpoints", "show", name, "--revision", "2")["note"] == "canary"


def test_the_split_is_shown(administering: Cli, name: str) -> None:
    split(administering, name, "3=1%", "--shadow", "1=10%", "--sticky", "tenant")
    shown = administering("traffic", name).stdout
    assert shown.splitlines()[0] == f"{name}, revision 2"
    rows = [line.split() for line in shown.splitlines()]
    assert ["main", "prod", "=", "2", "container", "99%"] in rows
    assert ["v3", "3", "container", "1%"] in rows
    assert ["v1", "1", "container", "0%"] in rows
    assert "Callers stay with their variant by tenant." in shown
    assert "Labels: prod = 2." in shown
    assert "v1 gets copies of 10% of the requests." in shown
    document = administering.json("traffic", name)
    assert [(variant["name"], variant["share"]) for variant in document["variants"]] == [
        ("main", 0.99),
        ("v3", 0.01),
        ("v1", 0.0),
    ]
    assert document["shadow"] == {"variant": "v1", "share": 0.1}


def test_an_endpoint_for_which_nothing_is_set(administering: Cli, local_aws: LocalAws) -> None:
    name = publish(local_aws, 1, 2)
    shown = administering("traffic", name).stdout
    assert shown.splitlines()[0] == f"{name}, nothing is set, so the defaults hold"
    refused = administering("traffic", name, "2=5%", "--yes")
    assert (refused.exit_code, "the highest version" in refused.stderr) == (2, True)
    outcome = split(administering, name, "1=95%", "2=5%")
    assert (outcome["outcome"], outcome["revision"]) == ("created", 1)
    assert weights(administering, name) == {"main": 0, "v1": 95, "v2": 5}


def test_a_shadow_comes_and_goes(administering: Cli, name: str) -> None:
    split(administering, name, "--shadow", "3")
    document = administering.json("endpoints", "show", name)
    assert document["shadow"] == {"variant": "v3", "share": 1.0}
    assert weights(administering, name) == {"main": 100, "v3": 0}
    split(administering, name, "--shadow", "prod=50%")  # a variant that is there keeps its traffic
    document = administering.json("endpoints", "show", name)
    assert document["shadow"] == {"variant": "main", "share": 0.5}
    assert weights(administering, name) == {"main": 100, "v3": 0}
    split(administering, name, "--no-shadow")
    assert administering.json("endpoints", "show", name)["shadow"] is None
    split(administering, name, "--sticky", "header:X-User-Id")
    assert administering.json("endpoints", "show", name)["sticky"] == "header:x-user-id"
    unchanged = administering("traffic", name, "--no-shadow")
    assert (unchanged.exit_code, "1 unchanged" in unchanged.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("3=5",), "'3=5': write 5% or a fraction"),
        (("3=1",), "'3=1': write 1% or a fraction"),
        (("3",), "'3': write VERSION=SHARE"),
        (("3=",), "write VERSION=SHARE"),
        (("=5%",), "write VERSION=SHARE"),
        (("3=five%",), "write VERSION=SHARE"),
        (("3=-5%",), "write VERSION=SHARE"),
        (("3=101%",), "a share is 100% at most"),
        (("3=1.5",), "a share is 100% at most"),
        (("3=5%", "3=6%"), "3 is given twice"),
        (("--shadow", "3=5"), "write 5% or a fraction"),
        (("--shadow", "3", "--no-shadow"), "Either --shadow or --no-shadow"),
    ],
)
def test_what_is_no_share(down: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = down("traffic", "e", *arguments, "--yes")
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


def test_shares_that_cannot_be(administering: Cli, name: str) -> None:
    for arguments, code, said in (
        (("3=60%", "prod=60%"), 2, "add up to 120 %"),
        (("prod=10%",), 2, "say where the rest goes"),
        (("9=5%",), 1, "9: "),
        (("nothing=5%",), 1, "nothing: "),
        (("--shadow", "9"), 1, "has no version 9"),
        (("--sticky", "luck"), 2, "/sticky: is tenant, key"),
    ):
        result = administering("traffic", name, *arguments, "--yes")
        assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert weights(administering, name) == {"main": 100}


def test_it_asks_at_a_terminal_and_refuses_elsewhere(administering: Cli, name: str) -> None:
    refused = administering("traffic", name, "3=5%")
    assert (refused.exit_code, "Say --yes" in refused.stderr) == (2, True)
    with terminal(administering, "traffic", name, "3=5%") as shown:
        shown.until("Apply this? [y/N]: ")
        assert shown.answer("y") == 0
    assert weights(administering, name) == {"main": 95, "v3": 5}
