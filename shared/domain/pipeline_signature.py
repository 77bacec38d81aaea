"""Which models fit together: the tensors along every edge of a pipeline, and the outer signature that comes of them.

A dimension of any size fits every size; that it does is checked with each run. All steps are batched, or none is: rows
go through unchanged, so the rows of a request are the rows of its answer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NoReturn, TypeVar

from shared.domain.dtypes import DType
from shared.domain.errors import InvalidPackage
from shared.domain.pipeline import Pipeline, Source, Step
from shared.domain.signature import Content, Dim, Signature, TensorSpec, by_name

Signatures = Mapping[str, Signature]
_T = TypeVar("_T")
_Use = tuple[str, TensorSpec, bool]  # where an outer input goes, as what, and whether it has rows there


def outer_signature(
    pipeline: Pipeline, signatures: Signatures, given: Signature | None = None, *, any_max_batch: bool = False
) -> Signature:
    """The signature that callers see, from those of the steps by name; `given` itself if there is one and it agrees.

    With `any_max_batch` the largest batch is the steps' whatever `given` says. InvalidPackage names the step and the
    tensor that do not fit.
    """
    batched = _batched(pipeline, signatures)
    uses: dict[str, list[_Use]] = {}
    for step in pipeline.steps:
        _check_step(step, signatures, uses)
    _check_all_used(pipeline)
    derived = Signature(
        inputs=tuple(_merged(name, places) for name, places in uses.items()),
        outputs=tuple(
            replace(_output(source, signatures, f"The output {name!r}"), name=name)
            for name, source in pipeline.outputs.items()
        ),
        batched=batched,
        max_batch=min(signatures[step.name].max_batch for step in pipeline.steps),
    )
    if not derived.required:
        raise InvalidPackage("A pipeline needs an input that is not optional.")
    if given is None:
        return derived
    if any_max_batch:
        given = replace(given, max_batch=derived.max_batch)
    _check_given(given, derived)
    return given


def _batched(pipeline: Pipeline, signatures: Signatures) -> bool:
    first = pipeline.steps[0]
    batched = signatures[first.name].batched
    for step in pipeline.steps:
        if signatures[step.name].batched is not batched:
            states = ("is batched", "is not") if batched else ("is not batched", "is")
            raise InvalidPackage(
                f"{_upper(first.label)} {states[0]} and {step.label} {states[1]}: rows cannot go through."
            )
    return batched


def _check_step(step: Step, signatures: Signatures, uses: dict[str, list[_Use]]) -> None:
    """Hold what a step is given against its signature; what comes from outside goes to `uses`."""
    signature = signatures[step.name]
    specs = by_name(signature.inputs)
    for name, source in step.inputs.items():
        if name not in specs:
            raise InvalidPackage(f"{_upper(step.label)} has no input {name!r}; it takes {', '.join(specs)}.")
        where = f"{_upper(step.label)}, input {name!r}"
        spec = specs[name]
        if source.step is None:
            uses.setdefault(source.tensor, []).append((where, spec, signature.has_rows(spec)))
            continue
        if signature.batched and not signature.has_rows(spec):
            _refuse(where, f"holds for all rows of a request, and {str(source)!r} has a value for each row")
        _check_edge(where, source, _output(source, signatures, where), spec, lead=int(signature.batched))
    left = [spec.name for spec in signature.required if spec.name not in step.inputs]
    if left:
        raise InvalidPackage(f"Nothing feeds {', '.join(map(repr, left))} of {step.label}, which it needs.")


def _check_all_used(pipeline: Pipeline) -> None:
    sources = [source for step in pipeline.steps for source in step.inputs.values()] + [*pipeline.outputs.values()]
    used = {source.step for source in sources}
    for step in pipeline.steps:
        if step.name not in used:
            raise InvalidPackage(f"Nothing uses the outputs of {step.label}: leave it out.")


def _output(source: Source, signatures: Signatures, where: str) -> TensorSpec:
    if source.step is None:
        raise InvalidPackage(f"{where} is an input of the pipeline, not an output of a step.")
    outputs = by_name(signatures[source.step].outputs)
    if source.tensor not in outputs:
        have = ", ".join(outputs)
        _refuse(where, f"the step {source.step!r} has no output {source.tensor!r}; it has {have}")
    return outputs[source.tensor]


def _check_edge(where: str, source: Source, gives: TensorSpec, takes: TensorSpec, *, lead: int) -> None:
    shown = repr(str(source))
    if gives.dtype is not takes.dtype:
        _refuse(where, f"takes {takes.dtype}, and {shown} is {gives.dtype}")
    if not _shapes_fit(_sized(gives), _sized(takes)) and gives.shape[lead:] not in takes.layouts:
        _refuse(where, f"has the shape {show(_sized(takes))}, and {shown} has {show(_sized(gives))}")
    if gives.classes and takes.features and gives.dtype is not DType.BYTES and gives.classes != takes.features:
        _refuse(where, f"takes the features {_names(takes.features)}, and {shown} gives {_names(gives.classes)}")
    _check_content(where, shown, gives.content, takes.content)


def _check_content(where: str, shown: str, gives: Content | None, takes: Content | None) -> None:
    if gives is not None and takes is not None and gives is not takes:
        _refuse(where, f"takes {takes}, and {shown} holds {gives}")


def _merged(name: str, uses: list[_Use]) -> TensorSpec:
    """One outer input for all the places that it goes to: what each of them allows."""
    _, first, rows = uses[0]
    merged = replace(first, name=name, classes=())
    for where, spec, has_rows in uses[1:]:
        if has_rows is not rows:
            _refuse(where, f"the input {name!r} counts rows in one place and holds for all rows in another")
        if spec.dtype is not merged.dtype:
            _refuse(where, f"takes {spec.dtype}, and the input {name!r} is {merged.dtype} elsewhere")
        if not _shapes_fit(spec.shape, merged.shape):
            _refuse(where, f"has the shape {show(spec.shape)}, and the input {name!r} {show(merged.shape)} elsewhere")
        if spec.features and merged.features and spec.features != merged.features:
            _refuse(where, f"takes the features {_names(spec.features)}; elsewhere they are {_names(merged.features)}")
        if spec.content is not merged.content:
            kinds = f"{spec.content or 'no content'}, and the input {name!r} holds {merged.content or 'none'} elsewhere"
            _refuse(where, f"takes {kinds}")
        merged = replace(
            merged,
            shape=tuple(one if other is None else other for one, other in zip(merged.shape, spec.shape, strict=True)),
            features=merged.features or spec.features,
            layouts=tuple(layout for layout in merged.layouts if layout in spec.layouts),
            minimum=_most(max, (merged.minimum, spec.minimum)),
            maximum=_most(min, (merged.maximum, spec.maximum)),
            max_length=_most(min, (merged.max_length, spec.max_length)),
            allow_non_finite=merged.allow_non_finite and spec.allow_non_finite,
            optional=merged.optional and spec.optional,
        )
    if merged.minimum is not None and merged.maximum is not None and merged.minimum > merged.maximum:
        raise InvalidPackage(f"No value of the input {name!r} is in the range of every step that it goes to.")
    return merged


def _check_given(given: Signature, derived: Signature) -> None:
    """Whether a signature promises no more than the steps hold."""
    if given.batched is not derived.batched:
        states = ("batched", "not batched")
        raise InvalidPackage(
            f"The signature is {states[not given.batched]}, and the steps are {states[given.batched]}."
        )
    if given.max_batch > derived.max_batch:
        raise InvalidPackage(
            f"max_batch is {given.max_batch}, and the steps take {derived.max_batch} rows at the most."
        )
    for kind, ours, theirs in (
        ("input", given.inputs, derived.inputs),
        ("output", given.outputs, derived.outputs),
    ):
        specs = by_name(theirs)
        if unknown := [spec.name for spec in ours if spec.name not in specs]:
            have = ", ".join(specs)
            raise InvalidPackage(f"The signature has the {kind} {unknown[0]!r}, the pipeline has none; it has {have}.")
        if missing := specs.keys() - by_name(ours).keys():
            raise InvalidPackage(f"The signature leaves out the {kind} {min(missing)!r} of the pipeline.")
        for spec in ours:
            _check_same(f"The {kind} {spec.name!r} of the signature", spec, specs[spec.name])
    for spec in given.inputs:
        _check_no_wider(f"The input {spec.name!r} of the signature", spec, by_name(derived.inputs)[spec.name])


def _check_same(where: str, given: TensorSpec, derived: TensorSpec) -> None:
    if given.dtype is not derived.dtype:
        _refuse(where, f"is {given.dtype}, and {derived.dtype} in the steps")
    if not _shapes_fit(_sized(given), _sized(derived)):
        _refuse(where, f"has the shape {show(_sized(given))}, and {show(_sized(derived))} in the steps")
    for kind in ("features", "classes"):
        ours, theirs = getattr(given, kind), getattr(derived, kind)
        if ours and theirs and ours != theirs:
            _refuse(where, f"has the {kind} {_names(ours)}, and {_names(theirs)} in the steps")
    if given.content is not derived.content:
        _refuse(where, f"holds {given.content or 'no content'}, and {derived.content or 'none'} in the steps")


def _check_no_wider(where: str, given: TensorSpec, derived: TensorSpec) -> None:
    """Values that the signature allows must be allowed by every step that they go to."""
    low, high, longest = derived.minimum, derived.maximum, derived.max_length
    if low is not None and (given.minimum is None or given.minimum < low):
        _refuse(where, f"allows values below {low:g}, the minimum of the steps")
    if high is not None and (given.maximum is None or given.maximum > high):
        _refuse(where, f"allows values above {high:g}, the maximum of the steps")
    if longest is not None and (given.max_length is None or given.max_length > longest):
        _refuse(where, f"allows more than {longest} characters, the most that the steps take")
    if given.allow_non_finite and not derived.allow_non_finite:
        _refuse(where, "allows NaN and infinity, and the steps do not")
    if given.optional and not derived.optional:
        _refuse(where, "is optional, and a step needs it")


def _shapes_fit(one: tuple[Dim, ...], other: tuple[Dim, ...]) -> bool:
    return len(one) == len(other) and all(None in (a, b) or a == b for a, b in zip(one, other, strict=True))


def _sized(spec: TensorSpec) -> tuple[Dim, ...]:
    """The shape, with the size of the last axis where its elements have names."""
    names = spec.features or spec.classes
    if not names or spec.dtype is DType.BYTES or not spec.shape:
        return spec.shape
    return (*spec.shape[:-1], len(names))


def _most(choose: Callable[[Iterable[_T]], _T], bounds: tuple[_T | None, _T | None]) -> _T | None:
    known = [bound for bound in bounds if bound is not None]
    return choose(known) if known else None


def show(shape: tuple[Dim, ...]) -> list[int]:
    """A shape as manifests write it, -1 for a dimension of any size."""
    return [-1 if dim is None else dim for dim in shape]


def _names(names: tuple[str, ...]) -> str:
    most = 6
    return ", ".join(names[:most]) + (f", … ({len(names)})" if len(names) > most else "")


def _refuse(where: str, what: str) -> NoReturn:
    raise InvalidPackage(f"{where}: {what}.")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
