"""Errors of SageMaker Runtime and of the container behind it, as ours.

Source: botocore's service model `sagemaker-runtime`, "Errors" of InvokeEndpoint, InvokeEndpointAsync and
InvokeEndpointWithResponseStream. What the container itself answers comes as a `ModelError` with its status and its
body, which is a problem document (RFC 9457) for everything our container says.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as NotConnected

from shared.adapters.aws import error_code, is_throttled
from shared.adapters.backends.problems import known_problem, problem_in, refusal_of
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable, SluiceError
from shared.domain.model import ModelVersion

# code → our error, and whether nothing has run, so that the call may be made again.
MAPPED: Final[Mapping[str, tuple[type[BackendError], bool]]] = {
    # A variant that is being provisioned, or a multi-model endpoint that loads the model.
    "ModelNotReadyException": (BackendUnavailable, True),
    "ServiceUnavailable": (BackendUnavailable, True),
    "ServiceUnavailableException": (BackendUnavailable, True),
    # On the way back as much as on the way there: the model may have run.
    "InternalDependencyException": (BackendError, False),
    "InternalFailure": (BackendError, False),
    "InternalStreamFailure": (BackendError, False),
    # An endpoint, a variant or a component that is not there, or a body over the limit: no better the next time.
    "ValidationError": (BackendError, False),
    "AccessDeniedException": (BackendError, False),
    "ExpiredTokenException": (BackendError, False),
    "IncompleteSignature": (BackendError, False),
    "InvalidClientTokenId": (BackendError, False),
    "InvalidSignatureException": (BackendError, False),
    "MissingAuthenticationToken": (BackendError, False),
    "OptInRequired": (BackendError, False),
    "UnrecognizedClientException": (BackendError, False),
}
# ErrorCode of a ModelStreamError; each comes after the model began to answer.
_STREAM_ERRORS: Final[Mapping[str, type[BackendError]]] = {
    "ModelInvocationTimeExceeded": BackendTimeout,
    "StreamBroken": BackendError,
}
_WHO: Final = "The container"


@contextmanager
def runtime_errors() -> Iterator[None]:
    """Turn what botocore raises beside a service's own errors into ours; the original is the cause, for the log."""
    try:
        yield
    except ClientError as error:  # of a service other than SageMaker Runtime
        raise _general(error) from error
    except ReadTimeoutError as error:
        raise BackendTimeout("The model endpoint did not answer in time.") from error
    except (ConnectTimeoutError, EndpointConnectionError, ConnectionClosedError) as error:
        if is_garbage(error):
            raise BackendError("The model endpoint answers no HTTP.") from error
        raise BackendUnavailable("The model endpoint cannot be reached.") from error
    except NotConnected as error:
        raise BackendUnavailable("The connection to the model endpoint failed.", retryable=False) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise BackendError("There are no credentials to call the model endpoint with.") from error
    except ParamValidationError as error:
        raise BackendError("The call does not fit the model endpoint: its options are wrong.") from error
    except BotoCoreError as error:
        raise BackendError("The model endpoint broke off its answer.") from error


def from_client_error(error: ClientError, version: ModelVersion) -> SluiceError:
    """The error to raise in place of what a call of SageMaker Runtime, or its stream, raised."""
    code = error_code(error)
    if code == "ModelError":
        return _from_container(error.response, version)
    if code == "ModelStreamError":
        return _from_stream(error.response)
    return _general(error)


def from_failure(body: bytes, version: ModelVersion) -> SluiceError:
    """The error for the object that an asynchronous invocation leaves when it failed: what the container answered."""
    text = body.decode("utf-8", "replace")
    status = problem_in(text).get("status")
    known = status if isinstance(status, int) and 400 <= status <= 599 else 0
    return _from_container({"OriginalStatusCode": known, "OriginalMessage": text}, version)


def _general(error: ClientError) -> BackendError:
    code = error_code(error)
    if code in MAPPED:
        kind, retryable = MAPPED[code]
    elif is_throttled(error) or (status := _status(error)) in {429, 503}:
        kind, retryable = BackendUnavailable, True
    else:
        kind, retryable = BackendTimeout if status == 504 else BackendError, False
    if kind is BackendUnavailable:
        return kind(f"The endpoint cannot take the request now ({code}).", retryable=retryable)
    return kind(f"The endpoint refused or failed the call ({code}).", retryable=retryable)


def is_garbage(error: BotoCoreError) -> bool:
    """Whether botocore speaks of a closed connection, and what came over it was no HTTP."""
    cause = getattr(error, "kwargs", {}).get("error")
    reasons = getattr(cause, "args", ())
    return any(isinstance(reason, HTTPException) and not isinstance(reason, OSError) for reason in reasons)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _from_stream(response: Mapping[str, Any]) -> BackendError:
    code = str(response.get("ErrorCode") or "")
    kind = _STREAM_ERRORS.get(code, BackendError)
    return kind(f"The container broke off its answer ({code or 'ModelStreamError'}).")


def _from_container(response: Mapping[str, Any], version: ModelVersion) -> SluiceError:
    status = int(response.get("OriginalStatusCode") or 0)
    body = str(response.get("OriginalMessage") or "")
    if status == 0:
        # SageMaker has no status: it gave up on the container, which has 60 seconds, or lost it.
        known = known_problem(problem_in(body), version, fault_of_request=True, who=_WHO)
        if known is not None:
            return known
        if "timed out" in body + str(response.get("Error", {}).get("Message", "")):
            return BackendTimeout("The container did not answer SageMaker in time.")
    return refusal_of(status, body, version)
