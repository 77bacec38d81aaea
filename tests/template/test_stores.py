"""Tables, buckets and the secret: what the code asks of them, what keeps them, and what ends with the stack."""

from pathlib import Path
from time import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from shared.adapters import (
    dynamodb_answers,
    dynamodb_audit,
    dynamodb_endpoints,
    dynamodb_features,
    dynamodb_guards,
    dynamodb_jobs,
    dynamodb_keys,
    dynamodb_limits,
    dynamodb_models,
    dynamodb_tenants,
    dynamodb_traffic,
    dynamodb_usage,
    idempotency_records,
    s3_anchors,
    s3_answers,
)
from shared.adapters.aws import client
from shared.adapters.dynamodb_answers import DynamoDBAnswers
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.adapters.dynamodb_guards import DynamoDBGuards
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_limits import DynamoDBLimits
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.answer_key import answer_key
from shared.domain.audit import genesis, seal
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.features import EntityKey, FeatureRecord
from shared.domain.idempotency import IdempotencyScope, StoredAnswer
from shared.domain.jobs import KEPT_S, Job, new_job_id
from shared.domain.ports import ApiKey
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.support import CALLER, published
from tests.template.support import BUCKETS, ENDING_TABLES, KEPT, KEPT_TABLES, listed, of_type, resolved, source

# Each table: the module that names its keys, and these, the partition key first.
TABLES: dict[str, tuple[ModuleType, list[str]]] = {
    "KeysTable": (dynamodb_keys, ["key_id"]),
    "ModelsTable": (dynamodb_models, ["model", "version"]),
    "TenantsTable": (dynamodb_tenants, ["kind", "name"]),
    "EndpointsTable": (dynamodb_endpoints, ["endpoint", "revision"]),
    "FeaturesTable": (dynamodb_features, ["id"]),
    "TrafficTable": (dynamodb_traffic, ["endpoint", "period"]),
    "UsageTable": (dynamodb_usage, ["tenant", "period"]),
    "AuditTable": (dynamodb_audit, ["shard", "seq"]),
    "LimitsTable": (dynamodb_limits, ["bucket"]),
    "IdempotencyTable": (idempotency_records, ["id"]),
    "GuardsTable": (dynamodb_guards, ["endpoint"]),
    "AnswersTable": (dynamodb_answers, ["id"]),
    "JobsTable": (dynamodb_jobs, ["job_id"]),
}
ENDS_BY = {
    "KeysTable": "expires_at",
    "AuditTable": "expires_at",
    "FeaturesTable": "expires_at",
    "LimitsTable": "expires_at",
    "IdempotencyTable": "expiration",
    "GuardsTable": "expires_at",
    "AnswersTable": "expires_at",
    "JobsTable": "expires_at",
}


def test_every_table_has_the_keys_that_its_adapter_names() -> None:
    tables = of_type(resolved(), "AWS::DynamoDB::Table")
    assert tables.keys() == TABLES.keys() == KEPT_TABLES | ENDING_TABLES
    for name, table in tables.items():
        module, keys = TABLES[name]
        schema = [(key["AttributeName"], key["KeyType"]) for key in table.properties["KeySchema"]]
        assert schema == list(zip(keys, ["HASH", "RANGE"], strict=False))
        types = {item["AttributeName"]: item["AttributeType"] for item in table.properties["AttributeDefinitions"]}
        code = Path(str(module.__file__)).read_text()
        for attribute, type_ in types.items():
            assert f'"{attribute}": {{"{type_}": ' in code, f"{name}: {attribute}"
        # An index is there where an adapter names one, and nowhere else: it is paid for with each write.
        assert ("IndexName" in code) == ("GlobalSecondaryIndexes" in table.properties)
        for index in table.properties.get("GlobalSecondaryIndexes", []):
            assert f'_INDEX = "{index["IndexName"]}"' in code


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
    job = Job(new_job_id(), "acme", "pair", 1, "main", "queue", 1, now, now + KEPT_S, {"inference_id": "1"})
    DynamoDBJobs(dynamodb, names["JobsTable"]).add(job)
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
    assert stores.keys() == KEPT | ENDING_TABLES | {"KeyPepper"}
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
    assert ends.keys() == {s3_answers.PREFIX, "async/"}
    assert ends["async/"]["ExpirationInDays"] * 86_400 > KEPT_S
    rule = ends[s3_answers.PREFIX]
    longest = source()["Parameters"]["IdempotencyHours"]["MaxValue"]
    assert rule["ExpirationInDays"] * 24 > longest


def test_anchors_can_be_neither_changed_nor_deleted_for_as_long_as_is_asked() -> None:
    bucket = resolved({"AuditRetentionDays": "7"})["AuditBucket"].properties
    assert bucket["ObjectLockEnabled"] is True
    retention = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (retention["Mode"], str(retention["Days"])) == ("GOVERNANCE", "7")
    # Nothing ends them by itself.
    assert "LifecycleConfiguration" not in bucket
    assert 'PREFIX = "anchors/"' in Path(str(s3_anchors.__file__)).read_text()


def test_the_pepper_is_made_by_aws_and_by_nobody_else() -> None:
    secret = resolved()["KeyPepper"].properties
    assert secret["GenerateSecretString"]["PasswordLength"] >= 43  # letters and digits: 256 bits
    assert "SecretString" not in secret
