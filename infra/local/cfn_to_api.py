"""CloudFormation properties → the arguments of the API calls that create the same resource.

Most properties have the name and the form of the API's argument, so botocore's service model decides what passes.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from botocore.model import ListShape, MapShape, Shape, StructureShape

from infra.local.intrinsics import as_text
from infra.local.stack import ResourceSpec

_QUEUE_ATTRIBUTES: Final = (
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "DelaySeconds",
    "FifoQueue",
    "FifoThroughputLimit",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "VisibilityTimeout",
)
_REDRIVE_ATTRIBUTES: Final = ("RedriveAllowPolicy", "RedrivePolicy")
_TOPIC_ATTRIBUTES: Final = ("ContentBasedDeduplication", "DisplayName", "FifoTopic")


def request(client: Any, operation: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `properties` that `operation` takes, with the types it wants (a `Ref` to a number gives text)."""
    shape = client.meta.service_model.operation_model(operation).input_shape
    arguments: dict[str, Any] = _coerce(properties, shape, operation)
    return arguments


def table_request(client: Any, table: ResourceSpec) -> dict[str, Any]:
    """The arguments of CreateTable. Settings of operation (recovery, encryption, class, tags) are left out."""
    stream = table.properties.get("StreamSpecification")
    properties = {**table.properties, "TableName": table.name}
    if stream is not None:  # CloudFormation has no switch: a stream that is there is on
        properties["StreamSpecification"] = {**stream, "StreamEnabled": True}
    for left_out in ("SSESpecification", "TableClass", "Tags", "DeletionProtectionEnabled", "ResourcePolicy"):
        properties.pop(left_out, None)
    return request(client, "CreateTable", properties)


def bucket_is_versioned(bucket: ResourceSpec) -> bool:
    """Whether the bucket keeps versions. Encryption, access and life cycle have no effect locally."""
    versioning = bucket.properties.get("VersioningConfiguration", {})
    return bool(versioning.get("Status") == "Enabled")


def bucket_has_object_lock(bucket: ResourceSpec) -> bool:
    """Whether objects of the bucket can be locked, which also versions it."""
    return bucket.properties.get("ObjectLockEnabled") in {True, "true"}


def default_retention(bucket: ResourceSpec) -> dict[str, Any]:
    """How long every new object is locked, as PutObjectLockConfiguration takes it; empty without a rule."""
    rule = bucket.properties.get("ObjectLockConfiguration", {}).get("Rule", {})
    retention = rule.get("DefaultRetention", {})
    return {name: value if name == "Mode" else int(value) for name, value in retention.items()}


def queue_attributes(queue: ResourceSpec, *, redrive: bool = False) -> dict[str, str]:
    """Attributes of CreateQueue, or the ones that name a dead-letter queue."""
    return _attributes(queue, _REDRIVE_ATTRIBUTES if redrive else _QUEUE_ATTRIBUTES)


def bucket_notifications(client: Any, bucket: ResourceSpec) -> dict[str, Any]:
    """The configuration that PutBucketNotificationConfiguration takes; empty without one."""
    given = bucket.properties.get("NotificationConfiguration", {})
    wanted: dict[str, Any] = {}
    for kind, target in (("Lambda", "LambdaFunction"), ("Queue", "Queue"), ("Topic", "Topic")):
        items = given.get(f"{kind}Configurations", [])
        if items:
            wanted[f"{target}Configurations"] = [_notification(item, kind, target) for item in items]
    if sends_to_event_bridge(given):
        wanted["EventBridgeConfiguration"] = {}
    operation = "PutBucketNotificationConfiguration"
    return wanted and dict(
        request(client, operation, {"NotificationConfiguration": wanted})["NotificationConfiguration"]
    )


def sends_to_event_bridge(configuration: Mapping[str, Any]) -> bool:
    """Whether a `NotificationConfiguration` switches EventBridge on; its switch is on where it is left out."""
    bridge = configuration.get("EventBridgeConfiguration")
    return bridge is not None and str(bridge.get("EventBridgeEnabled", True)).lower() == "true"


def _notification(item: Mapping[str, Any], kind: str, target: str) -> dict[str, Any]:
    found = {f"{target}Arn": item["Function" if kind == "Lambda" else kind], "Events": [item["Event"]]}
    rules = item.get("Filter", {}).get("S3Key", {}).get("Rules", [])
    # Names of rules are "prefix" and "suffix", in CloudFormation in any case.
    key = {"FilterRules": [{"Name": str(rule["Name"]).lower(), "Value": rule["Value"]} for rule in rules]}
    return {**found, **({"Filter": {"Key": key}} if rules else {})}


def topic_attributes(topic: ResourceSpec) -> dict[str, str]:
    """Attributes of CreateTopic."""
    return _attributes(topic, _TOPIC_ATTRIBUTES)


def _attributes(resource: ResourceSpec, names: tuple[str, ...]) -> dict[str, str]:
    present = {name: resource.properties[name] for name in names if name in resource.properties}
    return {
        name: json.dumps(value) if isinstance(value, Mapping) else as_text(value, f"{resource.logical_id}.{name}")
        for name, value in present.items()
    }


def _coerce(value: Any, shape: Shape, where: str) -> Any:
    """`value` in the form of `shape`; what does not fit is passed on, for botocore to refuse with its own message."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        members = shape.members
        return {
            name: _coerce(item, members[name], f"{where}.{name}") for name, item in value.items() if name in members
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_coerce(item, shape.member, where) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, Mapping):
        return {name: _coerce(item, shape.value, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, bool | int | float) and shape.type_name == "string":
        return as_text(value, where)
    if isinstance(value, str):
        return _from_text(value, shape.type_name)
    return value


def _from_text(text: str, type_name: str) -> Any:
    try:
        match type_name:
            case "integer" | "long":
                return int(text)
            case "float" | "double":
                return float(text)
            case "boolean" if text in {"true", "false"}:
                return text == "true"
    except ValueError:  # refused below, by name
        return text
    return text
