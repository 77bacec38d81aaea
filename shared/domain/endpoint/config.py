"""What is set for an endpoint at run time, without a deployment. An endpoint has the name of its model.

These dataclasses are the one definition of the document: `shared.schemas.endpoint` validates against them and makes the
JSON Schema, the stores keep them as JSON, and a function reads them back with msgspec. Bounds of single fields stand in
their types; what must hold between fields is told by `shared.domain.endpoint.checks`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from annotated_types import Ge, Gt, Le, Len

# As `shared.schemas.manifest.ModelName` has it.
ENDPOINT_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
# Of variants, backends and experiments: part of headers, log lines and attributes of items.
PART_NAME: Final = r"[a-z0-9][a-z0-9-]{0,31}"
# Beside a version's number: begins with a letter, so the two never meet.
LABEL: Final = r"[a-z][a-z0-9._-]{0,31}"

AUTO: Final = "auto"
FUNCTION: Final = "function"
CONTAINER: Final = "container"
DEFAULT_VARIANT: Final = "main"
MAX_VARIANTS: Final = 16

Priority = Literal["high", "normal", "low"]
Share = Annotated[float, Ge(0), Le(1)]
Name = Annotated[str, Len(1, 32)]
FieldName = Annotated[str, Len(1, 256)]

# What Pydantic is told of each of these (it reads the attribute; the domain does not import it).
_DOCUMENT: Final[Any] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the things that may answer for the endpoint."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    name: Name
    """Unique within the endpoint: lower-case letters, digits and dashes."""
    version: Annotated[int, Ge(1), Le(999_999_999)] | Name | None = None
    """A version of the model or one of `labels`; null is the highest one published."""
    backend: Name = AUTO
    """Where it runs: `function`, `container`, one of `backends`, or `auto`."""
    weight: Annotated[float, Ge(0), Le(1_000_000)] = 100.0
    """Its share of the traffic, relative to the others'; 0 takes none."""


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend beside the stack's own, by its kind; the options of each kind are in docs/backends.md."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    kind: Name
    """Such as `sagemaker`, `sagemaker-async`, `sagemaker-stream`, `open-inference-http`, `open-inference-grpc`."""
    options: Annotated[Mapping[str, Any], Len(0, 32)] = field(default_factory=dict)
    """Where it is, and how it is called."""
    usd_per_hour: Annotated[float, Ge(0), Le(10_000)] = 0.0
    """What its instances cost together; 0 if it costs nothing more to call it."""
    concurrency: Annotated[int, Ge(1), Le(10_000)] = 1
    """How many requests share that price at once."""


@dataclass(frozen=True, slots=True)
class AutoRouting:
    """How `auto` chooses: the cheapest of the candidates that is expected to meet the deadline."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    candidates: Annotated[tuple[Name, ...], Len(0, 8)] = ()
    """Backends to choose from; none named: the one that the model's manifest names."""
    function_max_rows: Annotated[int, Ge(0), Le(65_536)] = 64
    """More rows than this never run inside the function, if there is another candidate."""
    function_max_bytes: Annotated[int, Ge(0), Le(6_291_456)] = 1_048_576
    """More bytes of inputs than this never run inside the function, if there is another candidate."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An A/B experiment: units are split between its arms, and every exposure is recorded."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    name: Name
    """Changing it splits the units anew."""
    unit: Annotated[str, Len(1, 80)]
    """What is split: `tenant`, `key` or `header:<name>`. A request without it is not part of the experiment."""
    arms: Annotated[Mapping[Name, Annotated[float, Ge(0), Le(1_000_000)]], Len(2, 8)]
    """Weights by variant."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A variant that gets copies of requests; its answers are compared with the primary's, and never given."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    variant: Name
    """The variant; its weight is 0 as a rule."""
    share: Share = 1.0
    """Share of the requests that are copied."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """A second attempt beside the first, if that takes long; the first answer wins."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    after_ms: Annotated[int, Ge(1), Le(29_000)]
    """How long the first attempt may take before."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Attempts after a failed one: only where the backend took nothing on, and within the deadline."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    attempts: Annotated[int, Ge(0), Le(3)] = 1
    """Attempts after the first."""
    backoff_ms: Annotated[int, Ge(0), Le(5_000)] = 25
    """Longest pause before the first of them; it doubles, and a random part of it is waited."""
    budget: Annotated[float, Ge(0), Le(1)] = 0.1
    """Retries and hedges for each call that went well: when most calls fail, there are no more of them."""
    hedge: Hedge | None = None
    """A second attempt beside a slow first one."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a backend is left alone for a while; counted for each backend and variant."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    enabled: bool = True
    """Whether it ever opens."""
    window_s: Annotated[float, Gt(0), Le(600)] = 30.0
    """How far back calls are counted, in seconds."""
    min_calls: Annotated[int, Ge(1), Le(1_000)] = 3
    """Fewer calls than this within the window never open it."""
    failure_rate: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of failed calls within the window that opens it."""
    open_s: Annotated[float, Gt(0), Le(600)] = 5.0
    """How long it stays open before one call is let through to try."""
    counts_from_ms: Annotated[int, Ge(1), Le(29_000)] = 500
    """A call that ran out of time counts as failed if it had this long, or twice the usual time if that is more."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """What answers in the variant's place when it cannot; tried in order, and named in `X-Sluice-Fallback`."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    kind: Literal["variant", "cached", "static"]
    """Another variant, the last cached answer to the same inputs, or an answer that is always the same."""
    variant: Name | None = None
    """For `variant`: which one."""
    max_age_s: Annotated[int, Ge(1), Le(604_800)] = 3_600
    """For `cached`: how old the answer may be."""
    outputs: Annotated[Mapping[FieldName, Any], Len(0, 64)] = field(default_factory=dict)
    """For `static`: each output's value for one instance, as JSON."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """Bounds below those of the model and the stack."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    max_rows: Annotated[int, Ge(1), Le(65_536)] | None = None
    """Most instances of a request."""
    max_bytes: Annotated[int, Ge(1), Le(6_291_456)] | None = None
    """Most bytes of a request's body, decompressed."""
    concurrency: Annotated[int, Ge(1), Le(256)] | None = None
    """Most calls of one backend by this endpoint at once, in all environments together; costs two writes a call."""
    priorities: Annotated[Mapping[Annotated[str, Len(1, 64)], Priority], Len(0, 256)] = field(default_factory=dict)
    """Priorities by tenant, `normal` for all others. While the concurrency is used up to a half, all are served;
    beyond that `low` waits outside, and beyond 80 % only `high` is."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Answers to equal inputs, kept for a while."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    ttl_s: Annotated[int, Ge(1), Le(604_800)]
    """Seconds for which an answer is given again."""
    stale_s: Annotated[int, Ge(0), Le(604_800)] = 0
    """Seconds after that for which it is still given, while one request makes a new one."""
    store: Literal["memory", "dynamodb"] = "memory"
    """`memory` is each environment's own; `dynamodb` is shared, and costs a read for each request."""
    public: bool = False
    """Whether tenants share answers. Only for models whose answers are no secret of who asked first."""
    join: bool = False
    """With `dynamodb`: equal requests in flight wait for the first of them instead of running, too."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A decision by a score, as an output of its own."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    output: FieldName
    """The output with the score."""
    at: float
    """Scores from here on are `above`."""
    below: Annotated[str, Len(0, 256)]
    """The decision for a lower score."""
    above: Annotated[str, Len(0, 256)]
    """The decision for this score or a higher one."""
    class_name: FieldName | None = None
    """Which of the output's classes, where it has some."""


@dataclass(frozen=True, slots=True)
class ResponseFilter:
    """Which outputs and classes leave the house; everything unless something is named."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    outputs: Annotated[tuple[FieldName, ...], Len(0, 64)] = ()
    """Outputs that are answered (thresholds' among them); none named: all."""
    classes: Annotated[Mapping[FieldName, Annotated[tuple[FieldName, ...], Len(1, 1024)]], Len(0, 64)] = field(
        default_factory=dict
    )
    """Of outputs with classes: those that are answered."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What of requests goes into their log lines."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    inputs: Share = 0.0
    """Share of requests whose inputs are logged."""
    outputs: Share = 0.0
    """Share of requests whose outputs are logged."""
    redact: Annotated[tuple[FieldName, ...], Len(0, 256)] = ()
    """Tensors and features of which only the name is logged."""


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """How features that the model's manifest names are fetched."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    on_failure: Literal["defaults", "refuse"] = "refuse"
    """While the feature store fails: go on with the manifest's defaults, or answer 503."""
    max_age_s: Annotated[int, Ge(1), Le(31_536_000)] | None = None
    """Features older than this count as missing, where the manifest does not set a stricter limit itself."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """The configuration of one endpoint; without further arguments the one that holds until some is stored."""

    __pydantic_config__: ClassVar[Any] = _DOCUMENT

    endpoint: Annotated[str, Len(1, 64)]
    """Name of the endpoint, which is that of its model."""
    variants: Annotated[tuple[Variant, ...], Len(1, MAX_VARIANTS)] = (Variant(DEFAULT_VARIANT),)
    """What may answer; the traffic is split by their weights."""
    labels: Annotated[Mapping[Name, Annotated[int, Ge(1), Le(999_999_999)]], Len(0, 64)] = field(default_factory=dict)
    """Movable names for versions, such as `prod`."""
    explicit_versions: Literal["any", "variants", "none"] = "any"
    """Which versions a request may ask for by itself: any, those of the variants, or none."""
    sticky: Annotated[str, Len(1, 80)] = "header:x-sluice-sticky-key"
    """What keeps a caller with its variant: `tenant`, `key`, `header:<name>`, or `none`."""
    experiment: Experiment | None = None
    """An A/B experiment beside the weights."""
    shadow: Shadow | None = None
    """A variant that gets copies of requests."""
    backends: Annotated[Mapping[Name, BackendChoice], Len(0, 16)] = field(default_factory=dict)
    """Backends beside `function` and `container`, by name."""
    auto: AutoRouting = AutoRouting()
    """How the backend `auto` is chosen."""
    timeout_ms: Annotated[int, Ge(1), Le(29_000)] = 29_000
    """Longest time for an answer; requests may ask for less with `X-Sluice-Deadline-Ms`."""
    retries: Retries = Retries()
    """Attempts after a failed one."""
    breaker: BreakerSettings = BreakerSettings()
    """When a failing backend is left alone."""
    fallback: Annotated[tuple[Fallback, ...], Len(0, 8)] = ()
    """What answers when the variant cannot, in this order."""
    fallback_reserve_ms: Annotated[int, Ge(0), Le(10_000)] = 100
    """Time of the deadline that is kept for fallbacks, if there are any."""
    limits: EndpointLimits = EndpointLimits()
    """Bounds of requests."""
    cache: CacheSettings | None = None
    """Whether and how answers are kept."""
    thresholds: Annotated[Mapping[FieldName, Threshold], Len(0, 32)] = field(default_factory=dict)
    """Decisions by scores, by the name of the output that is added."""
    class_labels: Annotated[
        Mapping[FieldName, Annotated[Mapping[FieldName, Annotated[str, Len(1, 256)]], Len(1, 1024)]], Len(0, 64)
    ] = field(default_factory=dict)
    """Other names for classes, by output: of an output's text values, and of its classes."""
    response: ResponseFilter = ResponseFilter()
    """What of the outputs is answered."""
    logging: LogSettings = LogSettings()
    """What of requests is logged."""
    features: FeatureSettings = FeatureSettings()
    """How features are fetched."""

    def variant(self, name: str) -> Variant | None:
        """The variant of this name."""
        return next((variant for variant in self.variants if variant.name == name), None)


@dataclass(frozen=True, slots=True)
class StoredEndpoint:
    """A configuration as it is kept: `revision` counts its changes from 1, `changed_at` is in seconds since 1970.

    `changed_by` names the credential or the person behind the change, `note` is theirs.
    """

    config: EndpointConfig
    revision: int
    changed_at: int
    changed_by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What environments share of an endpoint: its configuration (None: never stored), and which circuits are open.

    `open_until` has the end of each open circuit (`shared.domain.endpoint.circuit.circuit_name`) in seconds since 1970.
    """

    stored: StoredEndpoint | None = None
    open_until: Mapping[str, float] = field(default_factory=dict)
