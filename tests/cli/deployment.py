"""A stack that "was deployed": made by CloudFormation of the local AWS services, with our outputs."""

import json
import os
from collections.abc import Mapping
from typing import Any

from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import REGION
from tests.adapters.samples import unique
from tests.conftest import LocalAws


def _table(key: str, *sort: str) -> dict[str, Any]:
    keys = [{"AttributeName": key, "KeyType": "HASH"}, *({"AttributeName": name, "KeyType": "RANGE"} for name in sort)]
    attributes = [{"AttributeName": key, "AttributeType": "S"}]
    attributes += [{"AttributeName": name, "AttributeType": "N"} for name in sort]
    return {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {"BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": attributes, "KeySchema": keys},
    }


def template(api_url: str, *, functions: bool = True) -> str:
    """The stores and a function of `template.yaml`, as far as the local AWS services know such resources."""
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    resources: dict[str, Any] = {
        "KeysTable": _table("key_id"),
        "ModelsTable": _table("model", "version"),
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
