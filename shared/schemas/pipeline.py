"""The block `pipeline` of a manifest; see `shared.domain.pipeline` for what it means."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.domain.pipeline import MAX_STEPS, Pipeline, Source, Step

_MAX_VERSION = 999_999_999
_Model = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_StepName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
_Tensor = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Source = Annotated[str, StringConstraints(min_length=1, max_length=330)]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepDocument(_Document):
    """One step: `inputs` says what feeds each input of the model, an outer input or `<earlier step>.<output>`.

    `version` is a number, never a label: what is published does not change. `name` is the model's unless it is given;
    a model that is used twice needs one. `digest` is that of the model's version, which publishing fills in.
    """

    model: _Model
    version: Annotated[int, Field(ge=1, le=_MAX_VERSION)]
    name: _StepName | None = None
    inputs: Annotated[dict[_Tensor, _Source], Field(min_length=1, max_length=64)]
    digest: _Digest | None = None

    @property
    def label(self) -> str:
        """The name by which later steps know it."""
        return self.name or self.model


class PipelineDocument(_Document):
    """The whole block: the steps in order, and the step's output behind each outer output."""

    steps: Annotated[tuple[StepDocument, ...], Field(min_length=1, max_length=MAX_STEPS)]
    outputs: Annotated[dict[_Tensor, _Source], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _sources_are_earlier_steps(self) -> Self:
        self.to_pipeline()
        return self

    def to_pipeline(self) -> Pipeline:
        """The domain's value; ValueError for a source that is none."""
        steps: list[Step] = []
        names = [step.label for step in self.steps]
        for step in self.steps:
            if names.count(step.label) > 1:
                raise ValueError(f"two steps are called {step.label!r}: give each a name of its own")
            if "." in step.label:
                raise ValueError(f"the step {step.label!r} needs a name without a dot")
            known = [earlier.name for earlier in steps]
            inputs = {
                name: _source(source, known, names, f"step {step.label!r}, input {name!r}")
                for name, source in step.inputs.items()
            }
            steps.append(Step(step.label, step.model, step.version, inputs, step.digest or ""))
        outputs = {name: _source(source, names, names, f"output {name!r}") for name, source in self.outputs.items()}
        for name, source in outputs.items():
            if source.step is None:
                raise ValueError(f"output {name!r}: {source.tensor!r} is not <step>.<output>")
        return Pipeline(tuple(steps), outputs)

    @classmethod
    def from_pipeline(cls, pipeline: Pipeline) -> Self:
        """The document of a domain value."""
        steps = tuple(
            StepDocument(
                model=step.model,
                version=step.version,
                name=None if step.name == step.model else step.name,
                inputs={name: str(source) for name, source in step.inputs.items()},
                digest=step.digest or None,
            )
            for step in pipeline.steps
        )
        return cls(steps=steps, outputs={name: str(source) for name, source in pipeline.outputs.items()})


def _source(text: str, known: list[str], names: list[str], where: str) -> Source:
    """`<step>.<output>` of a known step, or an outer input, whose name has no dot."""
    step, dot, tensor = text.partition(".")
    if not dot:
        return Source(None, text)
    if step in known and tensor:
        return Source(step, tensor)
    if step in names:
        raise ValueError(f"{where}: {step!r} is not an earlier step")
    raise ValueError(f"{where}: {text!r} names no step; names of the pipeline's own inputs hold no dot")
