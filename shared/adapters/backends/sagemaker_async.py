"""`sagemaker-async`: a SageMaker asynchronous endpoint, through objects in S3."""

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from shared.adapters.backends.sagemaker_clients import (
    DEFAULT_MAX_BYTES,
    DEFAULT_TIMEOUTS_S,
    MIB,
    EndpointName,
    Timeouts,
    check_rising,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

    from shared.adapters.backends.resources import Resources
    from shared.domain.ports import Backend

# From the service model: the longest body in the call itself, and the bounds of the two times.
MAX_INLINE_BYTES: Final = 128_000
MIN_TTL_S: Final = 60
_MAX_TTL_S: Final = 21_600
_MAX_INVOCATION_S: Final = 3_600


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which endpoint, and how long its queue and its container may take."""

    endpoint: EndpointName
    inline: bool = True
    """Whether small inputs travel in the call; false puts all of them into the bucket."""
    request_ttl_s: Annotated[int, Meta(ge=MIN_TTL_S, le=_MAX_TTL_S)] = _MAX_TTL_S
    """Longest time in SageMaker's queue; the deadline of a request shortens it, down to a minute."""
    invocation_timeout_s: Annotated[int, Meta(ge=1, le=_MAX_INVOCATION_S)] = 900
    """Longest time in the container; the deadline of a request shortens it."""
    max_request_bytes: Annotated[int, Meta(ge=1, le=1024 * MIB)] = DEFAULT_MAX_BYTES
    max_response_bytes: Annotated[int, Meta(ge=1, le=1024 * MIB)] = DEFAULT_MAX_BYTES
    poll_min_ms: Annotated[int, Meta(ge=10, le=60_000)] = 50
    """First pause between two looks at the bucket; it grows by half each time."""
    poll_max_ms: Annotated[int, Meta(ge=10, le=60_000)] = 1_000
    """Longest pause between two looks."""
    timeouts_s: Timeouts = DEFAULT_TIMEOUTS_S
    """Read timeouts in seconds of single calls, rising; a call takes the shortest that covers its deadline."""

    def __post_init__(self) -> None:
        check_rising(self.timeouts_s)
        if self.poll_min_ms > self.poll_max_ms:
            raise ValueError("poll_min_ms must not be more than poll_max_ms")


def build(options: Options, resources: "Resources") -> "Backend":
    """The backend of an endpoint's configuration."""
    from shared.adapters.backends.sagemaker_queue import SageMakerAsyncBackend

    def runtime_for(seconds: float) -> "SageMakerRuntimeClient":
        made: SageMakerRuntimeClient = resources.client("sagemaker-runtime", read_timeout=seconds, retries=0)
        return made

    def s3_for(seconds: float) -> "S3Client":
        made: S3Client = resources.client("s3", read_timeout=seconds, retries=1)
        return made

    return SageMakerAsyncBackend(runtime_for, s3_for, resources.data_bucket, options)
