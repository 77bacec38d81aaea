"""`sluice keys create`."""

import json
import time
from dataclasses import replace

import pytest

from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.domain.credentials import matches, parse_authorization
from tests.cli.conftest import Cli, local_stack
from tests.cli.deployment import client, deploy, outputs, template, user_environment
from tests.conftest import LocalAws


def assert_stored(local_aws: LocalAws, table: str, text: str) -> None:
    presented = parse_authorization(f"Bearer {text}")
    assert presented is not None
    key = DynamoDBKeys(client(local_aws, "dynamodb"), table).get(presented.key_id)
    assert key is not None
    assert matches(presented, key)


def test_a_key_of_the_local_stack_opens_it(down: Cli, local_aws: LocalAws) -> None:
    down.home.claim()
    stack = local_stack("http://127.0.0.1:1")
    tables = {"KeysTableName": local_aws.keys_table}
    down.home.publish(replace(stack, aws_endpoint_url=local_aws.url, outputs=tables))
    made = down.json("keys", "create", "--tenant", "acme", "--scopes", "predict, jobs", "--days", "90")
    key = DynamoDBKeys(client(local_aws, "dynamodb"), local_aws.keys_table).get(made["key_id"])
    assert key is not None
    assert (key.tenant, sorted(key.scopes), key.plan) == ("acme", ["jobs", "predict"], "default")
    assert key.expires_at == pytest.approx(time.time() + 90 * 86_400, abs=120)
    assert made["api_key"] not in repr(key)


def test_a_key_of_a_deployed_stack_goes_to_its_table(down: Cli, local_aws: LocalAws) -> None:
    name = deploy(local_aws, template("https://api.example.com", functions=False))
    result = down("keys", "create", "--tenant", "acme", "--stack", name, env=user_environment(local_aws))
    assert result.exit_code == 0, result.stderr
    # Standard output is the key alone, so that it can be piped into a secret store.
    assert_stored(local_aws, outputs(local_aws, name)["KeysTableName"], result.stdout.strip())
    assert "not shown again" in result.stderr
    assert result.stdout.strip() not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tenant", "Acme Ltd"), "is no tenant"),
        (("--tenant", "acme", "--scopes", ","), "are no scopes"),
        (("--tenant", "acme", "--scopes", "predict;admin"), "are no scopes"),
        (("--tenant", "acme", "--region", "eu-west-1"), "belong to --stack"),
        ((), "--tenant"),
    ],
)
def test_wrong_usage(down: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = down("keys", "create", *arguments)
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


def test_down_and_no_stack_named(down: Cli) -> None:
    assert down("keys", "create", "--tenant", "acme").exit_code == 3
