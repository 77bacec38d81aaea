"""Clients of AWS services, and AWS's errors as ours.

Clients are botocore's own, not boto3's: the same calls without the resources, S3 transfers and second session that
boto3 loads on top (measured on 2 cores: 60 ms less of import). Clients of one `Session` share what botocore reads
from disk (30–90 ms less for the second one), so a composition root makes one session and passes it to all its clients.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from botocore.session import Session

from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

Service = Literal["codedeploy", "dynamodb", "lambda", "s3", "sagemaker", "sagemaker-runtime", "secretsmanager", "sqs"]

# Source: botocore/retries/standard.py, ThrottledRetryableChecker, without what only other services answer.
_THROTTLING = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)


@overload
def client(
    service: Literal["dynamodb"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> "DynamoDBClient": ...  # fmt: skip
@overload
def client(
    service: Literal["codedeploy", "sqs"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> Any: ...  # fmt: skip
@overload
def client(
    service: Literal["lambda"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> "LambdaClient": ...  # fmt: skip
@overload
def client(
    service: Literal["s3"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> "S3Client": ...  # fmt: skip
@overload
def client(
    service: Literal["sagemaker"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> "SageMakerClient": ...  # fmt: skip
@overload
def client(
    service: Literal["sagemaker-runtime"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> "SageMakerRuntimeClient": ...  # fmt: skip
@overload
def client(
    service: Literal["secretsmanager"], *, session: Session | None = ..., endpoint_url: str | None = ...,
    connect_timeout: float = ..., read_timeout: float = ..., retries: int = ..., max_pool: int = ...,
) -> "SecretsManagerClient": ...  # fmt: skip


def client(
    service: Service,
    *,
    session: Session | None = None,
    endpoint_url: str | None = None,
    connect_timeout: float = 1.0,
    read_timeout: float = 5.0,
    retries: int = 2,
    max_pool: int = 10,
) -> Any:
    """A low-level client whose every call is bounded.

    `connect_timeout` and `read_timeout` are seconds for one attempt; `retries` are attempts after the first (botocore's
    standard mode: with jitter, and fewer of them while most calls fail); `max_pool` bounds kept connections. Without
    `endpoint_url`, botocore's own rules hold (`AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL`, the configuration file,
    AWS itself), and a variable set to nothing counts as unset.
    """
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": retries + 1},
        max_pool_connections=max_pool,
        tcp_keepalive=True,
        # The package store holds each file against its SHA-256: a second checksum on the way would only cost time.
        response_checksum_validation="when_required",
        # For presigned addresses botocore would else take the worldwide host, which redirects away from new buckets in
        # other regions, and in us-east-1 a signature that S3 takes for old buckets only and that leaves out headers.
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "path" if _has_own_endpoint(service, endpoint_url) else "virtual"},
    )
    return (session or Session()).create_client(service, endpoint_url=endpoint_url or None, config=config)


def _has_own_endpoint(service: Service, endpoint_url: str | None) -> bool:
    """Whether calls go elsewhere than to AWS: there, `bucket.host` seldom has an address."""
    variables = ("AWS_ENDPOINT_URL", f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}")
    return bool(endpoint_url) or any(os.environ.get(variable) for variable in variables)


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Turn botocore's errors into ours; `what` names the service for the caller, as in "The model registry".

    Throttling, 5xx and lost connections become BackendUnavailable, read timeouts BackendTimeout, and what AWS refuses
    (a missing permission, table or bucket, a malformed call) BackendError. The original is the cause, for the log.
    """
    try:
        yield
    except ClientError as error:
        if is_overload(error):
            raise BackendUnavailable(f"{what} cannot take the request now.") from error
        raise BackendError(f"{what} refused the call: {error_code(error)}.") from error
    except ReadTimeoutError as error:
        raise BackendTimeout(f"{what} did not answer in time.") from error
    except BotoCoreError as error:
        raise BackendUnavailable(f"{what} cannot be reached.") from error


def error_code(error: ClientError) -> str:
    """AWS's code of an error, such as `ConditionalCheckFailedException`."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def is_throttled(error: BaseException | None) -> bool:
    """Whether AWS refused a call since there were too many, and did not fail by itself."""
    return isinstance(error, ClientError) and error_code(error) in _THROTTLING


def is_overload(error: ClientError) -> bool:
    """Whether AWS throttled the call or failed by itself, so that the same call may work later."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or error_code(error) in _THROTTLING
