"""Tables and bucket: what the code asks of them, and what keeps them."""

from pathlib import Path

from shared.adapters import dynamodb_keys, dynamodb_models
from tests.template.support import listed, of_type, resolved, source

CALLS = {"KeysTable": dynamodb_keys, "ModelsTable": dynamodb_models}


def test_every_table_has_the_keys_that_its_adapter_names() -> None:
    tables = of_type(resolved(), "AWS::DynamoDB::Table")
    assert tables.keys() == CALLS.keys()
    keys = {
        name: [(key["AttributeName"], key["KeyType"]) for key in table.properties["KeySchema"]]
        for name, table in tables.items()
    }
    assert keys == {"KeysTable": [("key_id", "HASH")], "ModelsTable": [("model", "HASH"), ("version", "RANGE")]}
    for name, table in tables.items():
        types = {item["AttributeName"]: item["AttributeType"] for item in table.properties["AttributeDefinitions"]}
        code = Path(str(CALLS[name].__file__)).read_text()
        for attribute, type_ in types.items():
            assert f'"{attribute}": {{"{type_}": ' in code
        # No adapter names an index, so no table has one.
        assert ("IndexName" in code) == ("GlobalSecondaryIndexes" in table.properties)


def test_keys_end_by_the_attribute_that_the_adapter_writes() -> None:
    ttl = resolved()["KeysTable"].properties["TimeToLiveSpecification"]
    assert ttl == {"AttributeName": "expires_at", "Enabled": True}
    assert f'item["{ttl["AttributeName"]}"] = {{"N": ' in Path(str(dynamodb_keys.__file__)).read_text()


def test_tables_are_kept_encrypted_recoverable_and_paid_by_use() -> None:
    for protection in ("true", "false"):
        for table in of_type(resolved({"DeletionProtection": protection}), "AWS::DynamoDB::Table").values():
            assert table.properties["BillingMode"] == "PAY_PER_REQUEST"
            assert table.properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
            assert table.properties["SSESpecification"] == {"SSEEnabled": True}
            assert table.properties["DeletionProtectionEnabled"] == protection


def test_the_stack_never_deletes_what_it_stores() -> None:
    for logical_id, resource in source()["Resources"].items():
        if resource["Type"] in {"AWS::DynamoDB::Table", "AWS::S3::Bucket"}:
            assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain", logical_id


def test_the_bucket_is_private_versioned_and_reached_by_tls_only() -> None:
    resources = resolved()
    bucket = resources["ModelBucket"]
    assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert "LoggingConfiguration" not in bucket.properties
    logged = resolved({"BucketLogBucket": "logs"})["ModelBucket"].properties["LoggingConfiguration"]
    assert logged["DestinationBucketName"] == "logs"
    (policy,) = of_type(resources, "AWS::S3::BucketPolicy").values()
    assert policy.properties["Bucket"] == bucket.ref
    (statement,) = policy.properties["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    arn = f"arn:aws:s3:::{bucket.name}"
    assert listed(statement["Resource"]) == [arn, f"{arn}/*"]


def test_only_captured_requests_end_by_themselves() -> None:
    rules = resolved()["ModelBucket"].properties["LifecycleConfiguration"]["Rules"]
    assert {rule["Prefix"] for rule in rules if "ExpirationInDays" in rule} == {"captured/"}
    assert [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert {"90"} == {
        str(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
        for rule in rules
        if "NoncurrentVersionExpiration" in rule
    }
