"""From a model's outputs to those that callers of an endpoint get: thresholds, then the filter, under other labels.

The whole configuration calls classes by the model's own names; `class_labels` are what callers read in their place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shared.domain.endpoint.class_labels import Labels, labels_of
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.response_filter import Columns, columns_of, narrowed, problems_of_filter, take, visible
from shared.domain.endpoint.thresholds import Decision
from shared.domain.errors import FieldError
from shared.domain.signature import Signature, TensorSpec, by_name

if TYPE_CHECKING:  # NumPy is heavy, and who only checks a configuration does not have it
    from shared.domain.tensors import Array, Tensors


@dataclass(frozen=True, slots=True)
class _Visible:
    """An output as callers get it, and what makes it of the model's output `source`."""

    name: str
    source: str
    decision: Decision | None = None
    labels: Labels | None = None
    columns: Columns | None = None

    def of(self, array: "Array") -> "Array":
        if self.decision is not None:
            return self.decision.apply(array)
        if self.columns is not None:
            array = take(array, self.columns)
        return array if self.labels is None else self.labels.apply(array)


class OutputPlan:
    """What becomes of the outputs of one version; made once for a configuration and a signature, and then kept.

    `signature` is what callers see, with the model's inputs. `problems` says what of the configuration does not fit the
    version: that part has no effect, and what a filter would let through then stays inside.
    """

    __slots__ = ("_outputs", "problems", "signature")

    def __init__(
        self, signature: Signature, outputs: Sequence[_Visible] | None, problems: Sequence[FieldError] = ()
    ) -> None:
        self.signature = signature
        self.problems = tuple(problems)
        self._outputs = outputs

    @classmethod
    def of(cls, config: EndpointConfig, signature: Signature) -> "OutputPlan":
        """The plan for a version of the endpoint's model, whose outer signature is given."""
        settings = config.response
        if not (config.thresholds or config.class_labels or settings.outputs or settings.classes):
            return cls(signature, None)
        return _plan(config, signature)

    @property
    def is_identity(self) -> bool:
        """Whether callers get what the model gives."""
        return self._outputs is None

    def needed(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """The model's outputs that make these of `signature` (none: all that callers see), each once.

        Without a plan of their own they are those that were asked for; empty means all.
        """
        if self._outputs is None:
            return tuple(outputs)
        return tuple(dict.fromkeys(o.source for o in self._outputs if not outputs or o.name in outputs))

    def apply(self, outputs: "Tensors") -> "Tensors":
        """What callers get of a model's outputs, or of some of them; the same mapping if nothing is to be done."""
        if self._outputs is None:
            return outputs
        return {o.name: o.of(outputs[o.source]) for o in self._outputs if o.source in outputs}


def problems_with(config: EndpointConfig, signature: Signature) -> list[FieldError]:
    """What of an endpoint's thresholds, labels and response filter does not fit a version, by JSON pointer."""
    plan = OutputPlan.of(config, signature)
    problems = list(plan.problems)
    if not problems and not plan.signature.outputs:
        problems.append(FieldError("/response", "lets no output through"))
    return problems


def _plan(config: EndpointConfig, signature: Signature) -> OutputPlan:
    settings = config.response
    own = by_name(signature.outputs)
    labels, problems = labels_of(config, signature)
    tried = {name: Decision.of(name, threshold, signature) for name, threshold in config.thresholds.items()}
    problems += [found for found in tried.values() if isinstance(found, FieldError)]
    decisions = {name: found for name, found in tried.items() if isinstance(found, Decision)}
    all_specs = [*signature.outputs, *(decision.spec for decision in decisions.values())]
    problems += problems_of_filter(settings, own, [*own, *config.thresholds])

    outputs: list[_Visible] = []
    specs: list[TensorSpec] = []
    for spec in visible(settings, all_specs):
        name = spec.name
        if name in decisions:
            outputs.append(_Visible(name, decisions[name].source.name, decisions[name]))
            specs.append(spec)
            continue
        columns = columns_of(settings, spec)
        if columns is not None and not columns:
            continue
        labelled = labels.get(name)
        seen = spec if labelled is None else labelled.spec
        specs.append(seen if columns is None else narrowed(seen, columns))
        outputs.append(_Visible(name, name, None, labelled, columns))
    return OutputPlan(replace(signature, outputs=tuple(specs)), outputs, problems)
