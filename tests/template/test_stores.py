"""Tables, buckets and secrets: what the code asks of them, what keeps them, and what ends with the stack."""

import re
from dataclasses import replace
from pathlib import Path
from time import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from shared.adapters import (
    delivery_items,
    dynamodb_answers,
    dynamodb_audit,
    dynamodb_deliveries,
    dynamodb_endpoints,
    dynamodb_features,
    dynamodb_guards,
    dynamodb_job_lists,
    dynamodb_jobs,
    dynamodb_keys,
    dynamodb_limits,
    dynamodb_models,
    dynamodb_tenants,
    dynamodb_traffic,
    dynamodb_usage,
    dynamodb_webhooks,
    idempotency_records,
    job_items,
    s3_anchors,
    s3_answers,
)
from shared.adapters.aws import client
from shared.adapters.dynamodb_answers import DynamoDBAnswers
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.adapters.dynamodb_guards import DynamoDBGuards
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_limits import DynamoDBLimits
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.answer_key import answer_key
from shared.domain.audit import genesis, seal
from shared.domain.batches import DROPS, OUT, WORK
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.features import EntityKey, FeatureRecord
from shared.domain.idempotency import IdempotencyScope, StoredAnswer
from shared.domain.jobs import KEPT_S, START_WITHIN_S, Job, JobProblem, JobRequest, new_job_id
from shared.domain.ports import ApiKey
from shared.domain.uploads import KEPT_S as UPLOADS_KEPT_S
from shared.domain.uploads import upload_key
from shared.domain.webhooks import Delivery, new_delivery_id
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.support import CALLER, published
from tests.template.support import (
    BUCKETS,
    ENDING_TABLES,
    KEPT,
    KEPT_TABLES,
    SECRETS,
    listed,
    of_type,
    resolved,
    source,
)

# Each table: its keys, the partition key first, and the modules that name them.
TABLES: dict[str, tuple[list[str], list[ModuleType]]] = {
    "KeysTable": (["key_id"], [dynamodb_keys]),
    "ModelsTable": (["model", "version"], [dynamodb_models]),
    "TenantsTable": (["kind", "name"], [dynamodb_tenants]),
    "EndpointsTable": (["endpoint", "revision"], [dynamodb_endpoints]),
    "FeaturesTable": (["id"], [dynamodb_features]),
    "TrafficTable": (["endpoint", "period"], [dynamodb_traffic]),
    "UsageTable": (["tenant", "period"], [dynamodb_usage]),
    "AuditTable": (["shard", "seq"], [dynamodb_audit]),
    "LimitsTable": (["bucket"], [dynamodb_limits]),
    "IdempotencyTable": (["id"], [idempotency_records]),
    "GuardsTable": (["endpoint"], [dynamodb_guards]),
    "AnswersTable": (["id"], [dynamodb_answers]),
    "JobsTable": (["job_id"], [dynamodb_jobs, dynamodb_job_lists, job_items]),
    "WebhooksTable": (["tenant", "webhook_id"], [dynamodb_webhooks]),
    "DeliveriesTable": (["webhook_id", "delivery_id"], [dynamodb_deliveries, delivery_items]),
}
# How an attribute of a type is written: in full, or by the function of `job_items` for it.
WRITTEN = {"S": r'(\{"S": |text\()', "N": r'(\{"N": |number\()'}
ENDS_BY = {
    "KeysTable": "expires_at",
    "AuditTable": "expires_at",
    "FeaturesTable": "expires_at",
    "LimitsTable": "expires_at",
    "IdempotencyTable": "expiration",
    "GuardsTable": "expires_at",
    "AnswersTable": "expires_at",
    "JobsTable": "expires_at",
    "DeliveriesTable": "expires_at",
}


def test_every_table_has_the_keys_that_its_adapter_names() -> None:
    tables = of_type(resolved(), "AWS::DynamoDB::Table")
    assert tables.keys() == TABLES.keys() == KEPT_TABLES | ENDING_TABLES
    for name, table in tables.items():
        keys, modules = TABLES[name]
        schema = [(key["AttributeName"], key["KeyType"]) for key in table.properties["KeySchema"]]
        assert schema == list(zip(keys, ["HASH", "RANGE"], strict=False))
        types = {item["AttributeName"]: item["AttributeType"] for item in table.properties["AttributeDefinitions"]}
        code = "".join(Path(str(module.__file__)).read_text() for module in modules)
        for attribute, type_ in types.items():
            assert re.search(f'"{attribute}": {WRITTEN[type_]}', code), f"{name}: {attribute}"
        # An index is there where an adapter names one, and nowhere else: it is paid for with each write.
        assert ("IndexName" in code) == ("GlobalSecondaryIndexes" in table.properties)
        for index in table.properties.get("GlobalSecondaryIndexes", []):
            assert re.search(f'(_INDEX = |IndexName=)"{index["IndexName"]}"', code)


def test_the_indexes_of_jobs_hold_what_is_read_from_them() -> None:
    now = 1_763_700_000.5
    job = Job(
        new_job_id(now),
        "batch",
        "acme",
        "key",
        "pair",
        JobRequest(None, {}),
        now,
        now,
        int(now),
        "request",
        state="failed",
        rows_total=7,
        rows_done=5,
        finished_at=now,
        problem=JobProblem("job_crashed", "Crashed", "It did.", ()),
    )
    indexes = {index["IndexName"]: index for index in resolved()["JobsTable"].properties["GlobalSecondaryIndexes"]}
    for found in (job, replace(job, state="queued", finished_at=None, problem=None, rows_total=None)):
        item = job_items.item_of(found)
        held = {"tenant", "job_id", *indexes["by_tenant"]["Projection"]["NonKeyAttributes"]}
        shown = {name: value for name, value in item.items() if name in held}
        assert job_items.summary_of(shown) == job_items.summary_of(item)
        # What lists are filtered by: TTL deletes late.
        assert {"expires_at", "state", "kind", "model"} <= shown.keys()
    # The sweep reads the items themselves, and how long they are overdue from the key.
    assert indexes["unfinished"]["Projection"] == {"ProjectionType": "KEYS_ONLY"}


@pytest.fixture
def written(local_aws: LocalAws, aws_session: Session) -> dict[str, list[dict[str, Any]]]:
    """Items of each table with an end, as the adapters write them; the store has items of other tests as well."""
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=local_aws.url)
    names = {name: local_aws.stack.resources[name].name for name in TABLES}

    def items(name: str) -> list[dict[str, Any]]:
        return [item for page in pages.paginate(TableName=names[name], ConsistentRead=True) for item in page["Items"]]

    pages = dynamodb.get_paginator("scan")
    before = {name: items(name) for name in ENDS_BY}
    DynamoDBKeys(dynamodb, names["KeysTable"]).add(ApiKey(unique("key"), "", "acme", frozenset(), expires_at=2**31))
    DynamoDBLimits(dynamodb, names["LimitsTable"]).take(CALLER)
    PowertoolsIdempotency(dynamodb, names["IdempotencyTable"], lambda: None, "", 1).run(  # type: ignore[arg-type,return-value]
        IdempotencyScope("acme", "POST /", ""), unique("key"), bytes(32), 1000, lambda: StoredAnswer(200, (), b"")
    )
    features = FeatureRecord(EntityKey("customer", unique("c")), {"age": 41}, at=1, expires_at=2**31)
    DynamoDBFeatures(dynamodb, names["FeaturesTable"]).put("acme", [features])
    assert DynamoDBGuards(dynamodb, names["GuardsTable"]).acquire(unique("endpoint"), "pool", 1, time() + 9, time())
    key = answer_key(published(), {"x": np.ones((1, 2), np.float32)}, ["y"], {}, "acme", unique("endpoint"))
    answers = DynamoDBAnswers(dynamodb, names["AnswersTable"])
    assert answers.lease(key, 9)
    assert answers.put(key, KeptAnswer({"y": np.ones((1, 1), np.float32)}, "main", "function", time()), 9)
    now = int(time())
    request = JobRequest(None, {}, inline=b"{}")
    job = Job(new_job_id(), "prediction", "acme", "key", "pair", request, now, now, now + KEPT_S, "request")
    DynamoDBJobs(dynamodb, names["JobsTable"]).add(job)
    delivery = Delivery(new_delivery_id(now), unique("webhook"), "acme", "webhook.test", b"{}", now, now + KEPT_S)
    DynamoDBDeliveries(dynamodb, names["DeliveriesTable"]).add(delivery)
    shard, batch = unique("shard"), unique("batch")
    segment = seal(shard, genesis(shard), batch, [b"{}"], "2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z")
    DynamoDBAuditLedger(dynamodb, names["AuditTable"], names["UsageTable"], names["TrafficTable"]).append(
        segment, genesis(shard), {}, {}
    )
    return {name: [item for item in items(name) if item not in before[name]] for name in ENDS_BY}


def test_items_end_by_the_attribute_that_the_adapter_writes(written: dict[str, list[dict[str, Any]]]) -> None:
    tables = of_type(resolved(), "AWS::DynamoDB::Table")
    enabled = {
        name: table.properties["TimeToLiveSpecification"]
        for name, table in tables.items()
        if "TimeToLiveSpecification" in table.properties
    }
    assert enabled == {name: {"AttributeName": attribute, "Enabled": True} for name, attribute in ENDS_BY.items()}
    for name, attribute in ENDS_BY.items():
        ends = [item[attribute] for item in written[name] if attribute in item]
        assert ends, name
        # Seconds: DynamoDB takes milliseconds for a time in the far future.
        assert all(1_700_000_000 < int(end["N"]) <= 2**31 for end in ends), name
    # What the audit chain holds never ends by itself, only the marks beside it do.
    assert all(item["shard"]["S"].startswith("batch#") for item in written["AuditTable"] if "expires_at" in item)


def test_tables_are_encrypted_recoverable_and_paid_by_use() -> None:
    for table in of_type(resolved(), "AWS::DynamoDB::Table").values():
        assert table.properties["BillingMode"] == "PAY_PER_REQUEST"
        assert table.properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert table.properties["SSESpecification"] == {"SSEEnabled": True}


def test_the_stack_never_deletes_what_cannot_be_made_again() -> None:
    stores = {
        logical_id: resource
        for logical_id, resource in source()["Resources"].items()
        if resource["Type"] in {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret"}
    }
    assert stores.keys() == KEPT | ENDING_TABLES | SECRETS
    kept = {
        logical_id
        for logical_id, resource in stores.items()
        if resource.get("DeletionPolicy") == resource.get("UpdateReplacePolicy") == "Retain"
    }
    assert kept == stores.keys() - ENDING_TABLES
    for protection in ("true", "false"):
        tables = of_type(resolved({"DeletionProtection": protection}), "AWS::DynamoDB::Table")
        protected = {name: table.properties.get("DeletionProtectionEnabled") for name, table in tables.items()}
        assert protected == dict.fromkeys(KEPT_TABLES, protection) | dict.fromkeys(ENDING_TABLES)


@pytest.mark.parametrize("logical_id", sorted(BUCKETS))
def test_a_bucket_is_private_encrypted_versioned_and_reached_by_tls_only(logical_id: str) -> None:
    resources = resolved()
    assert of_type(resources, "AWS::S3::Bucket").keys() == BUCKETS
    bucket = resources[logical_id]
    assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket.properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert "LoggingConfiguration" not in bucket.properties
    policies = of_type(resources, "AWS::S3::BucketPolicy").values()
    (policy,) = [found for found in policies if found.properties["Bucket"] == bucket.ref]
    (statement,) = policy.properties["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    arn = f"arn:aws:s3:::{bucket.name}"
    assert listed(statement["Resource"]) == [arn, f"{arn}/*"]


def test_access_logs_of_the_buckets_lie_apart() -> None:
    logged = resolved({"BucketLogBucket": "logs"})
    settings = [logged[name].properties["LoggingConfiguration"] for name in sorted(BUCKETS)]
    assert {each["DestinationBucketName"] for each in settings} == {"logs"}
    assert len({each["LogFilePrefix"] for each in settings}) == len(BUCKETS)


def test_packages_stay_and_captured_requests_end() -> None:
    rules = resolved()["ModelBucket"].properties["LifecycleConfiguration"]["Rules"]
    assert {rule["Prefix"] for rule in rules if "ExpirationInDays" in rule} == {"captured/"}
    assert [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert {"90"} == {
        str(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
        for rule in rules
        if "NoncurrentVersionExpiration" in rule
    }


def test_kept_answers_end_after_their_records_do() -> None:
    rules = resolved()["DataBucket"].properties["LifecycleConfiguration"]["Rules"]
    ends = {rule["Prefix"]: rule for rule in rules if "ExpirationInDays" in rule}
    assert ends.keys() == {s3_answers.PREFIX, "async/", "jobs/", "uploads/", "batch/", WORK}
    assert ends["async/"]["ExpirationInDays"] * 86_400 > KEPT_S
    rule = ends[s3_answers.PREFIX]
    longest = source()["Parameters"]["IdempotencyHours"]["MaxValue"]
    assert rule["ExpirationInDays"] * 24 > longest


def test_what_jobs_read_and_leave_ends_after_they_do() -> None:
    rules = resolved()["DataBucket"].properties["LifecycleConfiguration"]["Rules"]
    kept_s = {rule["Prefix"]: rule["ExpirationInDays"] * 86_400 for rule in rules if "ExpirationInDays" in rule}
    assert kept_s["jobs/"] > KEPT_S
    # Named on its last day, by a job that begins as late as it may.
    assert upload_key("acme", "1").startswith("uploads/")
    assert kept_s["uploads/"] > UPLOADS_KEPT_S + START_WITHIN_S
    assert {prefix.partition("/")[0] for prefix in (DROPS, WORK, OUT)} == {"batch"}
    assert kept_s["batch/"] == 30 * 86_400
    # A run goes on with its parts for as long as it can be made again.
    assert KEPT_S < kept_s[WORK] < kept_s["batch/"]
    # What is replaced or deleted goes soon, but not under the hands of a job that reads it.
    (replaced,) = [rule["NoncurrentVersionExpiration"] for rule in rules if "NoncurrentVersionExpiration" in rule]
    assert replaced == {"NoncurrentDays": 3}
    assert replaced["NoncurrentDays"] * 86_400 > START_WITHIN_S
    assert [rule["AbortIncompleteMultipartUpload"] for rule in rules if "AbortIncompleteMultipartUpload" in rule] == [
        {"DaysAfterInitiation": 1}
    ]


def test_anchors_can_be_neither_changed_nor_deleted_for_as_long_as_is_asked() -> None:
    bucket = resolved({"AuditRetentionDays": "7"})["AuditBucket"].properties
    assert bucket["ObjectLockEnabled"] is True
    retention = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (retention["Mode"], str(retention["Days"])) == ("GOVERNANCE", "7")
    # Nothing ends them by itself.
    assert "LifecycleConfiguration" not in bucket
    assert 'PREFIX = "anchors/"' in Path(str(s3_anchors.__file__)).read_text()


@pytest.mark.parametrize("logical_id", sorted(SECRETS))
def test_a_secret_is_made_by_aws_and_by_nobody_else(logical_id: str) -> None:
    secret = resolved()[logical_id].properties
    assert secret["GenerateSecretString"]["PasswordLength"] >= 43  # letters and digits: 256 bits
    assert "SecretString" not in secret
