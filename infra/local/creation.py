"""How each type of resource is created through the AWS API; what is there already, and has the right keys, stays."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from infra.local.cfn_to_api import (
    bucket_has_object_lock,
    bucket_is_versioned,
    bucket_notifications,
    default_retention,
    queue_attributes,
    request,
    table_request,
    topic_attributes,
)
from infra.local.intrinsics import as_text
from infra.local.stack import ResourceSpec


class ProvisionError(Exception):
    """The AWS endpoint does not answer, or refuses a resource of the stack; the message names both."""


def _create_table(client: Any, table: ResourceSpec) -> None:
    wanted = table_request(client, table)
    try:
        status = client.create_table(**wanted)["TableDescription"]["TableStatus"]
    except client.exceptions.ResourceInUseException:
        found = client.describe_table(TableName=table.name)["Table"]
        status = found["TableStatus"]
        _compare_table(table, wanted, found)
    if status != "ACTIVE":
        client.get_waiter("table_exists").wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    ttl = table.properties.get("TimeToLiveSpecification")
    if ttl is not None:
        current = client.describe_time_to_live(TableName=table.name)["TimeToLiveDescription"]
        if current.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"}:
            client.update_time_to_live(
                **request(client, "UpdateTimeToLive", {"TableName": table.name, "TimeToLiveSpecification": ttl})
            )


def _compare_table(table: ResourceSpec, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    indexes = "GlobalSecondaryIndexes"
    missing = {index["IndexName"] for index in wanted.get(indexes, [])} - {
        index["IndexName"] for index in found.get(indexes, [])
    }
    if wanted["KeySchema"] != found["KeySchema"] or missing:
        raise ProvisionError(
            f"The table {table.name} ({table.logical_id}) exists already, with other keys or indexes than the template"
            " gives it: delete it, or start the stack under another name."
        )


def _create_bucket(client: Any, bucket: ResourceSpec) -> None:
    try:
        client.create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=bucket_has_object_lock(bucket))
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.head_bucket(Bucket=bucket.name)  # ours to use, or an error here
    if bucket_is_versioned(bucket):
        client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    # moto refuses a second time, once there are objects in the bucket.
    retention = default_retention(bucket)
    if retention and retention != _current_retention(client, bucket.name):
        lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
        client.put_object_lock_configuration(Bucket=bucket.name, ObjectLockConfiguration=lock)


def _current_retention(client: Any, bucket: str) -> dict[str, Any]:
    lock = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    retention = lock.get("Rule", {}).get("DefaultRetention", {})
    return {name: value for name, value in retention.items() if value}  # moto: `Years` 0 beside `Days`


def _create_queue(client: Any, queue: ResourceSpec) -> None:
    attributes = queue_attributes(queue)
    try:
        client.create_queue(QueueName=queue.name, Attributes=attributes)
    except client.exceptions.QueueNameExists:  # with other attributes
        url = client.get_queue_url(QueueName=queue.name)["QueueUrl"]
        attributes.pop("FifoQueue", None)
        client.set_queue_attributes(QueueUrl=url, Attributes=attributes)


def redrive(client: Any, queue: ResourceSpec) -> None:
    """Names the dead-letter queue of a queue, which must be there."""
    attributes = queue_attributes(queue, redrive=True)
    if attributes:
        url = client.get_queue_url(QueueName=queue.name)["QueueUrl"]
        client.set_queue_attributes(QueueUrl=url, Attributes=attributes)


def notify(client: Any, bucket: ResourceSpec) -> None:
    """Names the targets of a bucket's notifications, which must be there."""
    wanted = bucket_notifications(client, bucket)
    if wanted:
        client.put_bucket_notification_configuration(Bucket=bucket.name, NotificationConfiguration=wanted)


def subscribe(client: Any, subscription: ResourceSpec) -> None:
    """Subscribes a function or a queue to a topic, which must be there; no mail is sent from here."""
    properties = subscription.properties
    if properties["Protocol"] not in {"lambda", "sqs"}:
        return
    named = {"TopicArn": properties["TopicArn"], "Endpoint": properties["Endpoint"]}
    arn = client.subscribe(Protocol=properties["Protocol"], ReturnSubscriptionArn=True, **named)["SubscriptionArn"]
    # The scope first: it says what a policy may hold.
    for name in ("FilterPolicyScope", "FilterPolicy", "RawMessageDelivery"):
        value = properties.get(name)
        if value in (None, False, "false"):  # moto takes any text for true
            continue
        text = json.dumps(value) if isinstance(value, Mapping) else as_text(value, name)
        client.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=text)


def _create_topic(client: Any, topic: ResourceSpec) -> None:
    client.create_topic(Name=topic.name, Attributes=topic_attributes(topic))


def _create_secret(client: Any, secret: ResourceSpec) -> None:
    """A value that is there stays: what was made with it (hashes, signatures) would be worth nothing otherwise.

    The tag has moto give the ARN the ending that `Ref` promises; Secrets Manager takes any six characters.
    """
    try:
        found = client.describe_secret(SecretId=secret.name)
    except client.exceptions.ResourceNotFoundException:
        wanted = {
            "Name": secret.name,
            "Description": secret.properties.get("Description", ""),
            "Tags": [{"Key": "_custom_id_", "Value": secret.ref[-6:]}],
        }
        found = client.create_secret(**wanted, **_secret_value(client, secret))
    if found["ARN"] != secret.ref:
        raise ProvisionError(
            f"{client.meta.endpoint_url} gave {secret.logical_id} the ARN {found['ARN']}; the functions ask for"
            f" {secret.ref}."
        )


def _secret_value(client: Any, secret: ResourceSpec) -> dict[str, str]:
    if "SecretString" in secret.properties:
        return {"SecretString": secret.properties["SecretString"]}
    settings = secret.properties.get("GenerateSecretString")
    if settings is None:
        return {}
    password = client.get_random_password(**request(client, "GetRandomPassword", settings))["RandomPassword"]
    if "GenerateStringKey" not in settings:
        return {"SecretString": password}
    document = json.loads(settings["SecretStringTemplate"])
    return {"SecretString": json.dumps({**document, settings["GenerateStringKey"]: password})}


CREATE: Final[Mapping[str, Callable[[Any, ResourceSpec], None]]] = {
    "AWS::DynamoDB::Table": _create_table,
    "AWS::S3::Bucket": _create_bucket,
    "AWS::SQS::Queue": _create_queue,
    "AWS::SNS::Topic": _create_topic,
    "AWS::SecretsManager::Secret": _create_secret,
}
