"""`sagemaker-stream`: a SageMaker endpoint whose answers come as a stream of events."""

from typing import TYPE_CHECKING

from shared.adapters.backends.sagemaker_options import EndpointOptions

if TYPE_CHECKING:
    from shared.adapters.backends.resources import Resources
    from shared.domain.ports import Backend


class Options(EndpointOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As `EndpointOptions`."""


def build(options: Options, resources: "Resources") -> "Backend":
    """The backend of an endpoint's configuration."""
    from shared.adapters.backends.sagemaker_events import SageMakerStreamBackend

    return SageMakerStreamBackend(**options.arguments(resources))
