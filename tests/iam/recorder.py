"""Which AWS calls a function makes: what botocore was asked for, as IAM sees it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.session import Session

from infra.local.stack import ACCOUNT_ID, REGION

# Operations whose permission has another name. Source: Service Authorization Reference, Amazon S3.
_OTHER_NAMES: Mapping[str, str] = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "lambda:Invoke": "lambda:InvokeFunction",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: IAM's name of the action, and the ARN of what it was for."""

    action: str
    resource: str


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Call]]:
    """Collect the calls of every client that is made while the context lasts."""
    calls: set[Call] = set()
    create_client = Session.create_client

    def create(self: Session, *arguments: Any, **options: Any) -> Any:
        made = create_client(self, *arguments, **options)
        made.meta.events.register("provide-client-params", note)
        return made

    def note(params: Mapping[str, Any], model: Any, **_: Any) -> None:
        service = model.service_model
        # What a request is signed as is what IAM calls the service: sagemaker-runtime is sagemaker.
        name = f"{service.signing_name}:{model.name}"
        calls.add(Call(_OTHER_NAMES.get(name, name), _arn(service.signing_name, params)))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "create_client", create)
        yield calls


def _arn(service: str, params: Mapping[str, Any]) -> str:
    match service, params:
        case "dynamodb", {"TableName": table}:
            path = f"table/{table}"
        case "s3", {"Bucket": bucket, "Key": key}:
            return f"arn:aws:s3:::{bucket}/{key}"
        case "s3", {"Bucket": bucket}:
            return f"arn:aws:s3:::{bucket}"
        case "sagemaker", {"EndpointName": endpoint}:
            path = f"endpoint/{str(endpoint).lower()}"
        case "lambda", {"FunctionName": function}:
            return str(function)
        case "codedeploy", _:
            # The call names a deployment; its group is one of the application that SAM makes for the stack.
            path = "deploymentgroup:tests-ServerlessDeploymentApplication/group"
            return f"arn:aws:codedeploy:{REGION}:{ACCOUNT_ID}:{path}"
        case _:
            raise AssertionError(f"name the resource of a call to {service} with {sorted(params)}")
    return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{path}"
