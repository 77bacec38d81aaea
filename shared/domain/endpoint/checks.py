"""What must hold between the fields of a configuration; bounds of single ones stand in their types."""

import re
from collections.abc import Collection, Iterable, Iterator
from math import isfinite
from typing import Any, Final

from shared.domain.endpoint.config import (
    AUTO,
    CONTAINER,
    ENDPOINT_NAME,
    FUNCTION,
    LABEL,
    PART_NAME,
    EndpointConfig,
    Experiment,
    Fallback,
)
from shared.domain.errors import FieldError, pointer
from shared.domain.plans import TENANT_NAME

_OWN: Final = (FUNCTION, CONTAINER)
# Source: RFC 9110, 5.6.2, "token"; names of headers arrive in lower case.
_STICKY = re.compile(r"tenant|key|header:[a-z0-9!#$%&'*+.^_`|~-]+")
_MAX_DEPTH = 16
_NAMES_OF_PARTS = "has lower-case letters, digits and dashes, and begins with a letter or digit"


def problems_of(config: EndpointConfig) -> list[FieldError]:
    """Everything that is wrong between the fields, in their order; JSON pointers lead into the document."""
    return [
        *_names(config),
        *_variants(config),
        *_sticky("/sticky", config.sticky, "tenant, key, header:<name> or none", ("none",)),
        *(_experiment(config, config.experiment) if config.experiment is not None else ()),
        *_shadow(config),
        *_backends(config),
        *_times(config),
        *(problem for place, given in enumerate(config.fallback) for problem in _fallback(config, place, given)),
        *_limits(config),
        *_outputs(config),
    ]


def _names(config: EndpointConfig) -> Iterator[FieldError]:
    if not re.fullmatch(ENDPOINT_NAME, config.endpoint):
        yield FieldError("/endpoint", "has lower-case letters, digits and '._-', at most 64 of them")
    for name in config.labels:
        if not re.fullmatch(LABEL, name):
            where = pointer("/labels", name)
            yield FieldError(where, "the name of a label has lower-case letters, digits and '._-', a letter first")


def _variants(config: EndpointConfig) -> Iterator[FieldError]:
    seen: set[str] = set()
    for place, variant in enumerate(config.variants):
        where = pointer("/variants", place)
        if not re.fullmatch(PART_NAME, variant.name):
            yield FieldError(f"{where}/name", _NAMES_OF_PARTS)
        if variant.name in seen:
            yield FieldError(f"{where}/name", f"there are two variants {variant.name!r}")
        seen.add(variant.name)
        if isinstance(variant.version, str) and variant.version not in config.labels:
            yield FieldError(f"{where}/version", f"there is no label {variant.version!r} in labels")
        if variant.backend != AUTO:
            yield from _known_backend(config, f"{where}/backend", variant.backend)
    if not any(variant.weight > 0 for variant in config.variants):
        yield FieldError("/variants", "no variant takes traffic: one weight at the least is above 0")


def _known_backend(config: EndpointConfig, where: str, name: str) -> Iterator[FieldError]:
    if name not in _OWN and name not in config.backends:
        yield FieldError(where, f"there is no backend {name!r}; name {FUNCTION}, {CONTAINER} or one of backends")


def _known_variant(config: EndpointConfig, where: str, name: str) -> Iterator[FieldError]:
    if config.variant(name) is None:
        yield FieldError(where, f"there is no variant {name!r}")


def _sticky(where: str, value: str, forms: str, others: Collection[str] = ()) -> Iterator[FieldError]:
    if not _STICKY.fullmatch(value) and value not in others:
        yield FieldError(where, f"is {forms}; a header's name is in lower case")


def _experiment(config: EndpointConfig, experiment: Experiment) -> Iterator[FieldError]:
    if not re.fullmatch(PART_NAME, experiment.name):
        yield FieldError("/experiment/name", _NAMES_OF_PARTS)
    yield from _sticky("/experiment/unit", experiment.unit, "tenant, key or header:<name>")
    for name in experiment.arms:
        yield from _known_variant(config, pointer("/experiment/arms", name), name)
    if not any(experiment.arms.values()):
        yield FieldError("/experiment/arms", "no arm takes traffic: one weight at the least is above 0")


def _shadow(config: EndpointConfig) -> Iterator[FieldError]:
    if config.shadow is not None:
        yield from _known_variant(config, "/shadow/variant", config.shadow.variant)


def _backends(config: EndpointConfig) -> Iterator[FieldError]:
    for name, choice in config.backends.items():
        where = pointer("/backends", name)
        if name in {AUTO, *_OWN}:
            yield FieldError(where, f"{name} is the stack's own; give it another name")
        elif not re.fullmatch(PART_NAME, name):
            yield FieldError(where, f"the name of a backend {_NAMES_OF_PARTS}")
        yield from _plain(f"{where}/options", choice.options)
    for place, name in enumerate(config.auto.candidates):
        where = pointer("/auto/candidates", place)
        yield from _known_backend(config, where, name)
        if name in config.auto.candidates[:place]:
            yield FieldError(where, f"{name!r} is named twice")


def _times(config: EndpointConfig) -> Iterator[FieldError]:
    if config.retries.hedge is not None and config.retries.hedge.after_ms >= config.timeout_ms:
        yield FieldError("/retries/hedge/after_ms", "is not below timeout_ms: there is never a second attempt")
    if config.fallback and config.fallback_reserve_ms >= config.timeout_ms:
        yield FieldError("/fallback_reserve_ms", "is not below timeout_ms: nothing is left for the variant itself")


def _fallback(config: EndpointConfig, place: int, fallback: Fallback) -> Iterator[FieldError]:
    where = pointer("/fallback", place)
    if fallback.kind == "variant" and fallback.variant is None:
        yield FieldError(f"{where}/variant", "is needed: which variant answers")
    elif fallback.kind != "variant" and fallback.variant is not None:
        yield FieldError(f"{where}/variant", f"a fallback of the kind {fallback.kind} has none")
    elif fallback.variant is not None:
        yield from _known_variant(config, f"{where}/variant", fallback.variant)
    if fallback.kind == "static" and not fallback.outputs:
        yield FieldError(f"{where}/outputs", "is needed: what the answer is")
    elif fallback.kind != "static" and fallback.outputs:
        yield FieldError(f"{where}/outputs", f"a fallback of the kind {fallback.kind} has none")
    yield from _plain(f"{where}/outputs", fallback.outputs)
    if fallback.kind == "cached" and config.cache is None:
        yield FieldError(where, "nothing is kept without cache")
    if fallback in config.fallback[:place]:
        yield FieldError(where, "is there twice")
    elif any(earlier.kind == "static" for earlier in config.fallback[:place]):
        yield FieldError(where, "is never reached: a static answer before it always answers")


def _limits(config: EndpointConfig) -> Iterator[FieldError]:
    for tenant in config.limits.priorities:
        if not re.fullmatch(TENANT_NAME, tenant):
            yield FieldError(pointer("/limits/priorities", tenant), "no tenant can have this name")
    if config.cache is not None and config.cache.join and config.cache.store != "dynamodb":
        yield FieldError("/cache/join", "is for the store dynamodb only: environments share nothing else")


def _outputs(config: EndpointConfig) -> Iterator[FieldError]:
    for name, threshold in config.thresholds.items():
        where = pointer("/thresholds", name)
        if threshold.output in config.thresholds:
            yield FieldError(f"{where}/output", f"{threshold.output!r} is a threshold's own output, and no score")
        if not isfinite(threshold.at):
            yield FieldError(f"{where}/at", "is not a finite number")
    answered = config.response.outputs
    for place, name in enumerate(answered):
        if name in answered[:place]:
            yield FieldError(pointer("/response/outputs", place), f"{name!r} is named twice")
    for name, classes in config.response.classes.items():
        where = pointer("/response/classes", name)
        if answered and name not in answered:
            yield FieldError(where, f"{name!r} is not among response.outputs")
        yield from (FieldError(pointer(where, place), "is named twice") for place in _repeated(classes))


def _repeated(names: Iterable[str]) -> Iterator[int]:
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            yield place
        seen.add(name)


def _plain(where: str, value: Any, depth: int = 0) -> Iterator[FieldError]:
    """What can be stored as JSON, and read by whatever reads JSON."""
    match value:
        case _ if depth > _MAX_DEPTH:
            yield FieldError(where, f"is nested deeper than {_MAX_DEPTH}")
        case float() if not isfinite(value):
            yield FieldError(where, "is not a finite number")
        case int() if not -(2**63) <= value < 2**63:
            yield FieldError(where, "does not fit into 64 bits")
        case dict():
            for name, member in value.items():
                yield from _plain(pointer(where, name), member, depth + 1)
        case list() | tuple():
            for place, member in enumerate(value):
                yield from _plain(pointer(where, place), member, depth + 1)
