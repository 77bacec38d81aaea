"""Which AWS calls a function makes: what botocore was asked for, as IAM sees it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.session import Session

from infra.local.stack import ACCOUNT_ID, REGION

# Operations whose permission has another name. Source: Service Authorization Reference, Amazon S3 and Amazon SQS;
# Amazon S3 User Guide, "Multipart upload API and permissions".
_OTHER_NAMES: Mapping[str, str] = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "lambda:Invoke": "lambda:InvokeFunction",
}
# Source: Amazon DynamoDB developer guide, "Using IAM with DynamoDB transactions".
_IN_TRANSACTIONS: Mapping[str, str] = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
    "Get": "GetItem",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: IAM's name of the action, the ARN of what it was for, and the item's key or the listing's prefix."""

    action: str
    resource: str
    key: str = ""


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Call]]:
    """Collect the calls of every client that is made while the context lasts, those of presigned addresses too."""
    calls: set[Call] = set()
    create_client = Session.create_client

    def create(self: Session, *arguments: Any, **options: Any) -> Any:
        made = create_client(self, *arguments, **options)
        if self.user_agent_name == "Boto3":  # the tests' own: functions do without boto3
            return made
        made.meta.events.register("provide-client-params", note)
        return made

    def note(params: Mapping[str, Any], model: Any, **_: Any) -> None:
        service = model.service_model
        # What a request is signed as is what IAM calls the service: sagemaker-runtime is sagemaker.
        calls.update(_calls(service.signing_name, model.name, params))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "create_client", create)
        yield calls


def _calls(service: str, operation: str, params: Mapping[str, Any]) -> set[Call]:
    match service, params:
        case "dynamodb", {"RequestItems": tables}:
            return {Call(f"dynamodb:{operation}", _arn(service, {"TableName": table})) for table in tables}
        case "dynamodb", {"TransactItems": items}:  # each needs the permission of what it does by itself
            steps = [step for item in items for step in item.items()]
            return {Call(f"dynamodb:{_IN_TRANSACTIONS[kind]}", _arn(service, step)) for kind, step in steps}
        case "s3", {"Delete": {"Objects": found}}:
            keys = [{"Bucket": params["Bucket"], "Key": each["Key"]} for each in found]
            return {Call("s3:DeleteObject", _arn(service, key)) for key in keys}
        # Source: Amazon S3 API Reference, "GetObject", "HeadObject": a version needs another permission, and only that.
        case "s3", {"VersionId": _} if operation in {"GetObject", "HeadObject"}:
            return {Call("s3:GetObjectVersion", _arn(service, params))}
        case _:
            name = f"{service}:{operation}"
            return {Call(_OTHER_NAMES.get(name, name), _arn(service, params), _key(service, params))}


def _key(service: str, params: Mapping[str, Any]) -> str:
    """What conditions are about: the partition key of a table without a sort key, the prefix of a listing."""
    match service, params:
        case "dynamodb", {"Key": key} if len(key) == 1:
            ((value,),) = (tuple(typed.values()) for typed in key.values())
            return str(value)
        case "s3", {"Prefix": prefix}:
            return str(prefix)
        case _:
            return ""


def _arn(service: str, params: Mapping[str, Any]) -> str:
    match service, params:
        case "dynamodb", {"TableName": table, "IndexName": index}:
            path = f"table/{table}/index/{index}"
        case "dynamodb", {"TableName": table}:
            path = f"table/{table}"
        case "s3", {"Bucket": bucket, "Key": key}:
            return f"arn:aws:s3:::{bucket}/{key}"
        case "s3", {"Bucket": bucket}:
            return f"arn:aws:s3:::{bucket}"
        case "sqs", {"QueueUrl": url}:
            return f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{str(url).rpartition('/')[2]}"
        case "sagemaker", {"EndpointName": endpoint}:
            path = f"endpoint/{str(endpoint).lower()}"
        case ("secretsmanager", {"SecretId": arn}) | ("lambda", {"FunctionName": arn}):
            return str(arn)
        case "codedeploy", _:
            # The call names a deployment; its group is one of the application that SAM makes for the stack.
            path = "deploymentgroup:tests-ServerlessDeploymentApplication/group"
            return f"arn:aws:codedeploy:{REGION}:{ACCOUNT_ID}:{path}"
        case _:
            raise AssertionError(f"name the resource of a call to {service} with {sorted(params)}")
    return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{path}"
