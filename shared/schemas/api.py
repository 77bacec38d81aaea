"""Documents of the HTTP API: what `/openapi.json` describes and the catalogue answers.

Predictions are encoded without these models, for speed; tests hold the answers against them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.outputs import OutputPlan
from shared.domain.model import ModelVersion, Placement
from shared.schemas.features import FeaturesDocument
from shared.schemas.manifest import ModelName, SignatureDocument, TensorDocument
from shared.schemas.pipeline import PipelineDocument


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ProblemField(_Document):
    """One place that is wrong."""

    pointer: Annotated[str, Field(description="JSON pointer (RFC 6901) into the request body")]
    detail: str


class Problem(_Document):
    """An error (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:sluice:problem:wrong_shape"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: Annotated[str, Field(description="Stable; the messages may change.", examples=["wrong_shape"])]
    request_id: str
    errors: tuple[ProblemField, ...] = ()


class ProtocolProblem(Problem):
    """An error on the routes of the Open Inference Protocol, whose clients read `error`: the same as `detail`."""

    error: str


class GatewayMessage(_Document):
    """What the gateway answers by itself, before any function: the credential is missing or refused."""

    message: str


class PredictByRow(_Document):
    """Instances by row: each is the value of the model's only input, or an object by input or feature name."""

    instances: Annotated[list[JsonValue], Field(min_length=1)]


class PredictByTensor(_Document):
    """Whole tensors by input name."""

    inputs: dict[str, JsonValue]


class ServedBy(_Document):
    """Who made a prediction."""

    name: ModelName
    version: Annotated[int, Field(ge=1)]
    variant: str
    backend: str


class PredictResponse(_Document):
    """One prediction for each instance, in order."""

    predictions: list[JsonValue]
    model: ServedBy
    prediction_id: str


class InferTensor(BaseModel):
    """A tensor of the Open Inference Protocol; without `data` its bytes follow the JSON of the body."""

    name: str
    datatype: str
    shape: list[int]
    data: list[JsonValue] | None = None
    parameters: dict[str, JsonValue] | None = None


class RequestedOutput(BaseModel):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, JsonValue] | None = None


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol (V2)."""

    id: str | None = None
    parameters: dict[str, JsonValue] | None = None
    inputs: Annotated[list[InferTensor], Field(min_length=1)]
    outputs: list[RequestedOutput] | None = None


class InferResponse(BaseModel):
    """An answer of the Open Inference Protocol (V2)."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferTensor]


class ServerMetadata(_Document):
    """The server, as the Open Inference Protocol describes it."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(_Document):
    """The server runs."""

    live: Literal[True]


class ServerReady(_Document):
    """Whether predictions can be served."""

    ready: bool


class ModelReady(_Document):
    """Whether a model would answer."""

    name: ModelName
    ready: bool


class TensorMetadata(_Document):
    """An input or output of a model; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Document):
    """A model, as the Open Inference Protocol describes it."""

    name: ModelName
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Health(_Document):
    """The function runs."""

    status: Literal["ok"]


class Readiness(_Document):
    """Whether predictions can be served; `missing` says what stands in the way."""

    ready: bool
    missing: tuple[str, ...]
    checks: dict[str, str]


class VersionSummary(_Document):
    """One version in a list."""

    version: Annotated[int, Field(ge=1)]
    digest: str
    stage: str
    created_at: str

    @classmethod
    def of(cls, version: ModelVersion) -> Self:
        """The summary of a domain value."""
        return cls(version=version.version, digest=version.digest, stage=_stage(version), created_at=version.created_at)


class ModelSummary(_Document):
    """A model in the catalogue, as its highest version describes it."""

    name: ModelName
    version: Annotated[int, Field(ge=1)]
    description: str
    placement: Placement
    stage: str
    created_at: str

    @classmethod
    def of(cls, version: ModelVersion) -> Self:
        """The summary of a model's highest version."""
        return cls(
            name=version.model,
            version=version.version,
            description=str(version.metadata.get("description", "")),
            placement=version.placement,
            stage=_stage(version),
            created_at=version.created_at,
        )


class ModelList(_Document):
    """All published models, by name."""

    models: list[ModelSummary]


class Share(_Document):
    """The part of a model's traffic that goes to one variant; no `version` if its label names none."""

    variant: str
    version: Annotated[int, Field(ge=1)] | None
    percent: Annotated[float, Field(ge=0, le=100)]


class CallerSignature(SignatureDocument):
    """What callers send and get; an endpoint's response filter may leave nothing of a version's outputs."""

    outputs: tuple[TensorDocument, ...]


class VersionDocument(_Document):
    """Everything there is to know of one version. `size` in bytes; `metadata` is the manifest's, for people.

    `signature` is what callers send and get, by the endpoint's configuration; `features` are inputs that the feature
    store fills in their place. A `pipeline` names the models that it is made of, with the digests that they were
    published with; it is left out where the response filter hides outputs, which it would name.
    """

    name: ModelName
    version: Annotated[int, Field(ge=1)]
    digest: str
    size: int
    placement: Placement
    stage: str
    created_at: str
    signature: CallerSignature
    features: FeaturesDocument | None
    pipeline: PipelineDocument | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, version: ModelVersion, config: EndpointConfig) -> Self:
        """The document of a version whose endpoint has this configuration."""
        signature = OutputPlan.of(config, version.caller_signature).signature
        shown = {spec.name for spec in signature.outputs}
        whole = all(spec.name in shown for spec in version.signature.outputs)
        return cls(
            name=version.model,
            version=version.version,
            digest=version.digest,
            size=version.size,
            placement=version.placement,
            stage=_stage(version),
            created_at=version.created_at,
            signature=CallerSignature.from_signature(signature),
            features=None if version.features is None else FeaturesDocument.from_features(version.features),
            pipeline=PipelineDocument.from_pipeline(version.pipeline) if version.pipeline and whole else None,
            metadata={**version.metadata, **_example(version)},
        )


class ModelSchemas(_Document):
    """What a model takes and gives as JSON: two JSON Schemas (draft 2020-12)."""

    model: ModelName
    version: Annotated[int, Field(ge=1)]
    request: dict[str, JsonValue]
    response: dict[str, JsonValue]


class ModelDocument(VersionDocument):
    """A model as its highest version describes it, with its versions (the highest first) and who gets the traffic.

    `traffic` is by the variants' weights: an experiment splits its own units. `labels` are names for versions.
    """

    versions: list[VersionSummary]
    traffic: list[Share]
    labels: dict[str, int]

    @classmethod
    def of_versions(cls, versions: Sequence[ModelVersion], config: EndpointConfig) -> Self:
        """The document of a model from its versions, the highest first, and its endpoint's configuration."""
        latest = versions[0]
        return cls(
            **dict(VersionDocument.of(latest, config)),
            versions=[VersionSummary.of(version) for version in versions],
            traffic=_traffic(config, latest.version),
            labels=dict(config.labels),
        )


def _traffic(config: EndpointConfig, latest: int) -> list[Share]:
    """The variants that get some of it, in the configuration's order."""
    taking = [variant for variant in config.variants if variant.weight > 0]
    total = sum(variant.weight for variant in taking)
    shares = []
    for variant in taking:
        wanted = latest if variant.version is None else variant.version
        version = config.labels.get(wanted) if isinstance(wanted, str) else wanted
        shares.append(Share(variant=variant.name, version=version, percent=100 * variant.weight / total))
    return shares


def _example(version: ModelVersion) -> dict[str, Any]:
    """The example in callers' terms, where the manifest's own is in those of the model."""
    return {} if version.features is None else {"example": version.caller_example}


def _stage(version: ModelVersion) -> str:
    return str(version.metadata.get("stage", "development"))
