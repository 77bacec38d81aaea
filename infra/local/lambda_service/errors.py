"""Errors of the Lambda API, each with AWS's code and HTTP status."""

from typing import ClassVar


class LambdaApiError(Exception):
    """The call was refused before any function ran; `code` is the error type that AWS SDKs see."""

    code: ClassVar[str]
    status: ClassVar[int]
    fault: ClassVar[str] = "User"
    reason: ClassVar[str | None] = None


class ResourceNotFoundError(LambdaApiError):
    """No such function."""

    code = "ResourceNotFoundException"
    status = 404


class TooManyRequestsError(LambdaApiError):
    """All environments are busy and the queue is full; Lambda calls this throttling."""

    code = "TooManyRequestsException"
    status = 429
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"


class RequestTooLargeError(LambdaApiError):
    """The payload is over the limit of its invocation type."""

    code = "RequestTooLargeException"
    status = 413


class InvalidRequestContentError(LambdaApiError):
    """The payload or the client context is not JSON."""

    code = "InvalidRequestContentException"
    status = 400


class InvalidParameterValueError(LambdaApiError):
    """A header of the Invoke API has a value that it does not know."""

    code = "InvalidParameterValueException"
    status = 400


class ServiceError(LambdaApiError):
    """The local service could not run the function at all (it is closing, or Python does not start)."""

    code = "ServiceException"
    status = 500
    fault = "Service"
