"""A stack that "was deployed": made by CloudFormation of the local AWS services, with our outputs."""

import json
import os
from collections.abc import Mapping
from typing import Any

from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import REGION
from tests.adapters.samples import unique
from tests.conftest import LocalAws


def _table(*keys: str) -> dict[str, Any]:
    """A table with these keys, each with its type: `version:N`."""
    named = [key.split(":") for key in keys]
    schema = [
        {"AttributeName": name, "KeyType": kind} for (name, _), kind in zip(named, ("HASH", "RANGE"), strict=False)
    ]
    attributes = [{"AttributeName": name, "AttributeType": type_} for name, type_ in named]
    return {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {"BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": attributes, "KeySchema": schema},
    }


def _keys_table() -> dict[str, Any]:
    table = _table("key_id:S")
    table["Properties"]["AttributeDefinitions"].append({"AttributeName": "tenant", "AttributeType": "S"})
    schema = [{"AttributeName": "tenant", "KeyType": "HASH"}, {"AttributeName": "key_id", "KeyType": "RANGE"}]
    table["Properties"]["GlobalSecondaryIndexes"] = [
        {"IndexName": "by_tenant", "KeySchema": schema, "Projection": {"ProjectionType": "ALL"}}
    ]
    return table


def template(api_url: str, *, functions: bool = True, pepper: str = "none") -> str:
    """The stores and a function of `template.yaml`, as far as the local AWS services know such resources.

    Secrets are not among them: `pepper` is the name of one that is there.
    """
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    resources: dict[str, Any] = {
        "KeysTable": _keys_table(),
        "TenantsTable": _table("kind:S", "name:S"),
        "UsageTable": _table("tenant:S", "period:S"),
        "FeaturesTable": _table("id:S"),
        "EndpointsTable": _table("endpoint:S", "revision:N"),
        "ModelsTable": _table("model:S", "version:N"),
        "ModelBucket": {"Type": "AWS::S3::Bucket"},
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": [trust]}}},
    }
    if functions:
        resources["PredictFunction"] = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"ZipFile": "def handler(event, context): ..."},
            },
        }
    outputs = {
        "ApiUrl": api_url,
        "ModelsTableName": {"Ref": "ModelsTable"},
        "KeysTableName": {"Ref": "KeysTable"},
        "TenantsTableName": {"Ref": "TenantsTable"},
        "UsageTableName": {"Ref": "UsageTable"},
        "FeaturesTableName": {"Ref": "FeaturesTable"},
        "EndpointsTableName": {"Ref": "EndpointsTable"},
        "KeyPepperArn": pepper,
        "ModelBucketName": {"Ref": "ModelBucket"},
    }
    return json.dumps(
        {
            "Parameters": {"ContainerImage": {"Type": "String", "Default": ""}},
            "Resources": resources,
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
    )


def deploy(local_aws: LocalAws, body: str) -> str:
    """Create a stack, and return its name."""
    name = unique("sluice")
    client(local_aws, "cloudformation").create_stack(StackName=name, TemplateBody=body)
    return name


def outputs(local_aws: LocalAws, name: str) -> dict[str, str]:
    (found,) = client(local_aws, "cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def client(local_aws: LocalAws, service: str) -> Any:
    return local_client(isolated_session(), service, local_aws.url)


def user_environment(local_aws: LocalAws, **more: str | None) -> Mapping[str, str | None]:
    """The AWS configuration of a user who is signed in to the account."""
    return {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PROFILE": None,
        "AWS_REGION": None,
        **more,
    }
