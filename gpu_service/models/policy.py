"""Which versions of a model are served."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_FORMS = "all, latest:N or specific:V|V"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """`latest` highest versions, or those in `specific`; without either all of them."""

    latest: int | None = None
    specific: frozenset[int] | None = None

    def select(self, versions: Iterable[int]) -> frozenset[int]:
        """Those of `versions` that are served."""
        if self.specific is not None:
            return self.specific.intersection(versions)
        if self.latest is not None:
            return frozenset(sorted(set(versions), reverse=True)[: self.latest])
        return frozenset(versions)

    def __str__(self) -> str:
        if self.specific is not None:
            return "specific:" + "|".join(map(str, sorted(self.specific)))
        return "all" if self.latest is None else f"latest:{self.latest}"


@dataclass(frozen=True, slots=True)
class VersionPolicies:
    """A policy for each model that has one of its own, and one for the others."""

    default: VersionPolicy = VersionPolicy()
    own: Mapping[str, VersionPolicy] = field(default_factory=dict)

    def of(self, model: str) -> VersionPolicy:
        """The policy of this model."""
        return self.own.get(model, self.default)


def parse_policies(text: str) -> VersionPolicies:
    """Read `latest:2; embed=specific:1|3; other=all`; nothing means all. ValueError says which part is wrong."""
    default: VersionPolicy | None = None
    own: dict[str, VersionPolicy] = {}
    for part in (part.strip() for part in text.split(";")):
        model, separator, policy = (piece.strip() for piece in part.rpartition("="))
        if not part:
            continue
        if not separator:
            if default is not None:
                raise ValueError(f"{part!r}: there is a policy for all models already")
            default = _policy(policy)
        elif not _NAME.fullmatch(model):
            raise ValueError(f"{part!r}: {model!r} cannot be the name of a model")
        elif model in own:
            raise ValueError(f"{part!r}: {model} has a policy already")
        else:
            own[model] = _policy(policy)
    return VersionPolicies(default or VersionPolicy(), own)


def _policy(text: str) -> VersionPolicy:
    kind, separator, rest = text.partition(":")
    numbers = rest.split("|")
    if text == "all":
        return VersionPolicy()
    if separator and all(_NUMBER.fullmatch(number) for number in numbers):
        if kind == "latest" and len(numbers) == 1:
            return VersionPolicy(latest=int(rest))
        if kind == "specific":
            return VersionPolicy(specific=frozenset(map(int, numbers)))
    raise ValueError(f"{text!r} is no version policy: say {_FORMS}, with positive integers")
