"""Which kinds of backends there are. A new one is a file with `Options` and `build`, and a line here."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol, cast, runtime_checkable

import msgspec

from shared.adapters.backends.resources import Resources
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import BackendUnavailable, FieldError, pointer
from shared.domain.ports import Backend

KINDS: Final[Mapping[str, str]] = {
    "open-inference-http": "shared.adapters.backends.open_inference_http",
    "open-inference-grpc": "shared.adapters.backends.open_inference_grpc",
    "sagemaker": "shared.adapters.backends.sagemaker",
    "sagemaker-async": "shared.adapters.backends.sagemaker_async",
    "sagemaker-stream": "shared.adapters.backends.sagemaker_stream",
}

# msgspec's messages: "<what> - at `$.path`", and what is unknown or missing in the object at that path.
_PLACE = re.compile(r"(?s)(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?")
_MEMBER = re.compile(r"Object (?:contains unknown field|missing required field) `(?P<name>.*)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Kind(Protocol):
    """What the module of a kind has."""

    Options: type[msgspec.Struct]

    def build(self, options: Any, resources: Resources) -> Backend:
        """A backend with these options; what is heavy is imported here, not with the module."""


@runtime_checkable
class Addressed(Protocol):
    """Options with an address of their own, which may not be one of this machine."""

    def check_address(self, *, allow_loopback: bool) -> None:
        """ValueError in the form of msgspec's messages; nothing is resolved."""


class Registry:
    """Checks the options of backends, and makes backends of them; implements `shared.domain.ports.BackendKinds`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def problems(self, kind: str, options: Mapping[str, Any]) -> Sequence[FieldError]:
        """What is wrong with a backend's kind or options, by JSON pointers that begin at the backend's own object.

        Nothing is connected to, and nothing is imported that only a call needs.
        """
        if kind not in KINDS:
            return [FieldError("/kind", f"is none of the kinds that there are: {', '.join(sorted(KINDS))}")]
        try:
            self._options_of(kind, options)
        except (msgspec.ValidationError, ValueError) as error:
            return [_field_error(str(error))]
        return []

    def build(self, choice: BackendChoice) -> Backend:
        """The backend of a choice; BackendUnavailable for a choice with `problems`, which must have been refused."""
        if problems := self.problems(choice.kind, choice.options):
            raise BackendUnavailable(
                f"The backend cannot be made: {problems[0].pointer} {problems[0].detail}.", retryable=False
            )
        return _module(choice.kind).build(self._options_of(choice.kind, choice.options), self._resources)

    def _options_of(self, kind: str, options: Mapping[str, Any]) -> msgspec.Struct:
        found = msgspec.convert(dict(options), _module(kind).Options, strict=True)
        if isinstance(found, Addressed):
            found.check_address(allow_loopback=self._resources.allow_loopback)
        return found


def _module(kind: str) -> Kind:
    return cast("Kind", import_module(KINDS[kind]))


def _field_error(message: str) -> FieldError:
    found = _PLACE.fullmatch(message)
    what, path = (found["what"], found["path"] or "") if found else (message, "")
    steps = []
    while step := _STEP.match(path):
        steps.append(step[1] or step[2])
        path = path[step.end() :]
    if member := _MEMBER.fullmatch(what):
        steps.append(member["name"])
        what = "is missing" if "missing" in what else "is no option of this kind"
    return FieldError(pointer("/options", *steps), what)
