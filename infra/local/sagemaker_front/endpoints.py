"""What the front knows of an endpoint: where its container is, and the settings of its EndpointConfig."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from infra.local.sagemaker_front.wire import VARIANT, ServiceError, validation_error
from infra.local.stack import ACCOUNT_ID, StackSpec

# Without MaxConcurrentInvocationsPerInstance SageMaker chooses one; here it is this.
DEFAULT_CONCURRENCY: Final = 4


@dataclass(frozen=True, slots=True)
class AsyncConfig:
    """An AsyncInferenceConfig; paths are `s3://` addresses, topics ARNs.

    `include_in` are the topics whose notices hold the answer: `SUCCESS_NOTIFICATION_TOPIC`, `ERROR_NOTIFICATION_TOPIC`.
    """

    output_path: str
    failure_path: str | None = None
    success_topic: str | None = None
    error_topic: str | None = None
    include_in: frozenset[str] = frozenset()
    concurrency: int = DEFAULT_CONCURRENCY

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """From the property AsyncInferenceConfig of a template."""
        output = config["OutputConfig"]
        notices = output.get("NotificationConfig", {})
        most = config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", DEFAULT_CONCURRENCY)
        return cls(
            output_path=output["S3OutputPath"],
            failure_path=output.get("S3FailurePath") or None,
            success_topic=notices.get("SuccessTopic") or None,
            error_topic=notices.get("ErrorTopic") or None,
            include_in=frozenset(notices.get("IncludeInferenceResponseIn", ())),
            concurrency=int(most),
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint in service. `url` is its container's; the first of `variants` answers where none is asked for."""

    name: str
    url: str
    variants: tuple[str, ...] = ("main",)
    asynchronous: AsyncConfig | None = None

    def variant_for(self, headers: Mapping[str, str]) -> str:
        """The production variant that answers; ServiceError for one that the endpoint does not have."""
        wanted = headers.get(VARIANT, self.variants[0])
        if wanted not in self.variants:
            listed = ", ".join(self.variants)
            raise validation_error(f"Variant {wanted} was not found; the endpoint has {listed}.")
        return wanted


class Endpoints:
    """The endpoints of a stack, by name."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}

    @classmethod
    def of(cls, stack: StackSpec, url: str) -> Self:
        """Those that the template declares; one container, at `url`, stands behind all of them."""
        configs = {spec.name: spec.properties for spec in stack.of_type("AWS::SageMaker::EndpointConfig")}
        return cls(
            _endpoint(spec.name, configs[spec.properties["EndpointConfigName"]], url)
            for spec in stack.of_type("AWS::SageMaker::Endpoint")
        )

    def real_time(self, name: str) -> Endpoint:
        """An endpoint that answers at once; ServiceError if there is none of this name."""
        endpoint = self._known(name)
        if endpoint.asynchronous is not None:
            raise validation_error(
                f"Endpoint {name} is an asynchronous inference endpoint: use InvokeEndpointAsync instead."
            )
        return endpoint

    def asynchronous(self, name: str) -> Endpoint:
        """An endpoint with an AsyncInferenceConfig; ServiceError if there is none of this name."""
        endpoint = self._known(name)
        if endpoint.asynchronous is None:
            raise validation_error(f"Endpoint {name} is not an asynchronous inference endpoint: use InvokeEndpoint.")
        return endpoint

    def with_queues(self) -> tuple[Endpoint, ...]:
        """The asynchronous endpoints."""
        return tuple(endpoint for endpoint in self._endpoints.values() if endpoint.asynchronous)

    def _known(self, name: str) -> Endpoint:
        if name not in self._endpoints:
            raise _not_found(name)
        return self._endpoints[name]


def _not_found(name: str) -> ServiceError:
    return validation_error(f"Endpoint {name} of account {ACCOUNT_ID} not found.")


def _endpoint(name: str, config: Mapping[str, Any], url: str) -> Endpoint:
    declared = config.get("AsyncInferenceConfig")
    variants = tuple(str(variant["VariantName"]) for variant in config["ProductionVariants"])
    return Endpoint(name, url, variants, AsyncConfig.of(declared) if declared else None)
