"""New shares of the traffic for some versions or variants; the others keep theirs in proportion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from shared.domain.endpoint.config import MAX_VARIANTS, EndpointConfig, Variant
from shared.domain.errors import OutOfRange, VersionNotFound, pointer

_WHOLE: Final = 100.0
_DIGITS: Final = 6
# Shares are decimal fractions, whose sum is seldom exact.
_SLACK: Final = 1e-9
_MAX_VERSION: Final = 999_999_999


@dataclass(frozen=True, slots=True)
class Versions:
    """What is published: whether there is a version, and the highest one (None: nothing is)."""

    exists: Callable[[int], bool]
    latest: int | None


def with_shares(config: EndpointConfig, shares: Mapping[str, float], versions: Versions | None) -> EndpointConfig:
    """The configuration with other weights, in percent, so that each key of `shares` gets its share (0 to 1).

    A key is a version, a variant's name, or a label. A version without a variant gets `v<version>`, on the backend of
    the variant with the highest weight. The rest of the traffic goes to the other variants in proportion to their
    weights. Raises OutOfRange, and VersionNotFound for what is not published, unless `versions` is None: then that is
    not known.
    """
    wanted: dict[str, float] = {}
    named: dict[str, str] = {}
    for key, share in shares.items():
        if not 0 <= share <= 1:
            raise OutOfRange.at(_place(key), "is no share from 0 to 1")
        config, name = _variant_for(config, key, versions)
        if name in named:
            raise OutOfRange.at(_place(key), f"is the same variant, {name}, as {named[name]!r}")
        named[name], wanted[name] = key, share
    given = sum(wanted.values())
    if given > 1 + _SLACK:
        raise OutOfRange.at("/shares", f"add up to {given * 100:g} %, which is more than 100 %")
    others = {variant.name: variant.weight for variant in config.variants if variant.name not in wanted}
    rest, weight = max(0.0, 1 - given), sum(others.values())
    if rest <= _SLACK:
        rest = 0.0
    elif weight <= 0:
        raise OutOfRange.at(
            "/shares", f"add up to {given * 100:g} %, and no other variant takes traffic: say where the rest goes"
        )
    if rest:
        _check_rest(config, named, versions)
    weights = {name: rest * own / weight if weight > 0 else 0.0 for name, own in others.items()} | wanted
    variants = tuple(replace(v, weight=round(weights[v.name] * _WHOLE, _DIGITS)) for v in config.variants)
    return replace(config, variants=variants)


def _variant_for(config: EndpointConfig, key: str, versions: Versions | None) -> tuple[EndpointConfig, str]:
    """The variant that a key means, added to the configuration if there is none."""
    if not key.isdecimal() and config.variant(key) is not None:
        return config, key
    version = _version_of(config, key)
    if versions is not None and not versions.exists(version):
        detail = f"{config.endpoint} has no version {version}"
        raise VersionNotFound.at(_place(key), detail)
    found = [v.name for v in config.variants if _pinned_to(config, v) == version]
    if len(found) > 1:
        raise OutOfRange.at(_place(key), f"version {version} has the variants {', '.join(found)}: name one of them")
    if found:
        return config, found[0]
    return _with_variant(config, key, version)


def _version_of(config: EndpointConfig, key: str) -> int:
    if key.isascii() and key.isdecimal() and 0 < int(key) <= _MAX_VERSION:
        return int(key)
    if key not in config.labels:
        raise VersionNotFound.at(_place(key), f"{config.endpoint} has no such variant or label, and it is no version")
    return config.labels[key]


def _with_variant(config: EndpointConfig, key: str, version: int) -> tuple[EndpointConfig, str]:
    name = f"v{version}"
    if config.variant(name) is not None:
        raise OutOfRange.at(
            _place(key), f"there is a variant {name}, and it has another version: name one for version {version}"
        )
    if len(config.variants) >= MAX_VARIANTS:
        raise OutOfRange.at(_place(key), f"there are {MAX_VARIANTS} variants already: remove one that is not used")
    backend = max(config.variants, key=lambda variant: variant.weight).backend
    return replace(config, variants=(*config.variants, Variant(name, version, backend, 0.0))), name


def _pinned_to(config: EndpointConfig, variant: Variant) -> int | None:
    return config.labels.get(variant.version) if isinstance(variant.version, str) else variant.version


def _check_rest(config: EndpointConfig, named: Mapping[str, str], versions: Versions | None) -> None:
    """Refuse shares that would be another's in truth: the highest version is what a variant without one serves."""
    if versions is None:
        return
    for variant in config.variants:
        if variant.version is not None or variant.name in named or variant.weight <= 0:
            continue
        for name, key in named.items():
            other = config.variant(name)
            if other is not None and _pinned_to(config, other) == versions.latest:
                raise OutOfRange.at(
                    _place(key),
                    f"{variant.name}, which gets the rest, serves the highest version, and that is {versions.latest}, "
                    "too: give the version that the rest is to go to its own share",
                )


def _place(key: str) -> str:
    return pointer("/shares", key)
