"""Configurations of endpoints as people read and write them."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint, Variant

if TYPE_CHECKING:
    from dataclasses import Field


def yaml_of(stored: StoredEndpoint, *, full: bool = False) -> str:
    """A file for `sluice apply`, headed by where it comes from; without `full` only what differs from the defaults."""
    import yaml

    from shared.schemas.endpoint import to_document

    document = to_document(stored.config) if full else sparse(stored.config)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return f"{_heading(stored)}\n{text}"


def sparse(config: EndpointConfig) -> dict[str, Any]:
    """A configuration as JSON has it, without what is as the defaults are; weights of variants always stand there."""
    document: dict[str, Any] = _sparse(config)
    return {"endpoint": document.pop("endpoint"), "variants": _sparse(config.variants), **document}


def percent(share: float) -> str:
    """A share, such as `33.3333%`."""
    return f"{share * 100:.6g}%"


def shares(config: EndpointConfig) -> Mapping[str, float]:
    """The share of the traffic that each variant gets, by name."""
    total = sum(variant.weight for variant in config.variants)
    return {variant.name: variant.weight / total if total else 0.0 for variant in config.variants}


def version_text(config: EndpointConfig, variant: Variant) -> str:
    """Which version a variant serves: `2`, `prod = 2`, or `highest`."""
    if variant.version is None:
        return "highest"
    if isinstance(variant.version, str):
        return f"{variant.version} = {config.labels.get(variant.version, '?')}"
    return str(variant.version)


def _heading(stored: StoredEndpoint) -> str:
    from infra.cli.output import plain
    from infra.cli.times import time_text

    name = stored.config.endpoint
    if not stored.revision:
        return f"# {name}: nothing is stored, and these are the defaults."
    who = f" by {stored.changed_by}" if stored.changed_by else ""
    why = f": {stored.note}" if stored.note else ""
    text = f"# {name}, revision {stored.revision}, set {time_text(stored.changed_at)}{who}{why}"
    return plain(" ".join(text.splitlines()))


def _sparse(value: Any) -> Any:
    if is_dataclass(value):
        return {
            member.name: int(own) if isinstance(own, float) and own.is_integer() else _sparse(own)
            for member in fields(value)
            if (own := getattr(value, member.name)) != _default(member) or (isinstance(value, Variant) and own == 100.0)
        }
    if isinstance(value, Mapping):
        return {name: _sparse(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_sparse(member) for member in value]
    return value


def _default(member: "Field[Any]") -> Any:
    return member.default if member.default_factory is MISSING else member.default_factory()
