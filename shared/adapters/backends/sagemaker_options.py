"""What the SageMaker kinds that answer at once have in common: which endpoint, what of it, and how much of it."""

from typing import TYPE_CHECKING, Any

import msgspec

from shared.adapters.backends.sagemaker_clients import (
    DEFAULT_MAX_BYTES,
    DEFAULT_TIMEOUTS_S,
    EndpointName,
    MaxBytes,
    PartName,
    Timeouts,
    check_rising,
)

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

    from shared.adapters.backends.resources import Resources


class EndpointOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which endpoint, and what of it. Empty names leave the choice to SageMaker.

    `timeouts_s` are read timeouts in seconds, rising (for a stream: between two parts); a call takes the shortest that
    covers its deadline.
    """

    endpoint: EndpointName
    target_variant: PartName = ""
    inference_component: PartName = ""
    target_container: PartName = ""
    max_request_bytes: MaxBytes = DEFAULT_MAX_BYTES
    max_response_bytes: MaxBytes = DEFAULT_MAX_BYTES
    timeouts_s: Timeouts = DEFAULT_TIMEOUTS_S

    def __post_init__(self) -> None:
        check_rising(self.timeouts_s)

    def target(self) -> dict[str, str]:
        """The arguments of the call that choose within the endpoint."""
        chosen = {
            "TargetVariant": self.target_variant,
            "InferenceComponentName": self.inference_component,
            "TargetContainerHostname": self.target_container,
        }
        return {name: value for name, value in chosen.items() if value}

    def arguments(self, resources: "Resources") -> dict[str, Any]:
        """What the adapters are made with, by keyword."""

        def client_for(seconds: float) -> "SageMakerRuntimeClient":
            made: SageMakerRuntimeClient = resources.client("sagemaker-runtime", read_timeout=seconds, retries=0)
            return made

        return {
            "client_for": client_for,
            "endpoint_name": self.endpoint,
            "target": self.target(),
            "timeouts_s": self.timeouts_s,
            "max_request_bytes": self.max_request_bytes,
            "max_response_bytes": self.max_response_bytes,
        }
