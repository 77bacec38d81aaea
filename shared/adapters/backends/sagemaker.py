"""`sagemaker`: the container behind a SageMaker real-time endpoint."""

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from shared.adapters.backends.sagemaker_options import EndpointOptions

if TYPE_CHECKING:
    from shared.adapters.backends.resources import Resources
    from shared.domain.ports import Backend


class Options(EndpointOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As `EndpointOptions`; `explanations` is the expression of `EnableExplanations`, for an endpoint with Clarify."""

    target_model: Annotated[str, Meta(pattern=r"^([!-~][ -~]*)?$", max_length=1024)] = ""
    explanations: Annotated[str, Meta(pattern=r"^[ -~]*$", max_length=64)] = ""

    def target(self) -> dict[str, str]:
        """The arguments of InvokeEndpoint that choose within the endpoint."""
        more = {"TargetModel": self.target_model, "EnableExplanations": self.explanations}
        return {**EndpointOptions.target(self), **{name: value for name, value in more.items() if value}}


def build(options: Options, resources: "Resources") -> "Backend":
    """The backend of an endpoint's configuration."""
    from shared.adapters.backends.sagemaker_realtime import SageMakerBackend

    return SageMakerBackend(**options.arguments(resources))
