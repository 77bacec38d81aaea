"""`manifest.json` of a model package.

The signature is the outer one: names, dtypes and shapes as callers use them. Where there is no pre-processing, the
names are those of the graph. `sluice publish model.onnx` writes a manifest from the graph alone.
"""

from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.domain.dtypes import DType
from shared.domain.feature_checks import problems_of
from shared.domain.features import ModelFeatures
from shared.domain.model import Placement
from shared.domain.serving import ServingPolicy
from shared.domain.signature import Content, Signature, TensorSpec
from shared.schemas.features import FeaturesDocument
from shared.schemas.pipeline import PipelineDocument
from shared.schemas.serving import ServingDocument

# Nine digits: fits every integer type on the way.
MAX_VERSION = 999_999_999
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
TensorName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorDocument(_Document):
    """One outer tensor; fields as in `shared.domain.signature.TensorSpec`, -1 for a dimension of any size."""

    name: TensorName
    dtype: DType
    shape: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], Field(max_length=8)]
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    layouts: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = ()
    content: Content | None = None
    minimum: float | None = None
    maximum: float | None = None
    allow_non_finite: bool = False
    max_length: Annotated[int, Field(ge=1)] | None = None
    optional: bool = False

    def to_spec(self) -> TensorSpec:
        """The domain's value."""
        fields = self.model_dump(exclude={"shape"})
        return TensorSpec(**fields, shape=tuple(None if dim < 0 else dim for dim in self.shape))

    @classmethod
    def from_spec(cls, spec: TensorSpec) -> Self:
        """The document of a domain value."""
        fields = {name: getattr(spec, name) for name in cls.model_fields if name != "shape"}
        return cls(**fields, shape=tuple(-1 if dim is None else dim for dim in spec.shape))

    @model_validator(mode="after")
    def _named_axis_fits(self) -> Self:
        for kind in ("features", "classes"):
            names: tuple[str, ...] = getattr(self, kind)
            if len(set(names)) != len(names):
                raise ValueError(f"{self.name}: {kind} holds a name twice")
            if names and self.dtype is not DType.BYTES and (not self.shape or self.shape[-1] not in (-1, len(names))):
                raise ValueError(f"{self.name}: {len(names)} {kind} do not fit the last axis of {list(self.shape)}")
        return self


def _holds_as_many(layout: tuple[int, ...], instance: tuple[int, ...]) -> bool:
    """Whether the elements of `layout` fill `instance` exactly, with at most one axis of any size."""
    known = prod(dim for dim in instance if dim >= 0)
    open_axes = sum(dim < 0 for dim in instance)
    return prod(layout) == known if not open_axes else open_axes == 1 and known > 0 and prod(layout) % known == 0


class SignatureDocument(_Document):
    """Outer inputs and outputs."""

    inputs: Annotated[tuple[TensorDocument, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorDocument, ...], Field(min_length=1)]
    batched: bool = True
    max_batch: Annotated[int, Field(ge=1, le=65_536)] = 1024

    @model_validator(mode="after")
    def _tensors_fit(self) -> Self:
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise ValueError(f"{kind} holds a name twice")
            for tensor in tensors:
                if self.batched and not tensor.shape and not tensor.optional:
                    raise ValueError(f"{tensor.name}: a tensor of a batched signature needs an axis of instances")
                instance = tensor.shape[1:] if self.batched else tensor.shape
                for layout in tensor.layouts:
                    if not _holds_as_many(layout, instance):
                        raise ValueError(f"{tensor.name}: the layout {list(layout)} does not fit {list(instance)}")
        return self

    def to_signature(self) -> Signature:
        """The domain's value."""
        return Signature(
            inputs=tuple(tensor.to_spec() for tensor in self.inputs),
            outputs=tuple(tensor.to_spec() for tensor in self.outputs),
            batched=self.batched,
            max_batch=self.max_batch,
        )

    @classmethod
    def from_signature(cls, signature: Signature) -> Self:
        """The document of a domain value."""
        return cls(
            inputs=tuple(TensorDocument.from_spec(spec) for spec in signature.inputs),
            outputs=tuple(TensorDocument.from_spec(spec) for spec in signature.outputs),
            batched=signature.batched,
            max_batch=signature.max_batch,
        )


class ImageStep(_Document):
    """Pre-processing: an encoded PNG or JPEG becomes the numbers of the input.

    `max_pixels` bounds one image, `max_request_pixels` those of one request together, both told from the headers.

    The image is converted to `mode`, resized to `width` × `height` (box filter), inverted if `invert` (dark ink on
    white paper), scaled from 0…255 to 0…`scale`, and flattened row by row to the input's instance shape.
    """

    kind: Literal["image"] = "image"
    input: TensorName
    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    mode: Literal["L", "RGB"] = "L"
    scale: float = 1.0
    invert: bool = False
    max_pixels: Annotated[int, Field(ge=1, le=100_000_000)] = 4_000_000
    max_request_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)] = 32_000_000


class TokenizeStep(_Document):
    """Pre-processing: text becomes the graph's token tensors, padded to the longest text of the batch.

    `tokenizer` is a file of the package in the format of the `tokenizers` library. `max_tokens` truncates. The names
    say which graph inputs take the ids, the attention mask and the token types (INT64 [batch, tokens]).
    """

    kind: Literal["tokenize"] = "tokenize"
    input: TensorName
    tokenizer: Literal["tokenizer.json"] = "tokenizer.json"
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    input_ids: TensorName = "input_ids"
    attention_mask: TensorName | None = "attention_mask"
    token_type_ids: TensorName | None = None


class LabelStep(_Document):
    """Post-processing: class indices (any integer dtype) in the graph's `source` become class names in `output`."""

    kind: Literal["label"] = "label"
    source: TensorName
    output: TensorName
    classes: Annotated[tuple[str, ...], Field(min_length=1)]


Preprocessing = Annotated[ImageStep | TokenizeStep, Field(discriminator="kind")]


class Manifest(_Document):
    """The whole manifest.

    `placement` is where the model runs by default; `serving` is how the container serves it; `features` are inputs that
    the feature store fills, at the functions alone; a `pipeline` takes the place of a graph; `metrics` are held-out
    figures; `data` says what it was trained on; `lineage` is free: parameters, tools and versions, parent models.
    """

    name: ModelName
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    description: str = ""
    signature: SignatureDocument
    preprocessing: tuple[Preprocessing, ...] = ()
    postprocessing: tuple[LabelStep, ...] = ()
    placement: Placement = Placement.FUNCTION
    serving: ServingDocument | None = None
    features: FeaturesDocument | None = None
    pipeline: PipelineDocument | None = None
    metrics: dict[str, float] = {}
    data: dict[str, Any] = {}
    lineage: dict[str, Any] = {}
    author: str = ""
    licence: str = ""
    stage: Literal["development", "staging", "production", "archived"] = "development"
    example: Any = None

    @model_validator(mode="after")
    def _steps_name_tensors(self) -> Self:
        inputs = {tensor.name for tensor in self.signature.inputs}
        outputs = {tensor.name for tensor in self.signature.outputs}
        for step in self.preprocessing:
            if step.input not in inputs:
                raise ValueError(f"preprocessing names the input {step.input!r}, which the signature does not have")
        for post in self.postprocessing:
            if post.output not in outputs:
                raise ValueError(f"postprocessing names the output {post.output!r}, which the signature does not have")
        return self

    @model_validator(mode="after")
    def _pipeline_leaves_to_its_steps_what_is_theirs(self) -> Self:
        if self.pipeline is None:
            return self
        if self.preprocessing or self.postprocessing:
            raise ValueError("a pipeline has no preprocessing or postprocessing of its own: its steps have theirs")
        if self.serving is not None and self.serving.model_fields_set - {"cache", "join"}:
            raise ValueError("serving: a pipeline may set cache and join; everything else is set with its steps")
        return self

    @model_validator(mode="after")
    def _serving_fits(self) -> Self:
        if self.serving is not None:
            self.serving.check(self.signature.to_signature())
        return self

    @model_validator(mode="after")
    def _features_fit(self) -> Self:
        features = self.model_features()
        if features is not None and (problems := list(problems_of(features, self.signature.to_signature()))):
            raise ValueError(f"features: {'; '.join(problems[:5])}")
        return self

    def model_features(self) -> ModelFeatures | None:
        """What the feature store fills; None if the manifest names no features."""
        return None if self.features is None else self.features.to_features(self.signature.to_signature())

    def serving_policy(self) -> ServingPolicy:
        """How the container serves it; everything off if the manifest does not say."""
        return ServingPolicy() if self.serving is None else self.serving.to_policy(self.signature.to_signature())

    def metadata(self) -> dict[str, Any]:
        """What people read of it: everything that is not kept in a place of its own, or for the container alone."""
        apart = {"name", "version", "signature", "placement", "serving", "features", "pipeline"}
        return self.model_dump(mode="json", exclude=apart)
