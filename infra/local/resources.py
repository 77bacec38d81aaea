"""Creates a stack's tables, buckets, queues, topics, secrets and SageMaker endpoints at a local AWS endpoint.

Every step may be repeated: what is there already, and has the right keys, stays as it is.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from infra.local.aws_client import isolated_session, local_client
from infra.local.cfn_to_api import request
from infra.local.creation import CREATE, ProvisionError, notify, redrive, subscribe
from infra.local.stack import ResourceSpec, StackSpec

__all__ = ["ProvisionError", "create_endpoint", "implemented_services", "provision"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Progress = Callable[[str], None]
# service → the address of its endpoint
Endpoints = Mapping[str, str]

_SERVICE_OF: Final[Mapping[str, str]] = {
    "AWS::DynamoDB::Table": "dynamodb",
    "AWS::S3::Bucket": "s3",
    "AWS::SQS::Queue": "sqs",
    "AWS::SNS::Subscription": "sns",
    "AWS::SNS::Topic": "sns",
    "AWS::SecretsManager::Secret": "secretsmanager",
}
_CONNECT: Final[Mapping[str, Callable[[Any, ResourceSpec], None]]] = {
    "AWS::SQS::Queue": redrive,
    "AWS::SNS::Subscription": subscribe,
    "AWS::S3::Bucket": notify,
}
_PROBES: Final[Mapping[str, str]] = {
    "dynamodb": "list_tables",
    "s3": "list_buckets",
    "sqs": "list_queues",
    "sns": "list_topics",
    "sagemaker": "list_endpoints",
    "secretsmanager": "list_secrets",
}
# What endpoints answer for a service that they do not have: DynamoDB Local, dynalite, LocalStack, moto.
_NOT_IMPLEMENTED: Final = frozenset(
    {
        "InternalFailure",
        "InvalidAction",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotImplemented",
        "UnknownOperation",
        "UnknownOperationException",
        "UnrecognizedClientException",
    }
)


def provision(stack: StackSpec, endpoint_url: str | Endpoints, *, on_progress: Progress) -> None:
    """Creates the tables, buckets, queues, topics and secrets of `stack`; `on_progress` gets a line for each.

    `endpoint_url` is one address, or an address for each service (`dynamodb`, `s3`, `sqs`, `sns`, `secretsmanager`).
    Raises `ProvisionError`.
    """
    wanted = [resource for resource in stack.resources.values() if resource.type in CREATE]
    services = {_SERVICE_OF[resource.type] for resource in stack.resources.values() if resource.type in _SERVICE_OF}
    clients = _clients(services, endpoint_url)

    def create(resource: ResourceSpec) -> None:
        service = _SERVICE_OF[resource.type]
        client = clients[service]
        _guarded(partial(CREATE[resource.type], client, resource), resource, client)
        on_progress(f"{resource.logical_id}: {resource.type.split('::')[2].lower()} {resource.name}")

    _in_parallel(create, wanted)
    # What names others can do so only once these are there.
    for type_, connect in _CONNECT.items():
        for resource in stack.of_type(type_):
            client = clients[_SERVICE_OF[type_]]
            _guarded(partial(connect, client, resource), resource, client)


def create_endpoint(stack: StackSpec, endpoint_url: str, *, on_progress: Progress) -> bool:
    """Creates the SageMaker models, endpoint configurations and endpoints of `stack`.

    Call it once the container answers `/ping` with 200, since an endpoint here is in service at once. False, with a
    line to `on_progress`, where the endpoint does not implement SageMaker: nothing but DescribeEndpoint depends on
    it. Raises `ProvisionError`.
    """
    steps = ("AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig", "AWS::SageMaker::Endpoint")
    resources = [resource for type_ in steps for resource in stack.of_type(type_)]
    if not resources:
        return True
    if "sagemaker" not in implemented_services(endpoint_url, ("sagemaker",)):
        on_progress(f"{endpoint_url} does not implement SageMaker: going on without its control plane")
        return False
    client = _clients({"sagemaker"}, endpoint_url)["sagemaker"]
    for resource in resources:
        _guarded(partial(_create_sagemaker, client, resource), resource, client)
        on_progress(f"{resource.logical_id}: {resource.type.split('::')[2]} {resource.name}")
    return True


def implemented_services(endpoint_url: str, services: Collection[str] = tuple(_PROBES)) -> frozenset[str]:
    """Those of `services` that the endpoint answers for (DynamoDB Local: `dynamodb` alone).

    Raises `ProvisionError` when nothing answers at `endpoint_url`.
    """
    clients = _clients(services, endpoint_url)

    def answers(service: str) -> bool:
        try:
            getattr(clients[service], _PROBES[service])()
        except ClientError as error:
            if _is_not_implemented(error):
                return False
            raise ProvisionError(f"{endpoint_url} refuses {service}: {error}") from error
        except ResponseParserError:  # something answers, in another service's format
            return False
        except BotoCoreError as error:
            raise ProvisionError(f"No AWS endpoint answers at {endpoint_url}: {error}") from error
        return True

    return frozenset(service for service, there in zip(services, _in_parallel(answers, services), strict=True) if there)


def _clients(services: Iterable[str], endpoint_url: str | Endpoints) -> dict[str, Any]:
    # Clients may be shared between threads, but making one may not: all are made here.
    session = isolated_session()
    return {
        service: local_client(
            session, service, endpoint_url if isinstance(endpoint_url, str) else endpoint_url[service]
        )
        for service in services
    }


def _in_parallel(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(work, items))


def _guarded(step: Callable[[], None], resource: ResourceSpec, client: Any) -> None:
    what = f"{resource.logical_id} ({resource.type} {resource.name})"
    try:
        step()
    except ClientError as error:
        reason = "it does not implement this service" if _is_not_implemented(error) else str(error)
        raise ProvisionError(f"{client.meta.endpoint_url} did not create {what}: {reason}") from error
    except ResponseParserError as error:
        reason = "it does not implement this service"
        raise ProvisionError(f"{client.meta.endpoint_url} did not create {what}: {reason}") from error
    except BotoCoreError as error:
        raise ProvisionError(f"{client.meta.endpoint_url} did not create {what}: {error}") from error


def _is_not_implemented(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = error.response.get("Error", {}).get("Code", "")
    # botocore gives the status for a code where it cannot read the answer: it is in another service's format.
    return status in {404, 405, 501} or code in _NOT_IMPLEMENTED or code == str(status)


def _create_sagemaker(client: Any, resource: ResourceSpec) -> None:
    kind = resource.type.split("::")[2]
    snake = {"Model": "model", "EndpointConfig": "endpoint_config", "Endpoint": "endpoint"}[kind]
    name = {f"{kind}Name": resource.name}
    try:
        getattr(client, f"describe_{snake}")(**name)
    except ClientError as error:  # SageMaker's answer for an unknown name; anything else comes back on creation
        if error.response.get("Error", {}).get("Code") not in {"ValidationException", "ValidationError"}:
            raise
        getattr(client, f"create_{snake}")(**request(client, f"Create{kind}", {**resource.properties, **name}))
