"""A pipeline: published models that run one after another, in one place, and are called as one model.

The steps are a list in the order in which they can run: a step takes outer inputs and outputs of earlier steps. Which
tensors fit together is the matter of `shared.domain.pipeline_signature`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.domain.errors import BackendError, InvalidRequest, SluiceError, pointer

if TYPE_CHECKING:  # the registry and the catalogue read this module without NumPy
    from shared.domain.tensors import Array, Tensors

MAX_STEPS: Final = 8
_INNER = "/steps"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor comes from: the output `tensor` of an earlier step, or of the outer inputs if `step` is None."""

    step: str | None
    tensor: str

    def __str__(self) -> str:
        return self.tensor if self.step is None else f"{self.step}.{self.tensor}"


@dataclass(frozen=True, slots=True)
class Step:
    """One model of a pipeline, in one version; `digest` is that version's, empty where nobody has published it."""

    name: str
    model: str
    version: int
    inputs: Mapping[str, Source]
    digest: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"step {self.name!r} ({self.model} version {self.version})"

    @property
    def takes_outer_only(self) -> bool:
        """Whether all that it is given comes from the caller."""
        return all(source.step is None for source in self.inputs.values())


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The steps, each after those that it depends on, and the outer outputs by name."""

    steps: tuple[Step, ...]
    outputs: Mapping[str, Source]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that has to run, the outputs that are needed of it, and the steps whose results it needs."""

    step: Step
    outputs: tuple[str, ...]
    after: frozenset[str]


Plan = tuple[PlannedStep, ...]


def plan_of(pipeline: Pipeline, outputs: Iterable[str] = ()) -> Plan:
    """The steps that the named outer outputs (none: all) need, in order, each with only the outputs that are used."""
    needed: dict[str, dict[str, None]] = {}
    for name in tuple(outputs) or pipeline.outputs:
        _need(pipeline.outputs[name], needed)
    planned: list[PlannedStep] = []
    for step in reversed(pipeline.steps):
        if step.name not in needed:
            continue
        for source in step.inputs.values():
            _need(source, needed)
        after = frozenset(source.step for source in step.inputs.values() if source.step is not None)
        planned.append(PlannedStep(step, tuple(needed[step.name]), after))
    return tuple(reversed(planned))


def _need(source: Source, needed: dict[str, dict[str, None]]) -> None:
    if source.step is not None:
        needed.setdefault(source.step, {})[source.tensor] = None


def inputs_of(step: Step, outer: "Tensors", results: "Mapping[str, Tensors]") -> "dict[str, Array]":
    """What a step is given: the arrays themselves, no copies. Optional outer inputs that are not there are left out."""
    given: dict[str, Array] = {}
    for name, source in step.inputs.items():
        tensors = outer if source.step is None else results[source.step]
        if source.tensor in tensors:
            given[name] = tensors[source.tensor]
    return given


def outputs_of(pipeline: Pipeline, outer: Sequence[str], results: "Mapping[str, Tensors]") -> "dict[str, Array]":
    """The named outer outputs (none: all) from the steps' results."""
    sources = ((name, pipeline.outputs[name]) for name in outer or pipeline.outputs)
    return {name: results[source.step or ""][source.tensor] for name, source in sources}


def locate_in(step: Step, locate: Callable[[str, tuple[int, ...]], str]) -> Callable[[str, tuple[int, ...]], str]:
    """Places in a step's inputs as its caller knows them; `/steps/<step>/<input>/…` for what an earlier step gave."""

    def place(name: str, index: tuple[int, ...]) -> str:
        source = step.inputs.get(name)
        if source is None or source.step is not None:
            return pointer(_INNER, step.name, name, *index)
        return locate(source.tensor, index)

    return place


def step_error(step: Step, error: SluiceError) -> SluiceError:
    """The error of a step as the pipeline's, which names the step.

    What the caller gave stays the caller's fault. Where a step refuses what an earlier one made of it, the pipeline
    has failed: BackendError.
    """
    label = step.label[0].upper() + step.label[1:]
    if isinstance(error, InvalidRequest) and not _is_callers(step, error):
        failure = BackendError(f"{label} cannot work with what the steps before it gave: {error.detail}")
        failure.__cause__ = error.__cause__
        return failure
    detail = f"{label}: {error.detail}"
    # Another object: several requests of a batch may share this one. Some classes' own constructors ask for more.
    named = type(error).__new__(type(error), detail)
    named.__dict__.update(error.__dict__)
    named.detail = detail
    named.__cause__ = error.__cause__
    return named


def _is_callers(step: Step, error: InvalidRequest) -> bool:
    """Whether what is wrong came from outside; without places that is certain only where nothing else came in."""
    if step.takes_outer_only:
        return True
    return bool(error.fields) and not any(field.pointer.startswith(f"{_INNER}/") for field in error.fields)
