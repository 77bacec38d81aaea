"""`sluice keys`."""

import json
import time
from datetime import datetime

import pytest

from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.domain.credentials import PresentedKey, matches, parse_authorization
from tests.adapters.samples import unique
from tests.cli.conftest import Cli
from tests.cli.deployment import client, deploy, outputs, template, user_environment
from tests.conftest import LocalAws

DAY = 86_400
ROLE = "arn:aws:iam::123456789012:role/"


def pepper(local_aws: LocalAws) -> str:
    return local_aws.stack.resources["KeyPepper"].name


def opens(local_aws: LocalAws, table: str, text: str) -> bool:
    """Whether a key holds against what is stored of it."""
    presented = parse_authorization(f"Bearer {text}")
    assert isinstance(presented, PresentedKey)
    stored = DynamoDBKeys(client(local_aws, "dynamodb"), table).get(presented.key_id)
    secret = client(local_aws, "secretsmanager").get_secret_value(SecretId=pepper(local_aws))["SecretString"]
    return matches(presented, stored, secret.encode())


def tenant(cli: Cli) -> str:
    name = unique("t")
    assert cli("tenants", "create", name).exit_code == 0
    return name


def test_a_key_of_the_local_stack_opens_it(administering: Cli, local_aws: LocalAws) -> None:
    owner = tenant(administering)
    options = ("--scopes", "predict, jobs", "--name", "ci", "--days", "90")
    made = administering.json("keys", "create", "--tenant", owner, *options)
    assert (made["tenant"], made["scopes"], made["name"]) == (owner, ["jobs", "predict"], "ci")
    assert datetime.fromisoformat(made["expires_at"]).timestamp() == pytest.approx(time.time() + 90 * DAY, abs=120)
    assert opens(local_aws, local_aws.keys_table, made["api_key"])
    (listed,) = administering.json("keys", "list", "--tenant", owner)["keys"]
    assert listed == {name: value for name, value in made.items() if name != "api_key"}


def test_a_key_of_a_deployed_stack_goes_to_its_table(down: Cli, local_aws: LocalAws) -> None:
    name = deploy(local_aws, template("https://api.example.com", functions=False, pepper=pepper(local_aws)))
    environment = user_environment(local_aws)
    early = down("keys", "create", "--tenant", "acme", "--stack", name, env=environment)
    assert early.exit_code == 1
    assert "There is no tenant" in early.stderr
    assert "sluice tenants create" in early.stderr
    assert down("tenants", "create", "acme", "--stack", name, env=environment).exit_code == 0
    result = down("keys", "create", "--tenant", "acme", "--stack", name, env=environment)
    assert result.exit_code == 0, result.stderr
    # Standard output is the key alone, so that it can be piped into a secret store.
    text = result.stdout.strip()
    assert opens(local_aws, outputs(local_aws, name)["KeysTableName"], text)
    assert "not shown again" in result.stderr
    assert text not in result.stderr
    listed = down("keys", "list", "--tenant", "acme", "--stack", name, env=environment)
    assert text.split("_")[1] in listed.stdout
    assert text.split("_")[2] not in listed.stdout
    assert "active" in listed.stdout


def test_a_rotated_key_and_its_overlap(administering: Cli, local_aws: LocalAws) -> None:
    owner = tenant(administering)
    old = administering.json("keys", "create", "--tenant", owner, "--name", "ci")
    result = administering("keys", "rotate", old["key_id"], "--overlap", "2h")
    assert result.exit_code == 0
    text = result.stdout.strip()
    assert "for 2h at most" in result.stderr
    for key in (text, old["api_key"]):
        assert opens(local_aws, local_aws.keys_table, key)
    listed = {key["key_id"]: key for key in administering.json("keys", "list", "--tenant", owner)["keys"]}
    kept = listed[old["key_id"]]
    assert kept["replaced_by"] == text.split("_")[1]
    assert datetime.fromisoformat(kept["expires_at"]).timestamp() == pytest.approx(time.time() + 7200, abs=120)
    assert listed[kept["replaced_by"]]["name"] == "ci"
    again = administering("keys", "rotate", old["key_id"])
    assert again.exit_code == 1
    assert "was rotated before" in again.stderr
    newest = administering.json("keys", "rotate", kept["replaced_by"], "--overlap", "0", "--days", "1")
    assert datetime.fromisoformat(newest["expires_at"]).timestamp() == pytest.approx(time.time() + DAY, abs=120)


@pytest.mark.parametrize("overlap", ["soon", "1w", "-1", "1.5h", "", "9" * 30, "31d"])
def test_overlaps_that_are_none(administering: Cli, overlap: str) -> None:
    result = administering("keys", "rotate", "a" * 16, f"--overlap={overlap}")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --overlap: ")


def test_an_overlap_has_a_bound(administering: Cli) -> None:
    result = administering("keys", "rotate", "a" * 16, "--overlap", "99d")
    assert result.stderr == "Error: --overlap: must be at most 30 days\n"


def test_a_leaked_key_is_revoked_by_its_id_or_as_it_was_found(administering: Cli) -> None:
    owner = tenant(administering)
    first, second = (administering.json("keys", "create", "--tenant", owner) for _ in range(2))
    result = administering("keys", "revoke", first["key_id"])
    assert result.exit_code == 0
    assert f"{first['key_id']} of {owner} is revoked" in result.stderr
    whole = administering("keys", "revoke", second["api_key"])
    assert whole.exit_code == 0
    assert second["api_key"].rpartition("_")[2] not in whole.output
    assert administering("keys", "revoke", first["key_id"]).exit_code == 0
    statuses = [key["status"] for key in administering.json("keys", "list", "--tenant", owner)["keys"]]
    assert statuses == ["revoked", "revoked"]
    absent = administering("keys", "revoke", "a" * 16)
    assert absent.exit_code == 1
    assert "There is no key" in absent.stderr


def test_a_role_acts_for_a_tenant_until_it_is_revoked(administering: Cli) -> None:
    owner, arn = tenant(administering), ROLE + unique("role")
    result = administering("keys", "bind-role", arn, "--tenant", owner)
    assert result.exit_code == 0, result.stderr
    assert f"{arn} acts for {owner}" in result.stderr
    assert "within 60 s" in result.stderr
    (bound,) = administering.json("keys", "list", "--tenant", owner)["keys"]
    assert (bound["key_id"], bound["status"]) == (f"iam#{arn}", "active")
    assert administering.json("keys", "bind-role", arn, "--tenant", owner, "--scopes", "jobs")["scopes"] == ["jobs"]
    assert administering.json("keys", "revoke", arn)["status"] == "revoked"
    wrong = administering("keys", "bind-role", "arn:aws:s3:::bucket", "--tenant", owner)
    assert wrong.exit_code == 2
    assert "ARN of an IAM role or user" in wrong.stderr


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_ids_are_listed_in_one_piece_however_narrow_the_terminal_is(administering: Cli, columns: str) -> None:
    owner, arn = tenant(administering), ROLE.replace("role/", "user/") + "team/" * 20 + unique("user")
    made = administering.json("keys", "create", "--tenant", owner, "--scopes", "predict,jobs,ingest")
    assert administering("keys", "bind-role", arn, "--tenant", owner).exit_code == 0
    listed = administering("keys", "list", "--tenant", owner, env={"COLUMNS": columns}).stdout.splitlines()
    assert {made["key_id"], f"iam#{arn}"} <= {line.split()[0] for line in listed}


def test_a_tenant_without_keys_and_one_that_is_not_there(administering: Cli) -> None:
    owner = tenant(administering)
    result = administering("keys", "list", "--tenant", owner)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "has no key yet" in result.stderr
    assert administering("keys", "list", "--tenant", "absent").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tenant", "any", "--scopes", ","), "--scopes: must hold 1 to"),
        (("--tenant", "any", "--scopes", "predict;admin"), "is no scope"),
        (("--tenant", "any", "--scopes", "predict admin"), "is no scope"),
        (("--tenant", "any", "--name", "n" * 65), "--name: must have at most 64 characters"),
        (("--tenant", "any", "--region", "eu-west-1"), "belong to --stack"),
        (("--tenant", "any", "--days", "0"), "--days"),
        ((), "--tenant"),
    ],
)
def test_wrong_usage(administering: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = administering("keys", "create", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_stack_that_is_not_there_or_no_sluice_is_named(down: Cli, local_aws: LocalAws) -> None:
    absent = down("keys", "create", "--tenant", "acme", "--stack", "absent", env=user_environment(local_aws))
    assert absent.exit_code == 1
    assert "absent" in absent.stderr
    bare = json.dumps({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}})
    other = deploy(local_aws, bare)
    result = down("keys", "create", "--tenant", "acme", "--stack", other, env=user_environment(local_aws))
    assert result.exit_code == 1
    assert "has no output KeysTableName" in result.stderr


def test_without_credentials_it_says_so(down: Cli, local_aws: LocalAws) -> None:
    environment = user_environment(local_aws, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    result = down("keys", "create", "--tenant", "acme", "--stack", "any", env=environment)
    assert result.exit_code == 2
    assert "credentials" in result.stderr
    assert "Traceback" not in result.stderr


def test_aws_out_of_reach_exits_with_3(down: Cli, local_aws: LocalAws) -> None:
    environment = user_environment(local_aws, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    result = down("keys", "create", "--tenant", "acme", "--stack", "any", env=environment)
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("create", "--tenant", "acme"),
        ("list", "--tenant", "acme"),
        ("rotate", "a" * 16),
        ("revoke", "a" * 16),
        ("bind-role", f"{ROLE}x", "--tenant", "acme"),
    ],
)
def test_down_and_no_stack_named(down: Cli, command: tuple[str, ...]) -> None:
    assert down("keys", *command).exit_code == 3
