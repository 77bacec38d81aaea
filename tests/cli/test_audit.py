"""`sluice audit verify` and `sluice audit show`."""

import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.adapters.s3_anchors import S3Anchors
from shared.domain.audit import shard_of
from shared.domain.request_line import LogBatch
from shared.usecases.anchor_heads import AnchorHeads
from shared.usecases.record_lines import RecordLines
from tests.adapters.samples import unique
from tests.cli.conftest import Cli, local_stack
from tests.cli.deployment import client, deploy, user_environment
from tests.conftest import LocalAws
from tests.log_lines import authorization, entry, request

NOW = datetime.now(UTC).replace(microsecond=0)
STREAM = "a stream"
SHARD = shard_of(STREAM, 4)


def _create(dynamodb: Any, name: str, key: str, sort: str, sort_type: str) -> str:
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": key, "AttributeType": "S"},
            {"AttributeName": sort, "AttributeType": sort_type},
        ],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}],
    )
    return name


class Trail:
    """An audit trail of its own, and a way to write to it."""

    def __init__(self, local_aws: LocalAws, dynamodb: Any, s3: Any) -> None:
        self.local_aws, self.dynamodb, self.s3 = local_aws, dynamodb, s3
        self.table = _create(dynamodb, unique("audit"), "shard", "seq", "N")
        self.bucket = unique("audit")
        s3.create_bucket(Bucket=self.bucket)
        s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        usage = _create(dynamodb, unique("usage"), "tenant", "period", "S")
        traffic = _create(dynamodb, unique("traffic"), "endpoint", "period", "S")
        self.lines = RecordLines(DynamoDBAuditLedger(dynamodb, self.table, usage, traffic), 4)
        self.anchor = AnchorHeads(S3Anchors(s3, self.bucket), 3600)

    @property
    def outputs(self) -> dict[str, str]:
        return {"AuditTableName": self.table, "AuditBucketName": self.bucket}

    def record(self, *lines: str, stream: str = STREAM, at: datetime = NOW) -> None:
        done = self.lines(LogBatch("g", stream, [entry(line, at) for line in lines]))
        assert done.last is not None
        self.anchor(done.last)

    def change(self, seq: int, **attributes: Any) -> None:
        key = {"shard": {"S": SHARD}, "seq": {"N": str(seq)}}
        item = self.dynamodb.get_item(TableName=self.table, Key=key)["Item"]
        self.dynamodb.put_item(TableName=self.table, Item=item | attributes)

    def delete(self, seq: int) -> None:
        key = {"shard": {"S": SHARD}, "seq": {"N": str(seq)}}
        self.dynamodb.delete_item(TableName=self.table, Key=key)


@pytest.fixture(scope="module")
def clients(local_aws: LocalAws) -> tuple[Any, Any]:
    return client(local_aws, "dynamodb"), client(local_aws, "s3")


@pytest.fixture
def trail(local_aws: LocalAws, clients: tuple[Any, Any]) -> Trail:
    return Trail(local_aws, *clients)


@pytest.fixture
def local(down: Cli, trail: Trail) -> Cli:
    """The command where the stack of `trail` is the local one."""
    down.home.claim()
    stack = local_stack("http://127.0.0.1:1")
    down.home.publish(replace(stack, aws_endpoint_url=trail.local_aws.url, outputs=trail.outputs))
    return down


def at(minutes: int) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


def fill(trail: Trail, count: int = 4) -> None:
    for number in range(count):
        minutes = 10 * (count - number)
        trail.record(
            request(request_id=f"r-{number}", timestamp=at(minutes), tenant="acme" if number % 2 else "beta"),
            at=NOW - timedelta(minutes=minutes),
        )


# ------------------------------------------------------------------------------------- verify


def test_a_trail_that_is_whole(local: Cli, trail: Trail) -> None:
    fill(trail)
    trail.record(request(), stream="another stream")
    result = local("audit", "verify")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("whole") == 2
    document = local.json("audit", "verify")
    assert document["intact"] is True
    assert {"shard": SHARD, "segments": 4, "records": 4, "anchored": 1, "breaches": []} in document["shards"]


def test_a_trail_without_segments(local: Cli) -> None:
    result = local("audit", "verify")
    assert result.exit_code == 0
    assert "no segments yet" in result.stderr
    assert local.json("audit", "verify") == {"intact": True, "shards": []}


def test_a_changed_record_ends_with_1_and_its_place(local: Cli, trail: Trail) -> None:
    fill(trail)
    trail.change(2, records={"B": zlib.compress(b'{"kind":"request"}', wbits=31)})
    result = local("audit", "verify")
    assert result.exit_code == 1
    assert "broken" in result.stdout
    assert f"shard {SHARD}, segment 2: changed" in result.stderr
    document = local("audit", "verify", "--json")
    assert document.exit_code == 1
    (shard,) = json.loads(document.stdout)["shards"]
    assert [(breach["seq"], breach["damage"]) for breach in shard["breaches"]] == [(2, "changed")]
    assert document.stderr == ""


@pytest.mark.parametrize(
    ("gone", "place"),
    [
        ((2,), "segment 2: missing"),
        ((4,), "segment 4: truncated"),
        ((0,), "segment 4: head"),
        ((0, 1, 2, 3, 4), "segment 1: truncated"),  # all of it: the anchor remembers
    ],
)
def test_what_was_removed_is_found(local: Cli, trail: Trail, gone: tuple[int, ...], place: str) -> None:
    fill(trail)
    for seq in gone:
        trail.delete(seq)
    result = local("audit", "verify")
    assert result.exit_code == 1
    assert place in result.stderr


def test_an_anchor_that_was_hidden_counts_all_the_same(local: Cli, trail: Trail) -> None:
    fill(trail)
    trail.s3.delete_object(Bucket=trail.bucket, Key=f"anchors/{SHARD}/000000000001.json")
    result = local("audit", "verify")
    assert result.exit_code == 1
    assert "segment 1: anchor" in result.stderr


def test_of_many_places_some_are_shown(local: Cli, trail: Trail) -> None:
    fill(trail, 22)
    for seq in range(1, 23):
        trail.change(seq, records={"B": b"x"})
    result = local("audit", "verify")
    assert result.stderr.count(": changed") == 20
    assert "and 2 more" in result.stderr


def test_a_deployed_stack_by_its_name(down: Cli, trail: Trail, local_aws: LocalAws) -> None:
    fill(trail)
    body = {
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {output: {"Value": value} for output, value in trail.outputs.items()},
    }
    name = deploy(local_aws, json.dumps(body))
    environment = user_environment(local_aws)
    assert down("audit", "verify", "--stack", name, env=environment).exit_code == 0
    trail.delete(3)
    result = down("audit", "verify", "--stack", name, env=environment)
    assert result.exit_code == 1
    assert "segment 3: missing" in result.stderr
    shown = down("audit", "show", "--stack", name, "--json", env=environment)
    assert [record["request_id"] for record in json.loads(shown.stdout)["records"]] == ["r-0", "r-1", "r-3"]


def test_who_cannot_be_asked(down: Cli, local_aws: LocalAws) -> None:
    assert down("audit", "verify").exit_code == 3
    assert down("audit", "show").exit_code == 3
    assert down("audit", "verify", "--region", "eu-west-1").exit_code == 2
    away = user_environment(local_aws, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert down("audit", "verify", "--stack", "any", env=away).exit_code == 3
    absent = down("audit", "show", "--stack", "absent", env=user_environment(local_aws))
    assert absent.exit_code == 1
    assert "absent" in absent.stderr


# --------------------------------------------------------------------------------------- show


def test_records_are_shown_by_time(local: Cli, trail: Trail) -> None:
    fill(trail)
    trail.record(
        authorization(authorized=False, reason="expired", tenant=None, timestamp=at(1)),
        request(target="key k9", route="POST /v1/admin/keys", model=None, version=None, timestamp=at(0)),
        '{"message": "request"}',
        stream="another stream",
    )
    lines = local("audit", "show").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["r-0", "r-1", "r-2", "r-3", "g-1", "r-1", "-"]
    assert lines[0].split("  ")[1:] == ["beta k1", "POST /v1/models/{model}/predict tumor 3", "200 ok", "r-0"]
    assert lines[4].split("  ")[1:4] == ["- k1", "authorization", "refused (expired)"]
    assert lines[5].split("  ")[2] == "POST /v1/admin/keys key k9"
    assert lines[6].split("  ")[2] == "unreadable line of 22 bytes"


def test_records_are_chosen(local: Cli, trail: Trail) -> None:
    fill(trail)

    def shown(*arguments: str) -> list[str]:
        return [record["request_id"] for record in local.json("audit", "show", *arguments)["records"]]

    assert shown("--tenant", "acme") == ["r-1", "r-3"]
    assert shown("--limit", "1") == ["r-3"]
    assert shown("--since", "25m") == ["r-2", "r-3"]
    assert shown("--since", at(15)) == ["r-3"]
    assert shown("--since", "1970-01-01") == ["r-0", "r-1", "r-2", "r-3"]
    assert shown("--tenant", "nobody") == []
    nobody = local("audit", "show", "--tenant", "nobody")
    assert (nobody.exit_code, nobody.stdout) == (0, "")
    assert "No record" in nobody.stderr


def test_a_damaged_segment_is_told_and_left_out(local: Cli, trail: Trail) -> None:
    fill(trail)
    trail.change(2, records={"B": b"x"})
    result = local("audit", "show")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert f"Shard {SHARD}, segment 2" in result.stderr
    assert local.json("audit", "show")["damaged"] == [{"shard": SHARD, "seq": 2}]


def test_no_record_writes_to_the_terminal(local: Cli, trail: Trail) -> None:
    trail.record(request(request_id="\x1b]0;owned\x07", timestamp=at(0)))
    assert "\x1b" not in local("audit", "show").stdout


@pytest.mark.parametrize("since", ["", "soon", "5", "5w", "-5m", "2026-13-01", "9" * 30 + "d"])
def test_a_time_that_is_none(down: Cli, since: str) -> None:
    result = down("audit", "show", "--since", since)
    assert result.exit_code == 2
    assert "is no time" in result.stderr
