"""`sluice features`."""

import csv
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.adapters.samples import unique
from tests.cli.conftest import Cli
from tests.cli.deployment import deploy, template
from tests.conftest import LocalAws


@pytest.fixture
def tenant(administering: Cli) -> str:
    name = unique("t")
    assert administering("tenants", "create", name).exit_code == 0
    return name


def put(cli: Cli, tenant: str, *arguments: str, code: int = 0) -> str:
    result = cli("features", "put", "--set", "customer", "--tenant", tenant, *arguments)
    assert result.exit_code == code, result.output
    return result.stderr


def get(cli: Cli, tenant: str, entity: str) -> Any:
    return cli.json("features", "get", "--set", "customer", "--tenant", tenant, entity)


def write_csv(path: Path, *rows: list[str]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def test_one_entity(administering: Cli, tenant: str) -> None:
    given = ["age=41", "score=-0.5", "returning=true", "segment=gold", 'zip="01234"', "note=a=b", "empty="]
    assert "c/1 has 7 features in customer" in put(administering, tenant, "c/1", *given, "--at", "2026-11-20T12:00:00Z")
    document = get(administering, tenant, "c/1")
    assert document["features"] == {
        "age": 41,
        "score": -0.5,
        "returning": True,
        "segment": "gold",
        "zip": "01234",
        "note": "a=b",
        "empty": "",
    }
    assert (document["at"], document["expires_at"]) == ("2026-11-20T12:00:00+00:00", None)
    shown = administering("features", "get", "--set", "customer", "--tenant", tenant, "c/1").stdout
    assert "c/1 in customer" in shown
    assert "returning  true" in shown
    put(administering, tenant, "c/1", "age=42", "--days", "2")
    replaced = get(administering, tenant, "c/1")
    assert replaced["features"] == {"age": 42}
    assert replaced["expires_at"] > replaced["at"]
    removed = administering("features", "delete", "--set", "customer", "--tenant", tenant, "c/1")
    assert "Removed 1 features of c/1" in removed.stderr
    assert administering("features", "get", "--set", "customer", "--tenant", tenant, "c/1").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Name an ENTITY"),
        (["c", "age=1", "--file", "f.csv"], 2, "Name an ENTITY"),
        (["--file", "f.csv"], 2, "--file needs --entity-column"),
        (["c", "age=1", "--text", "age"], 2, "belong to --file"),
        (["c"], 2, "must hold at least one feature"),
        (["c", "age"], 2, "given once each, as NAME=VALUE"),
        (["c", "age=1", "age=2"], 2, "given once each"),
        (["c", "age=NaN"], 2, "finite number"),
        (["c", "age=1", "--at", "yesterday"], 2, "--at: 'yesterday' is no time"),
        (["c", "age=1", "--at", "1800000000000"], 2, "--at: must be a time that has passed"),
        (["", "age=1"], 2, "ENTITY: must have 1 to 256 characters"),
        (["--file", "absent.csv", "--entity-column", "id"], 2, "cannot be read"),
        (["c", "age=1", "--stack", "s", "--tenant", "acme", "--region", "us-east-1"], 2, ""),
    ],
)
def test_wrong_usage(administering: Cli, tenant: str, arguments: list[str], code: int, said: str) -> None:
    if "--stack" in arguments:
        arguments = [each for each in arguments if each not in ("--tenant", "acme")]
        result = administering("features", "put", "--set", "customer", *arguments)
        assert (result.exit_code, "--stack needs --tenant" in result.stderr) == (code, True)
        return
    assert said in put(administering, tenant, *arguments, code=code)


def test_unknown_tenants_and_sets(administering: Cli, tenant: str) -> None:
    assert "There is no tenant" in put(administering, "absent", "c", "age=1", code=1)
    result = administering("features", "put", "--set", "No Set", "--tenant", tenant, "c", "age=1")
    assert (result.exit_code, "--set: must be lower-case" in result.stderr) == (2, True)


def test_a_csv_file(administering: Cli, tenant: str, tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "customers.csv",
        ["id", "age", "returning", "zip", "segment", "updated"],
        ["c1", "41", "True", "01234", "gold", "2026-11-20T12:00:00"],
        ["c2", "4.5e1", "false", "12345", "", "1763640000"],
        ["c3", "nan", "true", "2", "nan", "2026-11-20 13:00:00+01:00"],
    )
    said = put(administering, tenant, "--file", path, "--entity-column", "id", "--at", "updated", "--text", "zip")
    assert "Stored the features of 3 rows in customer" in said
    found = [get(administering, tenant, f"c{number}") for number in (1, 2, 3)]
    assert [each["features"] for each in found] == [
        {"age": 41, "returning": True, "zip": "01234", "segment": "gold"},
        {"age": 45, "returning": False, "zip": "12345"},
        {"returning": True, "zip": "2"},
    ]
    assert [each["at"] for each in found] == [
        "2026-11-20T12:00:00+00:00",
        "2025-11-20T12:00:00+00:00",
        "2026-11-20T12:00:00+00:00",
    ]


def test_rows_that_are_wrong_are_named_and_keep_no_other(administering: Cli, tenant: str, tmp_path: Path) -> None:
    rows = [[f"c{number}", str(number), "1"] for number in range(150)]
    rows[3] = ["", "1", "1"]
    rows[120] = ["c120", "1", "yesterday"]
    rows[121] = ["c121", "1"]
    rows[122] = ["c122", "9" * 30, "1"]
    path = write_csv(tmp_path / "rows.csv", ["id", "n", "at"], *rows)
    arguments = ["--file", path, "--entity-column", "id", "--at", "at"]
    said = put(administering, tenant, *arguments, code=1)
    assert "line 5: the column 'id' is empty" in said
    assert "line 122: /at: 'yesterday' is no time" in said
    assert "line 123: it has 2 cells where there are 3 columns" in said
    assert "line 124: /features/n: must be an integer of 64 bits" in said
    assert "Stored the features of 146 rows" in said
    assert "4 rows were not stored." in said
    assert get(administering, tenant, "c149")["features"] == {"n": 149}
    # Repeating it changes nothing.
    result = administering("features", "put", "--set", "customer", "--tenant", tenant, *arguments, "--json")
    assert result.exit_code == 1
    assert '"stored": 146' in result.stdout
    assert '"place": "line 5"' in result.stdout


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (b"", ["--entity-column", "id"], "has no column id; it has none at all"),
        (b"a,b\n1,2\n", ["--entity-column", "id"], "has no column id; it has a, b"),
        (b"id,b\n1,2\n", ["--entity-column", "id", "--at", "t", "--text", "b"], "has no column t"),
        (b"id,b,b\n1,2,3\n", ["--entity-column", "id"], "two columns of one name"),
        (b"id\n1\n", ["--entity-column", "id"], "no column with features"),
        (b"id,b\n1,\xff\n", ["--entity-column", "id"], "cannot be read"),
        (b'id,b\n1,"' + b"x" * 200_000 + b'"\n', ["--entity-column", "id"], "field larger than field limit"),
    ],
)
def test_files_that_cannot_be_used(
    administering: Cli, tenant: str, tmp_path: Path, content: bytes, options: list[str], said: str
) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    assert said in put(administering, tenant, "--file", str(path), *options, code=2)


def test_a_parquet_file(administering: Cli, tenant: str, tmp_path: Path) -> None:
    path = tmp_path / "customers.parquet"
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array([7, 8, None]),
            "age": pa.array([41, None, 3]),
            "score": pa.array([0.5, float("nan"), 1.0]),
            "amount": pa.array([Decimal("1.50"), Decimal("2.00"), None]),
            "returning": pa.array([True, False, True]),
            "segment": pa.array(["gold", "gold", None]).dictionary_encode(),
            "updated": pa.array([noon, noon.replace(hour=13), noon]),
        }
    )
    parquet.write_table(table, path)
    arguments = ["--file", str(path), "--entity-column", "id", "--at", "updated"]
    said = put(administering, tenant, *arguments, code=1)
    assert "row 3: the column 'id' is empty" in said
    first, second = get(administering, tenant, "7"), get(administering, tenant, "8")
    assert first["features"] == {"age": 41, "score": 0.5, "amount": 1.5, "returning": True, "segment": "gold"}
    assert second["features"] == {"amount": 2, "returning": False, "segment": "gold"}
    assert (first["at"], second["at"]) == ("2026-11-20T12:00:00+00:00", "2026-11-20T13:00:00+00:00")
    path.write_bytes(b"no Parquet")
    assert "is no Parquet file" in put(administering, tenant, *arguments, code=2)


def test_parquet_without_pyarrow(
    administering: Cli, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "customers.pq"
    path.touch()
    assert "pip install" in put(administering, tenant, "--file", str(path), "--entity-column", "id", code=2)


def test_a_deployed_stack(down: Cli, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    stack, owner = deploy(local_aws, template("https://api.example.com")), unique("t")
    assert down("tenants", "create", owner, "--stack", stack).exit_code == 0
    where = ["--set", "customer", "--tenant", owner, "--stack", stack]
    assert down("features", "put", "c1", "age=1", *where).exit_code == 0
    assert down.json("features", "get", "c1", *where)["features"] == {"age": 1}
